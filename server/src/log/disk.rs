//! Making bytes durable. One place, so that tests can let it fail.

use std::fs::File;
use std::path::Path;

use super::LogError;

/// How the log treats its disk.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    fsync: bool,
    #[cfg(test)]
    pub(super) syncs_to_fail: std::sync::Arc<std::sync::atomic::AtomicU32>,
}

impl Disk {
    /// Without `fsync` records survive their server but not their machine.
    pub(super) fn new(fsync: bool) -> Self {
        Self {
            fsync,
            #[cfg(test)]
            syncs_to_fail: std::sync::Arc::default(),
        }
    }

    /// Makes what was written to the file durable.
    pub(super) fn sync_file(&self, file: &File, path: &Path) -> Result<(), LogError> {
        #[cfg(test)]
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

    #[cfg(test)]
    fn fail_if_told(&self, path: &Path) -> Result<(), LogError> {
        use std::sync::atomic::Ordering::SeqCst;
        let told = self.syncs_to_fail.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        if told { Err(LogError::io("sync", path)(std::io::Error::from_raw_os_error(5))) } else { Ok(()) }
    }
}
