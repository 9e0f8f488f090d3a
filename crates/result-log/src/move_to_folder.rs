//! Moves a small log that reached its maximum size to a folder.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;

use super::LogError;
use super::file_io;
use super::folder::{Folder, SegmentName};
use super::lock::{JobLock, Tried};
use super::partial_read::Contents;
use super::salvage::last_good;
use super::scan::{Scan, to_usize};
use super::write::first_committed_offset;

/// Extension of a folder during its creation.
pub(super) const MOVING: &str = "moving";

/// Creates the folder with these bytes as its first segment. It is renamed when its content is durable, so an existing
/// folder is complete, and this has no effect.
pub(super) fn move_to_folder(folder: &Folder, bytes: &Bytes) -> Result<(), LogError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let made = Folder { path: folder.path.with_extension(MOVING), ..folder.clone() };
    let lock = match JobLock::try_make(&made)? {
        Tried::Held(lock) => lock,
        Tried::Busy(waiting) => return Err(waiting.busy()),
        Tried::NoFolder => return Err(LogError::io("create", &made.path)(io::ErrorKind::NotFound.into())),
    };
    if folder.path.try_exists().map_err(LogError::io("check", &folder.path))? {
        // If this fails, the remainder is harmless, and the doctor finds it.
        if let Err(error) = remove(&made) {
            tracing::warn!(%error, "cannot remove the remainder of a log's move; `sqlflow-server doctor` finds it");
        }
        // The process that renamed it may not have synced the name.
        return folder.sync_path();
    }
    let path = made.file(SegmentName::live(1));
    let file = file_io::options().write(true).create(true).truncate(true).open(&path);
    let file = file.map_err(LogError::io("create", &path))?;
    file.write_all_at(bytes, 0).map_err(LogError::io("write", &path))?;
    made.disk.sync_file(&file, &path)?;
    let scan = Scan::of(Contents { bytes: bytes.clone(), unreadable: None }, u64::MAX);
    let mut committed = first_committed_offset(&scan.summary, bytes.len() as u64);
    let mut good = to_usize(scan.good);
    if let Some(last) = last_good(bytes, good, committed.last_position) {
        // An earlier frame is damaged. The repair of the folder handles it.
        (good, committed.last_position) = (last.end, last.position);
    }
    if good < bytes.len() {
        // The end is damaged too. The number of records there is not known; one position is enough for a gap.
        committed.last_position += 1;
    }
    lock.set_committed(committed)?;
    made.disk.sync_folder(&made.path)?;
    fs::rename(&made.path, &folder.path).map_err(LogError::io("rename", &made.path))?;
    folder.sync_path()
}

fn remove(made: &Folder) -> Result<(), LogError> {
    match fs::remove_dir_all(&made.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LogError::io("remove", &made.path)(error))
        }
        _ => Ok(()),
    }
}
