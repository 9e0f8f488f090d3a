//! Cleanup of run folders.

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sqlflow_sync::lock;

use sqlflow_job::ExecutorRef;

/// Maximum number of executors in memory. Beyond it the memory is cleared, at the cost of another search for their
/// processes.
const MOST: usize = 1024;
/// Permissions that the owner of a folder needs to list and empty it.
const OWNER_ALL: u32 = 0o700;

/// Executors whose processes were ended, and whose run folders could not be removed.
#[derive(Clone, Default)]
pub(super) struct FailedCleanups(Arc<Mutex<HashSet<ExecutorRef>>>);

impl FailedCleanups {
    /// Ends the executor's processes, then removes its run folder. Housekeeping retries for a folder that stays, but
    /// its processes, which need a search of the whole machine, are ended once.
    pub(super) fn cleanup(
        &self,
        executor: &ExecutorRef,
        end_processes: impl FnOnce() -> io::Result<()>,
        remove: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        if !lock(&self.0).contains(executor) {
            // The folder stays until then, so that housekeeping retries.
            end_processes()?;
        }
        let removed = remove();
        let mut known = lock(&self.0);
        match &removed {
            Ok(()) => {
                known.remove(executor);
            }
            Err(_) => {
                if known.len() >= MOST {
                    known.clear();
                }
                known.insert(executor.clone());
            }
        }
        removed
    }
}

/// Removes the folder and its content, also from folders that a program made read-only.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    match remove_if_there(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            allow_owner(dir);
            remove_if_there(dir)
        }
        done => done,
    }
}

fn remove_if_there(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Gives the owner all permissions on this folder and those below it; links are not followed. Errors show in the
/// removal.
fn allow_owner(dir: &Path) {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let Ok(metadata) = fs::symlink_metadata(&dir) else { continue };
        if !metadata.is_dir() {
            continue;
        }
        let mode = metadata.permissions().mode();
        if mode & OWNER_ALL != OWNER_ALL {
            let _ = fs::set_permissions(&dir, Permissions::from_mode(mode | OWNER_ALL));
        }
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir()));
        dirs.extend(below.map(|entry| entry.path()));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::symlink;

    use nix::errno::Errno;
    use sqlflow_job::{AttemptId, JobId};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// The kernel does not refuse root anything here, so for root the next test tells more.
    #[test]
    fn read_only_folders_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let locked = run_dir.join("made/read-only");
        fs::create_dir_all(&locked).unwrap();
        fs::write(locked.join("file"), "").unwrap();
        set_mode(&locked, 0o555);
        set_mode(&run_dir.join("made"), 0o000);
        remove(&run_dir).unwrap();
        assert!(!run_dir.exists());
        remove(&run_dir).unwrap();
    }

    #[test]
    fn owner_gets_permissions_on_folders_only() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, run_dir) = (dir.path().join("outside"), dir.path().join("run"));
        let (closed, below, file) = (run_dir.join("a"), run_dir.join("a/b"), run_dir.join("a/file"));
        fs::create_dir_all(&below).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(&file, "").unwrap();
        symlink(&outside, run_dir.join("link")).unwrap();
        for (path, mode) in [(&outside, 0o500), (&file, 0o400), (&below, 0o055), (&closed, 0o000)] {
            set_mode(path, mode);
        }
        allow_owner(&run_dir);
        assert_eq!([&closed, &below, &file, &outside].map(|it| mode(it)), [0o700, 0o755, 0o400, 0o500]);
    }

    #[test]
    fn processes_are_searched_once_while_the_folder_stays() {
        let (failed_cleanups, searched) = (FailedCleanups::default(), Cell::new(0));
        let executor = ExecutorRef::of_attempt(&AttemptId { job: JobId::generate(), step: 0, number: 1 });
        let cleanup = |error: Option<Errno>| {
            let search = || {
                searched.set(searched.get() + 1);
                Ok(())
            };
            let cleaned =
                failed_cleanups.cleanup(&executor, search, || error.map_or(Ok(()), |it| Err(it.into())));
            (cleaned.is_ok(), searched.get())
        };
        assert_eq!(cleanup(Some(Errno::EPERM)), (false, 1));
        assert_eq!(cleanup(Some(Errno::EPERM)), (false, 1));
        assert_eq!(cleanup(None), (true, 1));
        assert!(lock(&failed_cleanups.0).is_empty());
    }

    #[test]
    fn folder_stays_until_its_processes_were_ended() {
        let failed_cleanups = FailedCleanups::default();
        let executor = ExecutorRef::of_attempt(&AttemptId { job: JobId::generate(), step: 0, number: 1 });
        let removed = Cell::new(false);
        let cleanup = |search: io::Result<()>| {
            let remove = || {
                removed.set(true);
                Ok(())
            };
            failed_cleanups.cleanup(&executor, || search, remove).is_ok()
        };
        assert!(!cleanup(Err(Errno::EMFILE.into())) && !removed.get());
        assert!(cleanup(Ok(())) && removed.get());
    }
}
