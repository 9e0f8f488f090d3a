//! Holders of file locks, from the kernel's list in `/proc/locks`; see proc_locks(5).

use std::fs;

/// Kind of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A lock of flock(2).
    Flock,
    /// A write lock of fcntl(2) on this byte.
    PosixWrite(u64),
}

/// Maximum number of reads of the list. The kernel returns it a page at a time, and misses a lock that moves across the
/// border of two pages when other locks come or go: in up to a fifth of the reads while four threads do nothing else.
const READINGS: usize = 12;

/// The process that holds such a lock on the file with this inode; `None`: no process, or one without an id here.
#[must_use]
pub fn holder(kind: Kind, inode: u64) -> Option<i32> {
    (0..READINGS).find_map(|_| holder_in(&fs::read_to_string("/proc/locks").ok()?, kind, inode))
}

/// Parses lines like `1: FLOCK  ADVISORY  WRITE 3548 00:2b:127 0 EOF`; in lines of waiters, `->` precedes the kind.
fn holder_in(locks: &str, kind: Kind, inode: u64) -> Option<i32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, class, _, access, pid, file, first, last] = words[..] else { return None };
        let is_such = match kind {
            Kind::Flock => class == "FLOCK",
            Kind::PosixWrite(byte) => {
                class == "POSIX" && access == "WRITE" && [first, last].iter().all(|it| it.parse() == Ok(byte))
            }
        };
        let is_of_file = file.rsplit_once(':').is_some_and(|(_, found)| found.parse() == Ok(inode));
        pid.parse().ok().filter(|pid| is_such && is_of_file && *pid > 0)
    })
}

/// Whether the process is stopped, for example by SIGSTOP.
#[must_use]
pub fn is_stopped(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may contain any character.
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['T', 't']))
}

/// The process for a message, with a note if it is stopped.
#[must_use]
pub fn in_words(pid: i32) -> String {
    if is_stopped(pid) { format!("process {pid}, which is stopped,") } else { format!("process {pid}") }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn holder_is_found_while_other_locks_change() {
        let dir = tempfile::tempdir().unwrap();
        let lock = |name: String| {
            let file = File::create(dir.path().join(name)).unwrap();
            file.lock().unwrap();
            file
        };
        let held = lock("held".to_owned());
        let inode = held.metadata().unwrap().ino();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (lock, is_done) = (&lock, &is_done);
                scope.spawn(move || {
                    while !is_done.load(Ordering::Relaxed) {
                        drop((0..300).map(|file| lock(format!("{thread}-{file}"))).collect::<Vec<_>>());
                    }
                });
            }
            let found: Vec<_> = (0..300).map(|_| holder(Kind::Flock, inode)).collect();
            is_done.store(true, Ordering::Relaxed);
            let own = i32::try_from(std::process::id()).ok();
            assert!(found.iter().all(|holder| *holder == own), "{found:?}");
        });
    }

    #[test]
    fn holder_of_the_write_lock_is_found_in_the_list() {
        let locks = "\
1: FLOCK  ADVISORY  WRITE 11 fe:01:131085 0 EOF
2: POSIX  ADVISORY  READ 12 fe:01:131085 124 124
2: -> POSIX  ADVISORY  WRITE 13 fe:01:131085 120 120
3: POSIX  ADVISORY  WRITE 14 fe:01:131086 120 120
4: POSIX  ADVISORY  WRITE 15 fe:01:131085 120 120
";
        let writes = Kind::PosixWrite(120);
        assert_eq!(holder_in(locks, writes, 131_085), Some(15));
        assert_eq!(holder_in(locks, writes, 131_087), None);
        assert_eq!(holder_in("no lock at all", writes, 131_085), None);
        assert_eq!(holder_in(locks, Kind::Flock, 131_085), Some(11));
    }

    #[test]
    fn holder_is_found_in_the_kernels_list() {
        let holder_in = |line, inode| holder_in(line, Kind::Flock, inode);
        let line = "1: FLOCK  ADVISORY  WRITE 3548 00:2b:127 0 EOF";
        assert_eq!((holder_in(line, 127), holder_in(line, 128)), (Some(3548), None));
        assert_eq!(holder_in("1: -> FLOCK  ADVISORY  WRITE 3548 00:2b:127 0 EOF", 127), None);
        assert_eq!(holder_in("2: OFDLCK ADVISORY  WRITE -1 00:2b:127 0 0", 127), None);
        assert_eq!(holder_in("", 127), None);
    }
}
