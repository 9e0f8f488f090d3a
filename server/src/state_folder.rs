//! The state folder of a server: made if missing, and closed to other users, who could otherwise read it, or hold its
//! locks.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use nix::unistd::Uid;
use sqlflow_os::run_as::RunAs;

use crate::config::LauncherOption;

/// Permissions of users other than the owner.
const OF_OTHERS: u32 = 0o077;
/// Permission of the group to pass through a folder.
const PASS_OF_GROUP: u32 = 0o010;
/// Folder with the workspaces of submitters, in which the launcher lets their user pass.
const RUN: &str = "run";
/// Folders that are made later, by agents or with the permissions that the process gives to new files.
const MADE_LATER: [&str; 3] = ["cache", "models", "servers"];
/// Maximum length of the path: the longest path of a socket has 107 bytes.
const MAX_PATH: usize = 90;

/// The folder as an absolute path: agents run in other folders.
///
/// # Errors
/// It cannot be made; it belongs to another user; it is open to other users and cannot be closed; its path is too long; or
/// the user of submitters cannot pass to it.
pub(crate) fn prepare(
    dir: &Path,
    launcher: LauncherOption,
    run_as: Option<RunAs>,
) -> anyhow::Result<PathBuf> {
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
        close(&absolute, Uid::effective(), run_as)?;
    }
    if let Some(user) = run_as {
        let_pass(&absolute, user)?;
    }
    Ok(absolute)
}

/// Closes the folder to users other than `user`, whose it must be. Root could use that of another user too, but would
/// leave files there that this user's next server cannot open. The group of submitters may pass through it.
fn close(dir: &Path, user: Uid, run_as: Option<RunAs>) -> anyhow::Result<()> {
    let shown = dir.display();
    let found = fs::metadata(dir).with_context(|| format!("cannot look at the state folder {shown}"))?;
    let owner = found.uid();
    ensure!(
        owner == user.as_raw(),
        "cannot use the state folder {shown}: it belongs to user {owner}, who could read and change all jobs, and this \
         server runs as user {user}; run the server as user {owner}, or give it the folder with chown -R {user} {shown}"
    );
    let mode = found.permissions().mode() & 0o7777;
    let allowed = if run_as.is_some_and(|it| it.gid == found.gid()) { PASS_OF_GROUP } else { 0 };
    if mode & OF_OTHERS & !allowed == 0 {
        return Ok(());
    }
    let closed = fs::set_permissions(dir, fs::Permissions::from_mode(mode & !OF_OTHERS));
    // Who is in the folder already, as a process or by a descriptor of it, still gets to its files.
    closed.and_then(|()| close_entries(dir)).with_context(|| {
        format!(
            "cannot close the state folder {shown} to other users (its mode is {mode:o}); run chmod 700 as its owner, or \
             choose another folder"
        )
    })?;
    tracing::warn!("the state folder {shown} was open to other users (mode {mode:o}), and is closed now");
    Ok(())
}

/// Lets another user pass through the folder to the workspaces of submitters, and closes all else in it.
fn let_pass(dir: &Path, user: RunAs) -> anyhow::Result<()> {
    let shown = dir.display();
    for above in dir.ancestors().skip(1) {
        let found = fs::metadata(above).with_context(|| format!("cannot look at {}", above.display()))?;
        ensure!(
            user.may_pass(&found),
            "cannot run jobs as user {} in the state folder {shown}: this user may not enter {}; choose another folder, \
             such as one in /var/lib",
            user.uid,
            above.display()
        );
    }
    let closed = make_folders(dir).and_then(|()| close_entries(dir)).and_then(|()| user.let_pass(dir));
    closed.with_context(|| format!("cannot let user {} pass through the state folder {shown}", user.uid))
}

/// Makes the folders of the state, so that none is made open later.
fn make_folders(dir: &Path) -> io::Result<()> {
    for name in MADE_LATER.iter().chain([&RUN]) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join(name))?;
    }
    Ok(())
}

/// Closes everything in the folder to other users.
fn close_entries(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let found = match entry.metadata() {
            // A journal of the database, which another server has removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found?,
        };
        let mode = found.permissions().mode() & 0o7777;
        if entry.file_name() != RUN && !found.is_symlink() && mode & OF_OTHERS != 0 {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode & !OF_OTHERS))?;
        }
    }
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
            let file = dir.path().join("state.db");
            fs::write(&file, "x").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
            prepare(dir.path(), LauncherOption::Kubernetes, None).unwrap();
            assert_eq!(mode(dir.path()), open, "a Pod's volume is left as it is");
            prepare(dir.path(), LauncherOption::Local, None).unwrap();
            assert_eq!((mode(dir.path()), mode(&file)), (0o700, 0o600));
        }
        let new = dir.path().join("new");
        prepare(&new, LauncherOption::Local, None).unwrap();
        assert_eq!(mode(&new), 0o700);
    }

    #[test]
    fn open_folder_that_cannot_be_closed_is_refused() {
        // Nobody can change the mode of a folder of the kernel.
        let folder = Path::new("/proc/1/task");
        let owner = Uid::from_raw(fs::metadata(folder).unwrap().uid());
        let error = close(folder, owner, None).unwrap_err();
        assert!(format!("{error:#}").contains("run chmod 700 as its owner"), "{error:#}");
    }

    /// Also by root, who could use it.
    #[test]
    fn folder_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let owner = Uid::effective();
        close(dir.path(), owner, None).unwrap();
        let other = owner.as_raw() + 1;
        let error = close(dir.path(), Uid::from_raw(other), None).unwrap_err().to_string();
        assert!(error.contains(&format!("run the server as user {owner}")), "{error}");
        assert!(error.contains(&format!("chown -R {other}")), "{error}");
    }

    #[test]
    fn user_of_submitters_passes_and_sees_nothing() {
        if !Uid::effective().is_root() {
            return;
        }
        let above = tempfile::tempdir().unwrap();
        fs::set_permissions(above.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let (dir, user) = (above.path().join("state"), RunAs { uid: 65534, gid: 65533 });
        let error = prepare(&dir, LauncherOption::Local, Some(user)).unwrap_err().to_string();
        assert!(error.contains(&format!("may not enter {}", above.path().display())), "{error}");
        fs::set_permissions(above.path(), fs::Permissions::from_mode(0o711)).unwrap();
        fs::write(dir.join("state.db"), "x").unwrap();
        fs::set_permissions(dir.join("state.db"), fs::Permissions::from_mode(0o644)).unwrap();
        // Also when the server is started again.
        for _ in 0..2 {
            prepare(&dir, LauncherOption::Local, Some(user)).unwrap();
            assert_eq!((mode(&dir), fs::metadata(&dir).unwrap().gid()), (0o710, 65533));
            assert_eq!(mode(&dir.join("state.db")), 0o600);
            assert_eq!(MADE_LATER.map(|name| mode(&dir.join(name))), [0o700; 3]);
        }
        prepare(&dir, LauncherOption::Local, None).unwrap();
        assert_eq!(mode(&dir), 0o700, "without the option it is closed again");
    }

    #[test]
    fn long_path_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(90));
        assert!(
            prepare(&long, LauncherOption::Local, None).unwrap_err().to_string().contains("90 bytes or less")
        );
    }
}
