//! A small log that outgrew its place becomes a log in a folder.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;

use super::LogError;
use super::contents::Contents;
use super::folder::{Folder, SegmentName};
use super::lock::{JobLock, Tried};
use super::salvage::last_good;
use super::scan::{Scan, to_usize};
use super::write::first_mark;

/// The extension of a folder that is being made.
pub(super) const MOVING: &str = "moving";

/// Makes the folder with these bytes as its first segment. It gets its name when all of it is durable, so one that is there
/// is complete, and nothing happens.
pub(super) fn adopt(folder: &Folder, bytes: &Bytes) -> Result<(), LogError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let made = Folder { path: folder.path.with_extension(MOVING), ..folder.clone() };
    let lock = match JobLock::try_make(&made)? {
        Tried::Held(lock) => lock,
        Tried::Busy(waiting) => return Err(waiting.busy()),
        Tried::NoFolder => return Err(LogError::io("make", &made.path)(io::ErrorKind::NotFound.into())),
    };
    if folder.path.try_exists().map_err(LogError::io("look at", &folder.path))? {
        // What stays of it is harmless, and found by the doctor.
        if let Err(error) = remove(&made) {
            tracing::warn!(%error, "what is left of a log's move could not be removed");
        }
        // Who gave it its name may not have come to that.
        return folder.sync_path();
    }
    let path = made.file(SegmentName::live(1));
    let file = File::options().write(true).create(true).truncate(true).open(&path);
    let file = file.map_err(LogError::io("make", &path))?;
    file.write_all_at(bytes, 0).map_err(LogError::io("write", &path))?;
    made.disk.sync_file(&file, &path)?;
    let scan = Scan::of(Contents { bytes: bytes.clone(), unreadable: None }, u64::MAX);
    let mut mark = first_mark(&scan.summary, bytes.len() as u64);
    let mut good = to_usize(scan.good);
    if let Some(last) = last_good(bytes, good, mark.last_position) {
        // Something before it is damaged, and is repaired where it goes.
        (good, mark.last_position) = (last.end, last.position);
    }
    if good < bytes.len() {
        // So is what was last. How many records it was is not known; one is enough for a gap.
        mark.last_position += 1;
    }
    lock.set_committed(mark)?;
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
