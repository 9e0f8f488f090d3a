//! Untrusted paths, such as those of a tarball, an assignment or a variable.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::unistd::Uid;

/// Permissions of a folder with which users other than its owner create files in it.
const WRITE_OF_OTHERS: u32 = 0o022;

/// The path `relative` within `folder`.
///
/// # Errors
/// The path is empty or absolute, or has `..` in it.
pub fn inside(folder: &Path, relative: impl AsRef<Path>) -> io::Result<PathBuf> {
    let relative = relative.as_ref();
    let mut path = folder.to_owned();
    for component in relative.components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(invalid(format!("the path {} leads out of its folder", relative.display())));
            }
        }
    }
    if path == folder {
        return Err(invalid(format!("the path {:?} names nothing", relative.display())));
    }
    Ok(path)
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Whether a folder belongs to this user, and no other user can create files in it.
#[must_use]
pub fn is_own_folder(folder: &Path) -> bool {
    let is_own = |found: Metadata| {
        found.is_dir() && found.uid() == Uid::effective().as_raw() && found.mode() & WRITE_OF_OTHERS == 0
    };
    fs::metadata(folder).is_ok_and(is_own)
}

/// Whether this user may have what is or will be at this path: the first of its folders that exists is theirs. `sudo -E`
/// and `su` keep the home folder of another user.
#[must_use]
pub fn is_below_own_folder(path: &Path) -> bool {
    let first = path.ancestors().find_map(|folder| fs::metadata(folder).ok());
    first.is_some_and(|found| found.uid() == Uid::effective().as_raw())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn folder_in_which_others_write_is_not_ones_own() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, expected) in [(0o700, true), (0o755, true), (0o770, false), (0o1777, false)] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_own_folder(dir.path()), expected, "{mode:o}");
        }
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(!is_own_folder(&file) && !is_own_folder(&dir.path().join("missing")));
        assert!(is_below_own_folder(&dir.path().join("missing/folder")));
        // A process belongs to its user, and no kernel lets others write here.
        let of_others = Path::new("/proc/1");
        let is_ours = fs::metadata(of_others).unwrap().uid() == Uid::effective().as_raw();
        assert_eq!(is_own_folder(of_others), is_ours);
        assert_eq!(is_below_own_folder(&of_others.join("missing")), is_ours);
    }
}
