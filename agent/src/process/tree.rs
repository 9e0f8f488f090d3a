//! Who descends from the agent: the attempt's processes, also those that left the command's group.

use std::collections::{HashSet, VecDeque};
use std::{fs, io};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::earlier;

/// A descendant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: Pid,
    /// Its name, as the kernel keeps it (15 bytes).
    pub name: String,
    /// Its resident memory, in bytes.
    pub memory: u64,
}

/// Every descendant of this process but those that [`earlier`] leaves out; zombies too.
///
/// # Errors
/// `/proc` cannot be read, so there may be more: the agent has no free descriptor, for one.
pub fn descendants() -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    let mut queue = VecDeque::from([std::process::id().to_string()]);
    while let Some(parent) = queue.pop_front() {
        let Some(threads) = unless_gone(fs::read_dir(format!("/proc/{parent}/task")))? else { continue };
        for thread in threads {
            let Some(thread) = unless_gone(thread)? else { break };
            let children = unless_gone(fs::read_to_string(thread.path().join("children")))?;
            for child in children.unwrap_or_default().split_ascii_whitespace() {
                if let Ok(pid) = child.parse().map(Pid::from_raw)
                    && !earlier::is_earlier(pid)
                {
                    found.push(pid);
                    queue.push_back(child.to_owned());
                }
            }
        }
    }
    Ok(found)
}

/// `None`: the process or thread has ended meanwhile.
fn unless_gone<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    let is_gone = |error: &io::Error| {
        let errno = error.raw_os_error().map(Errno::from_raw);
        matches!(errno, Some(Errno::ENOENT | Errno::ESRCH))
    };
    match read {
        Err(error) if is_gone(&error) => Ok(None),
        read => read.map(Some),
    }
}

/// The descendants that still run, with their names.
///
/// # Errors
/// As for [`descendants`].
pub fn live() -> io::Result<Vec<Process>> {
    Ok(descendants()?.into_iter().filter_map(look).collect())
}

/// The name of a process, also of a zombie; `None`: it is gone.
pub fn name(pid: Pid) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

fn look(pid: Pid) -> Option<Process> {
    // Bytes, since a name may hold any.
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // `pid (name) state …`, and the name may hold parentheses too.
    let (head, rest) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    // `rss` is the 24th field, and `state` the third.
    let pages: u64 = fields.nth(20)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then(|| Process { pid, name, memory: pages * page_bytes() })
}

fn page_bytes() -> u64 {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    page.unsigned_abs()
}

/// Processes that were told to end, so that none is told twice: a second TERM means "at once" to many programs. A process
/// number may get a new owner, so the time of its start belongs to it. At most one entry for each process that ran when
/// the command was told.
#[derive(Debug, Default)]
pub struct SignaledProcesses(HashSet<(Pid, u64)>);

impl SignaledProcesses {
    /// Remembers a process that got this signal, and gives whether it was new here.
    pub fn note(&mut self, pid: Pid) -> bool {
        started(pid).is_some_and(|started| self.0.insert((pid, started)))
    }

    /// Whether this process is among them.
    pub fn contains(&self, pid: Pid) -> bool {
        started(pid).is_some_and(|started| self.0.contains(&(pid, started)))
    }

    /// All that run and could hear it. Whoever ignores the signal was not told: a shell's background job ignores INT.
    fn note_all(&mut self, all: &[Pid], signal: Signal) {
        match signal {
            Signal::SIGTERM => all.iter().for_each(|pid| {
                self.note(*pid);
            }),
            Signal::SIGINT => {
                all.iter().filter(|pid| !ignores(**pid, signal)).for_each(|pid| {
                    self.note(*pid);
                });
            }
            _ => {}
        }
    }
}

/// When it was started, in the kernel's ticks since the boot; `None`: it is gone.
fn started(pid: Pid) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The 22nd field; after the name, which may hold any byte, come the third and so on.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn ignores(pid: Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ignored =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|set| set >> (signal as i32 - 1) & 1 == 1)
}

/// Signals the group of a command that was not reaped yet, and every descendant outside of it. Gives those that are not
/// ours to signal: another user's.
///
/// # Errors
/// The descendants outside of the group could not be listed, so none got the signal.
pub fn signal_command(group: Pid, signal: Signal, told: &mut SignaledProcesses) -> io::Result<Vec<Process>> {
    // Whose parent ends at the signal is moved to another while that is looked at.
    let mut all = descendants().unwrap_or_default();
    told.note_all(&all, signal);
    // Good if it reached one of the group, so each is asked below.
    let _ = killpg(group, signal);
    let after: Vec<_> = descendants()?.into_iter().filter(|pid| !all.contains(pid)).collect();
    // What a program starts to clean up when it was told counts as told too.
    told.note_all(&after, signal);
    all.extend(after);
    Ok(refusing(all, |pid| (nix::unistd::getpgid(Some(pid)) != Ok(group)).then_some(signal)))
}

/// Signals every descendant, one by one: the command is gone, and the number of its group may have a new owner. TERM only
/// those that were not told yet. Gives those that are not ours to signal.
///
/// # Errors
/// They could not be listed, so none got the signal.
pub fn signal_descendants(signal: Signal, told: &mut SignaledProcesses) -> io::Result<Vec<Process>> {
    let mut all = descendants()?;
    if signal == Signal::SIGTERM {
        all.retain(|pid| told.note(*pid));
    }
    Ok(refusing(all, |_| Some(signal)))
}

/// Those that are not ours to signal. With no signal it is only asked whether it could be sent.
fn refusing(all: Vec<Pid>, signal: impl Fn(Pid) -> Option<Signal>) -> Vec<Process> {
    let is_refused = |pid: &Pid| kill(*pid, signal(*pid)) == Err(Errno::EPERM);
    all.into_iter().filter(is_refused).filter_map(look).collect()
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
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
        let found = loop {
            // Between fork and exec it still has the shell's name, and during exec no memory.
            let found: Vec<_> = live()
                .unwrap()
                .into_iter()
                .filter(|process| process.name == "sleep" && process.memory > 0)
                .collect();
            if !found.is_empty() {
                break found;
            }
        };
        for process in found {
            kill(process.pid, Signal::SIGKILL).unwrap();
        }
        child.wait().unwrap();
    }
}
