//! Who keeps others from writing. SQLite tells only that somebody does; the kernel knows who. The lock's file must not be
//! opened for that: closing it would give up all locks that this process has on it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::store::types::StoreError;

/// Where in the `-shm` file the lock of the one who writes is: `WAL_WRITE_LOCK` of SQLite's "WAL-mode File Format".
const WRITE_LOCK_BYTE: &str = "120";

/// What `error` of a write on the database at `path` means.
pub(super) fn explained(error: sqlx::Error, path: &Path) -> StoreError {
    if is_busy(&error) { StoreError::Busy { why: why(path) } } else { error.into() }
}

fn is_busy(error: &sqlx::Error) -> bool {
    /// The low byte of a code is its kind.
    const SQLITE_BUSY: i32 = 5;
    match error {
        sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(error) => error
            .code()
            .and_then(|code| code.parse::<i32>().ok())
            .is_some_and(|code| code & 0xff == SQLITE_BUSY),
        _ => false,
    }
}

fn why(path: &Path) -> String {
    match holder(path) {
        None => "other writes take all the time".to_owned(),
        Some(pid) if is_stopped(pid) => {
            format!(
                "process {pid}, which is stopped, is in the middle of a write: continue or end that process"
            )
        }
        Some(pid) => format!("process {pid} is in the middle of a write"),
    }
}

/// The process that writes just now.
fn holder(path: &Path) -> Option<i32> {
    let mut shm = path.as_os_str().to_owned();
    shm.push("-shm");
    let inode = fs::metadata(PathBuf::from(shm)).ok()?.ino();
    holder_in(&fs::read_to_string("/proc/locks").ok()?, inode)
}

/// From lines such as `1: POSIX  ADVISORY  WRITE 4711 fe:01:131085 120 120`, see proc_locks(5).
fn holder_in(locks: &str, inode: u64) -> Option<i32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "POSIX", _, "WRITE", pid, file, WRITE_LOCK_BYTE, WRITE_LOCK_BYTE] = words[..] else {
            return None;
        };
        let is_ours = file.rsplit(':').next()?.parse() == Ok(inode);
        pid.parse().ok().filter(|pid| is_ours && *pid > 0)
    })
}

fn is_stopped(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may hold anything.
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['T', 't']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_is_found_among_all_locks() {
        let locks = "\
1: FLOCK  ADVISORY  WRITE 11 fe:01:131085 0 EOF
2: POSIX  ADVISORY  READ 12 fe:01:131085 124 124
2: -> POSIX  ADVISORY  WRITE 13 fe:01:131085 120 120
3: POSIX  ADVISORY  WRITE 14 fe:01:131086 120 120
4: POSIX  ADVISORY  WRITE 15 fe:01:131085 120 120
";
        assert_eq!(holder_in(locks, 131_085), Some(15));
        assert_eq!(holder_in(locks, 131_087), None);
        assert_eq!(holder_in("no lock at all", 131_085), None);
    }
}
