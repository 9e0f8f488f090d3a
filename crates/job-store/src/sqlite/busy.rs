//! Who keeps others from writing. SQLite tells only that somebody does; the kernel knows who. The lock's file must not be
//! opened for that: closing it would give up all locks that this process has on it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rusqlite::ErrorCode;
use sqlflow_os::locks::{self, Kind};

use super::beside;
use crate::types::StoreError;

/// Where in the `-shm` file the lock of the one who writes is: `WAL_WRITE_LOCK` of SQLite's "WAL-mode File Format".
const WRITE_LOCK_BYTE: u64 = 120;

/// What `error` of a write on the database at `path` means.
pub(super) fn explained(error: rusqlite::Error, path: &Path) -> StoreError {
    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) { refusal(path) } else { error.into() }
}

/// The answer to a write that could not begin in time.
pub(super) fn refusal(path: &Path) -> StoreError {
    StoreError::Busy { why: why(path) }
}

fn why(path: &Path) -> String {
    match holder(path) {
        None => "other writes take all the time".to_owned(),
        Some(pid) => {
            let fix = if locks::is_stopped(pid) { ": continue or end that process" } else { "" };
            format!("{} is in the middle of a write{fix}", locks::in_words(pid))
        }
    }
}

/// The process that writes just now.
fn holder(path: &Path) -> Option<i32> {
    let shm = fs::metadata(beside(path, "-shm")).ok()?;
    locks::holder(Kind::PosixWrite(WRITE_LOCK_BYTE), shm.ino())
}
