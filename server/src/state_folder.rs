//! The state folder of a server: made if missing, and closed to other users, who could otherwise read it, or hold its
//! locks.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use nix::unistd::Uid;

use crate::config::LauncherOption;

/// Permissions of users other than the owner.
const OF_OTHERS: u32 = 0o077;
/// Maximum length of the path: the longest path of a socket has 107 bytes.
const MAX_PATH: usize = 90;

/// The folder as an absolute path: agents run in other folders.
///
/// # Errors
/// It cannot be made; it belongs to another user; it is open to other users and cannot be closed; or its path is too
/// long.
pub(crate) fn prepare(dir: &Path, launcher: LauncherOption) -> anyhow::Result<PathBuf> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make the state folder {}", dir.display()))?;
    let absolute = fs::canonicalize(dir)?;
    if let Some(parent) = absolute.parent() {
        // So that a new folder survives a power failure. The parent may be unreadable.
        let _ = fs::File::open(parent).and_then(|it| it.sync_all());
    }
    ensure!(
        absolute.as_os_str().len() <= MAX_PATH,
        "the path of the state folder {} is too long for a socket in it; choose one of {MAX_PATH} bytes or less",
        absolute.display()
    );
    // The volume of a Pod belongs to root, and its permissions are those of the Pod's group: no other users are there.
    if launcher != LauncherOption::Kubernetes {
        close(&absolute, Uid::effective())?;
    }
    Ok(absolute)
}

/// Closes the folder to users other than `user`, whose it must be. Root could use that of another user too, but would
/// leave files there that this user's next server cannot open.
fn close(dir: &Path, user: Uid) -> anyhow::Result<()> {
    let shown = dir.display();
    let found = fs::metadata(dir).with_context(|| format!("cannot look at the state folder {shown}"))?;
    let owner = found.uid();
    ensure!(
        owner == user.as_raw(),
        "cannot use the state folder {shown}: it belongs to user {owner}, who could read and change all jobs, and this \
         server runs as user {user}; run the server as user {owner}, or give it the folder with chown -R {user} {shown}"
    );
    let mode = found.permissions().mode() & 0o7777;
    if mode & OF_OTHERS == 0 {
        return Ok(());
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(mode & !OF_OTHERS)).with_context(|| {
        format!(
            "cannot close the state folder {shown} to other users (its mode is {mode:o}); run chmod 700 as its owner, or \
             choose another folder"
        )
    })?;
    tracing::warn!("the state folder {shown} was open to other users (mode {mode:o}), and is closed now");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(dir: &Path) -> u32 {
        fs::metadata(dir).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn open_state_folder_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        for open in [0o777, 0o750, 0o701] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(open)).unwrap();
            prepare(dir.path(), LauncherOption::Kubernetes).unwrap();
            assert_eq!(mode(dir.path()), open, "a Pod's volume is left as it is");
            prepare(dir.path(), LauncherOption::Local).unwrap();
            assert_eq!(mode(dir.path()), 0o700);
        }
        let new = dir.path().join("new");
        prepare(&new, LauncherOption::Local).unwrap();
        assert_eq!(mode(&new), 0o700);
    }

    #[test]
    fn open_folder_that_cannot_be_closed_is_refused() {
        // Nobody can change the mode of a folder of the kernel.
        let folder = Path::new("/proc/1/task");
        let owner = Uid::from_raw(fs::metadata(folder).unwrap().uid());
        let error = close(folder, owner).unwrap_err();
        assert!(format!("{error:#}").contains("run chmod 700 as its owner"), "{error:#}");
    }

    /// Also by root, who could use it.
    #[test]
    fn folder_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let owner = Uid::effective();
        close(dir.path(), owner).unwrap();
        let other = owner.as_raw() + 1;
        let error = close(dir.path(), Uid::from_raw(other)).unwrap_err().to_string();
        assert!(error.contains(&format!("run the server as user {owner}")), "{error}");
        assert!(error.contains(&format!("chown -R {other}")), "{error}");
    }

    #[test]
    fn long_path_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(90));
        assert!(prepare(&long, LauncherOption::Local).unwrap_err().to_string().contains("90 bytes or less"));
    }
}
