//! Files that survive a crash of the machine: written beside, synced, renamed, and the folder synced.

use std::fs::File;
use std::io;
use std::path::Path;

/// Replaces `path` by what `write` writes, whole or not at all.
///
/// # Errors
/// Those of the file system; the old file is then still there.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    replace_unsynced(path, |file| write(file).and_then(|()| file.sync_all()))?;
    sync_folder(path.parent().unwrap_or(Path::new("/")))
}

/// The same for a file that must survive the end of this process, not a crash of the machine.
///
/// # Errors
/// Those of the file system; the old file is then still there.
pub fn replace_unsynced(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary)?;
    write(&mut file).and_then(|()| std::fs::rename(&temporary, path)).inspect_err(|_| {
        // A full disk gets its room back.
        let _ = std::fs::remove_file(&temporary);
    })
}

/// Makes the names in a folder durable.
///
/// # Errors
/// Those of the file system.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
