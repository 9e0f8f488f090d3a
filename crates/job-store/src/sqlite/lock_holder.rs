//! The process that blocks other writers. SQLite reports only that there is one; the kernel knows its id. Do not open
//! the lock's file for that: closing it would release all locks of this process on it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rusqlite::ErrorCode;
use sqlflow_os::locks::{self, Kind};

use super::beside;
use crate::types::StoreError;

/// Offset of the writer's lock in the `-shm` file: `WAL_WRITE_LOCK` of SQLite's "WAL-mode File Format".
const WRITE_LOCK_BYTE: u64 = 120;

/// The store's error for `error` of a write on the database at `path`.
pub(super) fn explained(error: rusqlite::Error, path: &Path) -> StoreError {
    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) { refusal(path) } else { error.into() }
}

/// The error of a write that could not begin in time.
pub(super) fn refusal(path: &Path) -> StoreError {
    StoreError::Busy { why: why(path) }
}

fn why(path: &Path) -> String {
    match holder(path) {
        None => "other writes take too long".to_owned(),
        Some(pid) => {
            let fix = if locks::is_stopped(pid) { ": continue or end that process" } else { "" };
            format!("{} is in the middle of a write{fix}", locks::in_words(pid))
        }
    }
}

/// The process that writes now.
fn holder(path: &Path) -> Option<i32> {
    let shm = fs::metadata(beside(path, "-shm")).ok()?;
    locks::holder(Kind::PosixWrite(WRITE_LOCK_BYTE), shm.ino())
}
