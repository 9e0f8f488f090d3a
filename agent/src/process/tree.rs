//! Who descends from the agent: the attempt's processes, also those that left the command's group.

use std::collections::VecDeque;
use std::fs;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// A live descendant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: Pid,
    /// Its name, as the kernel keeps it (15 bytes).
    pub name: String,
}

/// Every descendant of this process; zombies too. Empty when `/proc` cannot be read.
pub fn descendants() -> Vec<Pid> {
    let mut found = Vec::new();
    let mut queue = VecDeque::from([std::process::id().to_string()]);
    while let Some(parent) = queue.pop_front() {
        let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for child in children.split_ascii_whitespace() {
                if let Ok(pid) = child.parse() {
                    found.push(Pid::from_raw(pid));
                    queue.push_back(child.to_owned());
                }
            }
        }
    }
    found
}

/// The descendants that still run, with their names.
pub fn live() -> Vec<Process> {
    descendants().into_iter().filter_map(look).collect()
}

fn look(pid: Pid) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `pid (name) state …`, and the name may hold anything, parentheses too.
    let (head, rest) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let state = rest.trim_start().chars().next()?;
    (!matches!(state, 'Z' | 'X')).then_some(Process { pid, name })
}

/// Resident memory of all descendants together, in bytes. Shared pages count once per process.
pub fn resident_bytes() -> u64 {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    let pages: u64 = descendants().into_iter().filter_map(resident_pages).sum();
    pages * page.unsigned_abs()
}

fn resident_pages(pid: Pid) -> Option<u64> {
    fs::read_to_string(format!("/proc/{pid}/statm")).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Signals the group of a command that was not reaped yet, and every descendant outside of it.
pub fn signal_command(group: Pid, signal: Signal) {
    let _ = killpg(group, signal);
    for pid in descendants() {
        if nix::unistd::getpgid(Some(pid)) != Ok(group) {
            let _ = kill(pid, signal);
        }
    }
}

/// Signals every descendant, one by one: the command is gone, and the number of its group may have a new owner.
pub fn signal_descendants(signal: Signal) {
    for pid in descendants() {
        let _ = kill(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grandchild_in_another_session_is_found_by_name() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "setsid sleep 600 & echo; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut byte = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
        let found = loop {
            // Between fork and exec it still has the shell's name.
            let found: Vec<_> = live().into_iter().filter(|process| process.name == "sleep").collect();
            if !found.is_empty() {
                break found;
            }
        };
        assert!(resident_bytes() > 0);
        for process in found {
            kill(process.pid, Signal::SIGKILL).unwrap();
        }
        child.wait().unwrap();
    }
}
