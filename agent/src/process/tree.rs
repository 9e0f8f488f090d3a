//! Descendants of the agent: the attempt's processes, also those that left the command's group.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use sqlflow_os::ignored_signals::is_ignored;

use super::preexisting;

/// A descendant of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: Pid,
    /// Name, of which the kernel keeps 15 bytes.
    pub name: String,
    /// Resident memory, in bytes.
    pub memory: u64,
}

/// All descendants of this process, zombies too, except those of [`preexisting`].
///
/// # Errors
/// `/proc` cannot be read, for example since the agent has no free descriptor. There may be more descendants.
pub fn descendants() -> io::Result<Vec<Pid>> {
    descendants_of(std::process::id().to_string())
}

/// All descendants of a process.
fn descendants_of(process: String) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    let mut queue = VecDeque::from([process]);
    while let Some(parent) = queue.pop_front() {
        let Some(threads) = unless_gone(fs::read_dir(format!("/proc/{parent}/task")))? else { continue };
        for thread in threads {
            let Some(thread) = unless_gone(thread)? else { break };
            let children = unless_gone(fs::read_to_string(thread.path().join("children")))?;
            for child in children.unwrap_or_default().split_ascii_whitespace() {
                if let Ok(pid) = child.parse().map(Pid::from_raw)
                    && !preexisting::is_preexisting(pid)
                {
                    found.push(pid);
                    queue.push_back(child.to_owned());
                }
            }
        }
    }
    Ok(found)
}

/// `None`: the process or thread has ended.
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

/// The descendants that run.
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

/// What `/proc/<pid>/stat` says of a process, also of a zombie.
struct Stat {
    name: String,
    state: String,
    /// Start time in the kernel's ticks since boot.
    started: u64,
    resident_pages: u64,
}

impl Stat {
    /// `None`: the process is gone.
    fn read(pid: Pid) -> Option<Self> {
        // Bytes, since a name may contain any.
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // `pid (name) state …`, and the name may contain parentheses.
        let (head, rest) = stat.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_ascii_whitespace().collect();
        // `proc_pid_stat(5)` numbers the fields from 1, and `state` is field 3.
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            name: head.split_once('(')?.1.to_owned(),
            state: field(3)?.to_owned(),
            started: field(22)?.parse().ok()?,
            resident_pages: field(24)?.parse().ok()?,
        })
    }
}

/// `None`: the process is gone or a zombie.
fn look(pid: Pid) -> Option<Process> {
    let Stat { name, state, resident_pages, .. } = Stat::read(pid)?;
    (!matches!(&*state, "Z" | "X")).then(|| Process { pid, name, memory: resident_pages * page_bytes() })
}

fn page_bytes() -> u64 {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    page.unsigned_abs()
}

/// Processes that got a signal, so that none gets it twice: a second TERM means "at once" to many programs. The start
/// time is part of the key, since a pid may be used again. At most one entry for each process that ran when the command
/// was signaled.
#[derive(Debug, Default)]
pub struct SignaledProcesses(HashSet<(Pid, u64)>);

impl SignaledProcesses {
    /// Adds a process. Returns whether it was new.
    pub fn insert(&mut self, pid: Pid) -> bool {
        started(pid).is_some_and(|started| self.0.insert((pid, started)))
    }

    /// Whether this process is among them.
    pub fn contains(&self, pid: Pid) -> bool {
        started(pid).is_some_and(|started| self.0.contains(&(pid, started)))
    }

    /// Adds those that do not ignore the signal: a shell's background job ignores INT.
    fn insert_all(&mut self, all: &[Pid], signal: Signal) {
        match signal {
            Signal::SIGTERM => all.iter().for_each(|pid| {
                self.insert(*pid);
            }),
            Signal::SIGINT => {
                all.iter().filter(|pid| !ignores(**pid, signal)).for_each(|pid| {
                    self.insert(*pid);
                });
            }
            _ => {}
        }
    }
}

fn started(pid: Pid) -> Option<u64> {
    Stat::read(pid).map(|it| it.started)
}

fn ignores(pid: Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    is_ignored(&status, signal as i32)
}

/// The processes of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// All descendants of the agent, also orphans.
    All,
    /// The same without those of another program.
    AllBut(Pid),
    /// The program, its group and its descendants.
    Own,
}

