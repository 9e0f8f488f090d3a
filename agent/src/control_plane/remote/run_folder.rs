//! Checks whether the run folder still exists, on a file system that may fail or hang.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};

/// Timeout for one check. A hanging network file system blocks one thread, and not the supervisor's.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The run folder, and a running check of it.
#[derive(Debug)]
pub(super) struct RunFolder {
    path: PathBuf,
    looking: Option<JoinHandle<bool>>,
}

impl RunFolder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, looking: None }
    }

    /// Whether the folder certainly does not exist. Other errors and a timeout prove nothing: a healthy training must
    /// not end for a short outage of its storage.
    pub(super) async fn is_gone(&mut self) -> bool {
        let path = self.path.clone();
        let looking = self
            .looking
            .get_or_insert_with(|| spawn_blocking(move || matches!(path.try_exists(), Ok(false))));
        let Ok(looked) = tokio::time::timeout(TIMEOUT, looking).await else { return false };
        self.looking = None;
        looked.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_not_found_means_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut there = RunFolder::new(dir.path().to_owned());
        assert!(!there.is_gone().await);
        let mut missing = RunFolder::new(dir.path().join("missing"));
        assert!(missing.is_gone().await);
        std::fs::create_dir(dir.path().join("missing")).unwrap();
        assert!(!missing.is_gone().await, "each check is a new one");
        // ELOOP, which root gets too.
        std::os::unix::fs::symlink("loop", dir.path().join("loop")).unwrap();
        let mut unreadable = RunFolder::new(dir.path().join("loop"));
        assert!(!unreadable.is_gone().await);
    }

    #[tokio::test]
    async fn hanging_file_system_does_not_mean_gone() {
        let hung = tokio::spawn(std::future::pending());
        let mut folder = RunFolder { path: "/nowhere".into(), looking: Some(hung) };
        assert!(!folder.is_gone().await);
        assert!(folder.looking.is_some(), "the same check is awaited again: one thread at most");
    }
}
