//! Durable replacement of files: written beside the old one, synced, renamed, and the folder synced.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Replaces `path` atomically by what `write` writes.
///
/// # Errors
/// Errors of the file system; the old file then stays.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    replace_unsynced(path, |file| write(file).and_then(|()| file.sync_all()))?;
    sync_folder(path.parent().unwrap_or(Path::new("/")))
}

/// The same for a file that need not survive a crash of the machine, only of the process.
///
/// # Errors
/// Errors of the file system; the old file then stays.
pub fn replace_unsynced(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary)?;
    write(&mut file).and_then(|()| std::fs::rename(&temporary, path)).inspect_err(|_| {
        // Frees the space on a full disk.
        let _ = std::fs::remove_file(&temporary);
    })
}

/// Closes a new file to other users, where the file system knows users.
pub fn close_to_others(file: &File) {
    let _ = file.set_permissions(Permissions::from_mode(0o600));
}

/// Makes the entries of a folder durable.
///
/// # Errors
/// Errors of the file system.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