impl Family {
    fn list(self, group: Pid) -> io::Result<Vec<Pid>> {
        match self {
            Self::All => descendants(),
            Self::AllBut(other) => {
                let spared = descendants_of(other.to_string())?;
                let is_spared = |pid: &Pid| spared.contains(pid) || is_in_group(*pid, other);
                Ok(descendants()?.into_iter().filter(|pid| !is_spared(pid)).collect())
            }
            Self::Own => {
                let own = descendants_of(group.to_string())?;
                let is_own = |pid: &Pid| own.contains(pid) || is_in_group(*pid, group);
                Ok(descendants()?.into_iter().filter(is_own).collect())
            }
        }
    }
}

fn is_in_group(pid: Pid, group: Pid) -> bool {
    nix::unistd::getpgid(Some(pid)) == Ok(group)
}

/// Signals the group of a program that was not reaped yet, and every process of its family outside of it. Returns the
/// processes that refuse the signal, since they belong to another user.
///
/// # Errors
/// The family could not be listed, so none of it outside of the group got the signal.
pub fn signal_program(
    group: Pid,
    family: Family,
    signal: Signal,
    signaled: &mut SignaledProcesses,
) -> io::Result<Vec<Process>> {
    // A process whose parent ends at the signal gets another parent during the listing.
    let mut all = family.list(group).unwrap_or_default();
    signaled.insert_all(&all, signal);
    // Succeeds if it reached one of the group, so each process is checked below.
    let _ = killpg(group, signal);
    let after: Vec<_> = family.list(group)?.into_iter().filter(|pid| !all.contains(pid)).collect();
    // A process that a program starts to clean up after the signal counts as signaled too.
    signaled.insert_all(&after, signal);
    all.extend(after);
    Ok(refusing(all, |pid| (!is_in_group(pid, group)).then_some(signal)))
}

/// Number of passes without a new process after which none is taken to be left. One pass can miss a process that starts
/// another one and ends while the list of processes is read.
const CLEAN_PASSES: u32 = 8;
/// Timeout for passes over the descendants that kill new ones.
const KILL_TIME: Duration = Duration::from_secs(5);
/// Pause between passes without a new process: they should not all fall into the same moment.
const CLEAN_PAUSE: Duration = Duration::from_millis(2);

/// Kills every descendant, also those that are started meanwhile: passes are repeated until some in a row find no new
/// process. A killed process starts no other one. Returns those that refuse the signal. Blocks for five seconds at
/// most; after it, new ones may be left.
///
/// # Errors
/// The descendants could not be listed.
pub fn kill_descendants() -> io::Result<Vec<Process>> {
    let begun = Instant::now();
    let mut killed = SignaledProcesses::default();
    let mut clean = 0;
    loop {
        let all = descendants()?;
        let refused = refusing(all.clone(), |_| Some(Signal::SIGKILL));
        // One that has ended by itself may have started another one, of which this pass knows nothing. It stays a
        // zombie until the agent reaps it, unless its parent did.
        let mut is_new = |pid: &Pid| started(*pid).is_none_or(|started| killed.0.insert((*pid, started)));
        let found_new = all.iter().filter(|pid| is_new(pid)).count() > 0;
        clean = if found_new { 0 } else { clean + 1 };
        if clean == CLEAN_PASSES || begun.elapsed() > KILL_TIME {
            return Ok(refused);
        }
        if !found_new {
            std::thread::sleep(CLEAN_PAUSE);
        }
    }
}

/// Sends TERM to every descendant that had no signal yet, one by one: the command is gone, and its group's number may be
/// used again. Returns the processes that refuse the signal.
///
/// # Errors
/// The descendants could not be listed, so none of them got the signal.
pub fn terminate_descendants(signaled: &mut SignaledProcesses) -> io::Result<Vec<Process>> {
    let mut all = descendants()?;
    all.retain(|pid| signaled.insert(*pid));
    Ok(refusing(all, |_| Some(Signal::SIGTERM)))
}

/// The processes that belong to another user. Without a signal, only the permission is checked.
fn refusing(all: Vec<Pid>, signal: impl Fn(Pid) -> Option<Signal>) -> Vec<Process> {
    let is_refused = |pid: &Pid| kill(*pid, signal(*pid)) == Err(Errno::EPERM);
    all.into_iter().filter(is_refused).filter_map(look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendant_in_another_session_is_found() {
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
