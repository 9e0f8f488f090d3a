//! The working folder of the command.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sqlflow_model_storage::RetryPolicy;
use sqlflow_os::paths::inside;
use sqlflow_os::run_as::RunAs;
use sqlflow_proto::agent::File;

use crate::exhaustion::is_exhaustion;

const PRIVATE: u32 = 0o600;
/// Name of the workspace in a run folder.
pub const NAME: &str = "workspace";

/// Creates the run folder of an attempt, if it does not exist.
///
/// # Errors
/// The file system fails.
pub fn create_run_folder(dir: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot create {}", dir.display()))
}

/// The workspace of another attempt of the same step, in a run folder beside `run_dir`.
pub fn of_attempt(run_dir: &Path, step: u32, attempt: u32) -> PathBuf {
    run_dir.with_file_name(format!("{step}-{attempt}")).join(NAME)
}

/// Makes the file system of `folder` durable.
///
/// # Errors
/// The file system fails.
pub fn sync(folder: &Path) -> io::Result<()> {
    Ok(nix::unistd::syncfs(fs::File::open(folder)?)?)
}

/// Creates the workspace, if it does not exist, and writes the files into it. Exhaustion, such as of the disk, is
/// retried by the policy.
///
/// # Errors
/// A path leads out of the workspace, or the file system fails.
pub fn create(workspace: &Path, files: &[File], retry: &RetryPolicy) -> anyhow::Result<()> {
    let make = || fs::DirBuilder::new().recursive(true).mode(0o700).create(workspace).map_err(Into::into);
    retry.retry(make, is_exhaustion).with_context(|| format!("cannot create {}", workspace.display()))?;
    for file in files {
        retry
            .retry(|| write(workspace, file), is_exhaustion)
            .with_context(|| format!("cannot write {:?} into the workspace", file.path))?;
    }
    Ok(())
}

/// Removes what an earlier agent of the attempt left of the workspace: its files may be those of another user, who could
/// have put links among them.
///
/// # Errors
/// The file system fails.
pub fn remove(workspace: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(workspace) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", workspace.display()))
        }
        _ => Ok(()),
    }
}

/// Gives the workspace to another user. Its content comes first: until the end, the user cannot enter and change it.
///
/// # Errors
/// The file system fails, or this process may not.
pub fn give(workspace: &Path, user: RunAs) -> anyhow::Result<()> {
    let given = give_all(workspace, user);
    given.with_context(|| format!("cannot give {} to user {}", workspace.display(), user.uid))
}

fn give_all(path: &Path, user: RunAs) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give_all(&entry?.path(), user)?;
        }
    }
    lchown(path, Some(user.uid), Some(user.gid))
}

fn write(workspace: &Path, file: &File) -> anyhow::Result<()> {
    let path = inside(workspace, &file.path)?;
    fs::create_dir_all(path.parent().unwrap_or(workspace))?;
    let mode = if file.mode == 0 { PRIVATE } else { file.mode & 0o777 };
    // New, so that no existing link is followed.
    let mut target = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
    // The umask applied to the mode above.
    let written = target
        .write_all(&file.content)
        .and_then(|()| target.set_permissions(fs::Permissions::from_mode(mode)));
    if written.is_err() {
        // A retry creates it again.
        let _ = fs::remove_file(&path);
    }
    Ok(written?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sqlflow_os::small_disk;

    use super::*;

    fn retry() -> RetryPolicy {
        RetryPolicy::new(Duration::from_secs(60))
    }

    fn file(path: &str, mode: u32) -> File {
        File { path: path.to_owned(), content: "x".into(), mode }
    }

    #[test]
    fn files_are_written_with_folders_and_modes() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = dir.path().join("workspace");
        create(&workspace, &[file("main.py", 0), file("bin/tool", 0o755)], &retry()).unwrap();
        let mode = |path: &str| fs::metadata(workspace.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("main.py"), mode("bin/tool")), (0o600, 0o755));
    }

    #[test]
    fn paths_outside_the_workspace_are_rejected() {
        for path in ["../x", "/x", "a/../../x", "", "."] {
            let dir = tempfile::tempdir().unwrap();
            let created = create(&dir.path().join("workspace"), &[file(path, 0)], &retry());
            assert!(created.is_err(), "{path}");
            assert!(!dir.path().join("x").exists());
        }
    }

    #[test]
    fn existing_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("workspace")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("victim"), dir.path().join("workspace/main.py")).unwrap();
        assert!(create(&dir.path().join("workspace"), &[file("main.py", 0)], &retry()).is_err());
        assert!(!dir.path().join("victim").exists());
    }

    #[test]
    fn workspace_is_given_to_another_user_without_the_targets_of_its_links() {
        use std::os::unix::fs::MetadataExt as _;
        if !nix::unistd::Uid::effective().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (workspace, outside) = (dir.path().join("workspace"), dir.path().join("outside"));
        create(&workspace, &[file("main.py", 0), file("a/b", 0)], &retry()).unwrap();
        fs::write(&outside, "x").unwrap();
        std::os::unix::fs::symlink(&outside, workspace.join("link")).unwrap();
        give(&workspace, RunAs { uid: 65534, gid: 65533 }).unwrap();
        let owner = |path: &str| {
            let found = fs::symlink_metadata(dir.path().join(path)).unwrap();
            (found.uid(), found.gid())
        };
        for given in ["workspace", "workspace/main.py", "workspace/a", "workspace/a/b", "workspace/link"] {
            assert_eq!(owner(given), (65534, 65533), "{given}");
        }
        assert_eq!(owner("outside").0, 0);
        remove(&workspace).unwrap();
        remove(&workspace).unwrap();
        assert!(!workspace.exists() && outside.exists());
    }

    #[test]
    fn on_a_small_disk() {
        let Some(disk) = small_disk::here() else { return };
        let ballast = small_disk::fill(&disk);
        let workspace = disk.join("workspace");
        let large = File { content: vec![b'x'; small_disk::MIB / 2].into(), ..file("bin/large", 0) };
        let files = [large, file("main.py", 0)];
        let at_once = create(&workspace, &files, &RetryPolicy::new(Duration::ZERO));
        assert!(is_exhaustion(&at_once.unwrap_err()));
        std::thread::scope(|scope| {
            let created = scope.spawn(|| create(&workspace, &files, &retry()));
            std::thread::sleep(Duration::from_millis(500));
            assert!(!created.is_finished());
            fs::remove_file(ballast).unwrap();
            created.join().unwrap().unwrap();
        });
        assert_eq!(fs::read(workspace.join("bin/large")).unwrap().len(), small_disk::MIB / 2);
        assert!(workspace.join("main.py").exists());
        small_disk::done();
    }

    #[test]
    fn full_disk_is_retried() {
        small_disk::run("workspace::tests::on_a_small_disk");
    }
}
