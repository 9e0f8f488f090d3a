//! Reads and syncs of files, in one place, so that tests can inject faults.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use sqlflow_os::errno::says_damage;
use sqlflow_sync::lock;

use super::LogError;

/// The disk of the logs.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    fsync: bool,
    /// Folders with a durable name; see [`Self::sync_name_once`].
    named: Arc<Mutex<HashSet<PathBuf>>>,
    #[cfg(any(test, feature = "test-support"))]
    pub(super) syncs_to_fail: Arc<std::sync::atomic::AtomicU32>,
}

impl Disk {
    /// Without `fsync` records survive the end of the server, but not of its machine.
    pub(super) fn new(fsync: bool) -> Self {
        Self {
            fsync,
            named: Arc::default(),
            #[cfg(any(test, feature = "test-support"))]
            syncs_to_fail: Arc::default(),
        }
    }

    /// Makes the content of the file durable.
    pub(super) fn sync_file(&self, file: &File, path: &Path) -> Result<(), LogError> {
        #[cfg(any(test, feature = "test-support"))]
        self.fail_if_told(path)?;
        if self.fsync { file.sync_data().map_err(LogError::io("sync", path)) } else { Ok(()) }
    }

    /// Makes the names in the folder durable.
    pub(super) fn sync_folder(&self, path: &Path) -> Result<(), LogError> {
        if !self.fsync {
            return Ok(());
        }
        File::open(path).and_then(|folder| folder.sync_all()).map_err(LogError::io("sync", path))
    }

    /// Makes the name of a folder durable, unless this process has already done so. The folder must never be removed.
    /// There are at most 1,024 such folders.
    pub(super) fn sync_name_once(&self, folder: &Path) -> Result<(), LogError> {
        let is_named = |named: &HashSet<PathBuf>| named.contains(folder);
        if !self.fsync || is_named(&lock(&self.named)) {
            return Ok(());
        }
        folder.parent().map_or(Ok(()), |above| self.sync_folder(above))?;
        lock(&self.named).insert(folder.to_owned());
        Ok(())
    }

    #[cfg(any(test, feature = "test-support"))]
    fn fail_if_told(&self, path: &Path) -> Result<(), LogError> {
        use std::sync::atomic::Ordering::SeqCst;
        let told = self.syncs_to_fail.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        if told { Err(LogError::io("sync", path)(io::Error::from_raw_os_error(5))) } else { Ok(()) }
    }
}

/// Options to open a file of a log. A new file is closed to other users, even where its folder is open to them.
pub(super) fn options() -> OpenOptions {
    let mut options = File::options();
    options.mode(0o600);
    options
}

/// Opens a file for reading.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    #[cfg(any(test, feature = "test-support"))]
    let file = super::bad_blocks::opened(file)?;
    Ok(file)
}

/// Reads from the file at this offset into the beginning of the buffer, as `FileExt::read_at`.
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(any(test, feature = "test-support"))]
    let buffer = super::bad_blocks::readable(file, buffer, offset)?;
    file.read_at(buffer, offset)
}

/// Whether a failed read means that the disk cannot read the bytes; see [`says_damage`].
pub(super) fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| says_damage(Errno::from_raw(code)))
}
