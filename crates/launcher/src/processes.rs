//! Signals to processes of this machine. Every process of an attempt has the attempt's id in its environment, so that
//! processes that a killed agent left are found without relying on a process id.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Environment variable with the attempt's id, set for every process of an attempt.
const MARKER: &str = "SQLFLOW_ATTEMPT";
/// Number of checks of a process that is within exec, which takes microseconds.
const EXEC_LOOKS: u32 = 100;
/// Pause between two such checks.
const EXEC_PAUSE: Duration = Duration::from_millis(1);
/// Maximum number of passes over all processes, each of which takes some milliseconds.
const MAX_PASSES: u32 = 50;
/// Number of passes without a new process after which none is taken to be left. One pass can miss a process that starts
/// another one and ends while the list of processes is read.
const CLEAN_PASSES: u32 = 3;
/// The kernel's flag for its own threads (`include/linux/sched.h`); the same since Linux 2.6.
const PF_KTHREAD: u64 = 0x0020_0000;

/// Sends a signal to one process. Ids that are not positive stand for groups or all processes, and are ignored.
pub(super) fn signal(pid: i32, signal: Signal) {
    if pid > 0 {
        // The process may have ended.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Kills all processes with this attempt id, also those that they start meanwhile. One that has changed its environment
/// is not found; while its agent lives, that ends it.
///
/// # Errors
/// Processes cannot be listed, read or killed, or new ones appear all the time: some with the id may still run.
pub(super) fn kill_marked(attempt: &str) -> io::Result<()> {
    kill_marked_in(Path::new("/proc"), attempt)
}

fn kill_marked_in(proc: &Path, attempt: &str) -> io::Result<()> {
    let mark = format!("{MARKER}={attempt}").into_bytes();
    repeat(|| {
        let mut pass = Pass { marked: Vec::new(), result: Ok(()) };
        for entry in fs::read_dir(proc)? {
            let entry = entry?;
            let Some(pid) = pid_of(&entry) else { continue };
            let killed = environment(&entry.path()).and_then(|environment| {
                let is_marked = environment.split(|&byte| byte == 0).any(|variable| variable == mark);
                if is_marked {
                    pass.marked.push(pid);
                    kill_if_there(pid)?;
                }
                Ok(())
            });
            // One that cannot be read must not keep the others alive.
            pass.result = pass.result.and(killed);
        }
        Ok(pass)
    })
}

/// A pass over all processes.
struct Pass {
    /// Those with the mark.
    marked: Vec<i32>,
    /// The first error.
    result: io::Result<()>,
}

/// Repeats passes until some in a row find no new process: one that is killed starts no other one, but it may have before.
/// Returns the result of the last pass.
fn repeat(mut pass: impl FnMut() -> io::Result<Pass>) -> io::Result<()> {
    let (mut known, mut clean) = (HashSet::new(), 0);
    for _ in 0..MAX_PASSES {
        let Pass { marked, result } = pass()?;
        let new = marked.into_iter().filter(|pid| known.insert(*pid)).count();
        clean = if new == 0 { clean + 1 } else { 0 };
        if clean == CLEAN_PASSES {
            return result;
        }
    }
    Err(io::Error::other("the attempt's processes start others faster than they can be killed"))
}

/// The environment of a process by its folder in `/proc`; empty if it has ended, or belongs to another user.
fn environment(process: &Path) -> io::Result<Vec<u8>> {
    let is_none_of_ours = |error: &io::Error| {
        let errno = error.raw_os_error().map(Errno::from_raw);
        matches!(errno, Some(Errno::ENOENT | Errno::ESRCH | Errno::EACCES | Errno::EPERM))
    };
    for _ in 0..EXEC_LOOKS {
        match fs::read(process.join("environ")) {
            Err(error) if is_none_of_ours(&error) => return Ok(Vec::new()),
            Ok(environment) if environment.is_empty() && is_in_exec(process) => thread::sleep(EXEC_PAUSE),
            read => return read,
        }
    }
    Err(io::Error::other(format!("process {} does not come to the end of its exec", process.display())))
}

/// Whether a process that showed no environment was in the middle of exec: it had left the memory of the program before, and
/// the kernel had not filled that of the next one yet. By now it may have. The kernel says where the environment is while it
/// still fills it, as an empty one at first, and where the code begins after that.
fn is_in_exec(process: &Path) -> bool {
    let stat = fs::read(process.join("stat")).unwrap_or_default();
    let stat = String::from_utf8_lossy(&stat);
    // The name before may hold anything. The next field is the third.
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
    let flags: u64 = field(9).parse().unwrap_or(0);
    let is_of_kernel = flags & PF_KTHREAD != 0;
    let has_ended = matches!(field(3), "" | "Z" | "X");
    // Where the code begins; where the environment begins and ends.
    let has_none = field(26) != "0" && field(50) == field(51);
    !(is_of_kernel || has_ended || has_none)
}

fn kill_if_there(pid: i32) -> io::Result<()> {
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Err(Errno::ESRCH) => Ok(()),
        done => Ok(done?),
    }
}

fn pid_of(entry: &fs::DirEntry) -> Option<i32> {
    entry.file_name().to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command};

    use super::*;

    const ATTEMPT: &str = "job/0/1";

    /// A process with a mark.
    struct Marked(Child);

    impl Marked {
        fn with(attempt: &str) -> Self {
            Self(Command::new("sleep").arg("600").env(MARKER, attempt).spawn().unwrap())
        }

        fn ended_by(&mut self) -> Option<i32> {
            self.0.wait().unwrap().signal()
        }
    }

    impl Drop for Marked {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A folder that shows these processes as `/proc` does.
    fn proc_of(processes: &[&Marked]) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        for process in processes {
            let pid = process.0.id().to_string();
            symlink(Path::new("/proc").join(&pid), proc.path().join(pid)).unwrap();
        }
        proc
    }

    #[test]
    fn marked_process_is_killed_despite_an_unreadable_one() {
        let (mut ours, mut other) = (Marked::with(ATTEMPT), Marked::with("job/0/2"));
        let proc = proc_of(&[&ours, &other]);
        // Reading it fails with EISDIR.
        fs::create_dir_all(proc.path().join("1/environ")).unwrap();
        assert!(kill_marked_in(proc.path(), ATTEMPT).is_err(), "it may carry the mark");
        assert_eq!(ours.ended_by(), Some(Signal::SIGKILL as i32));
        assert!(other.0.try_wait().unwrap().is_none(), "it is another attempt's");
        fs::remove_dir_all(proc.path().join("1")).unwrap();
        kill_marked_in(proc.path(), "job/0/2").unwrap();
        assert_eq!(other.ended_by(), Some(Signal::SIGKILL as i32));
    }

    #[test]
    fn passes_are_repeated_until_none_is_new() {
        let passes = |all: &[&[i32]]| {
            let mut count = 0;
            let repeated = repeat(|| {
                count += 1;
                let marked = all.get(count - 1).copied().unwrap_or_default().to_vec();
                Ok(Pass { marked, result: Ok(()) })
            });
            (repeated.is_ok(), count)
        };
        assert_eq!(passes(&[&[]]), (true, 3));
        assert_eq!(passes(&[&[1, 2], &[2, 3], &[3], &[4]]), (true, 7), "a late one begins the count again");
        let endless: Vec<_> = (0..100).map(|pid| vec![pid]).collect();
        let endless: Vec<_> = endless.iter().map(Vec::as_slice).collect();
        assert_eq!(passes(&endless), (false, MAX_PASSES as usize));
    }

    /// What the kernel shows between the old and the new program's memory cannot be stopped at, so these are its words.
    #[test]
    fn process_within_exec_is_read_again() {
        let proc = tempfile::tempdir().unwrap();
        let process = proc.path().join("17");
        fs::create_dir(&process).unwrap();
        fs::write(process.join("environ"), "").unwrap();
        let stat = |name: &str, state: &str, flags: u64, code: u64, [begin, end]: [u64; 2]| {
            let (before, between) = ("0 ".repeat(16), "0 ".repeat(23));
            format!("17 ({name}) {state} 1 17 17 0 -1 {flags} {before}{code} {between}{begin} {end} 0\n")
        };
        let look = |text: String| {
            fs::write(process.join("stat"), text).unwrap();
            environment(&process).is_ok()
        };
        assert!(!look(stat("a) S 1", "S", 0, 0, [0, 0])));
        assert!(!look(stat("sleep", "S", 0, 0, [4711, 4711])), "it is being filled");
        assert!(!look(stat("sleep", "S", 0, 400, [4711, 4800])), "it has been filled");
        assert!(look(stat("env -i", "S", 0, 400, [4711, 4711])), "it was started without an environment");
        assert!(look(stat("kworker", "I", PF_KTHREAD, 0, [0, 0])) && look(stat("sleep", "Z", 0, 0, [0, 0])));
    }

    /// The race itself, as far as chance brings it about.
    #[test]
    fn process_that_just_started_is_killed() {
        for _ in 0..200 {
            let mut child = Marked::with("job/9/9");
            kill_marked_in(proc_of(&[&child]).path(), "job/9/9").unwrap();
            assert_eq!(child.ended_by(), Some(Signal::SIGKILL as i32));
        }
    }

    #[test]
    fn process_that_ended_after_listing_is_no_error() {
        let proc = tempfile::tempdir().unwrap();
        fs::create_dir(proc.path().join("17")).unwrap();
        kill_marked_in(proc.path(), ATTEMPT).unwrap();
    }

    #[test]
    fn failed_listing_of_processes_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(kill_marked_in(&dir.path().join("proc"), ATTEMPT).is_err());
    }
}
