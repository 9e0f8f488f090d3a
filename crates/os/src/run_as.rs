//! Another user of this machine, as whom a server of root runs the Python of its jobs.

use std::fmt;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::str::FromStr;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

/// Mode of a folder through which the user's group may pass.
const PASSED: u32 = 0o710;

/// A user, by number, with the group that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunAs {
    /// Number of the user.
    pub uid: u32,
    /// Number of its group; it has no others.
    pub gid: u32,
}

impl RunAs {
    /// Uses files with the rights of this user only. It applies to the calling thread, until `work` returns. The process
    /// keeps its supplementary groups, so it should have none.
    ///
    /// # Errors
    /// The process may not switch to this user.
    pub fn with_its_rights<T>(self, work: impl FnOnce() -> T) -> io::Result<T> {
        // The group first: it takes a capability that stays, and those for files go with the user.
        let _group = Restored::Group(setfsgid(Gid::from_raw(self.gid)));
        let _user = Restored::User(setfsuid(Uid::from_raw(self.uid)));
        // Neither call reports an error. A number that no user has changes nothing, and returns the current one.
        let is = (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)));
        if is != (Uid::from_raw(self.uid), Gid::from_raw(self.gid)) {
            return Err(Errno::EPERM.into());
        }
        Ok(work())
    }

    /// Lets the user pass through a folder of this process's user to files below that it knows by their names. It cannot
    /// list it. All others stay out.
    ///
    /// # Errors
    /// The file system fails, or this process may not.
    pub fn let_pass(self, folder: &Path) -> io::Result<()> {
        chown(folder, None, Some(self.gid))?;
        fs::set_permissions(folder, Permissions::from_mode(PASSED))
    }

    /// Whether the user may pass through a folder, by its mode.
    #[must_use]
    pub fn may_pass(self, folder: &Metadata) -> bool {
        let shift = match (folder.uid() == self.uid, folder.gid() == self.gid) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        (folder.mode() >> shift) & 1 == 1
    }
}

/// What the thread gets back, also after a panic.
enum Restored {
    User(Uid),
    Group(Gid),
}

impl Drop for Restored {
    fn drop(&mut self) {
        match self {
            Self::User(uid) => {
                setfsuid(*uid);
            }
            Self::Group(gid) => {
                setfsgid(*gid);
            }
        }
    }
}

impl fmt::Display for RunAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl FromStr for RunAs {
    type Err = String;

    /// Parses `UID:GID`.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once(':').map(|(uid, gid)| (uid.parse::<u32>(), gid.parse::<u32>()));
        match numbers {
            Some((Ok(0), _)) => Err("user 0 is root; name another user".to_owned()),
            // The last number stands for no user.
            Some((Ok(uid), Ok(gid))) if uid != u32::MAX && gid != u32::MAX => Ok(Self { uid, gid }),
            _ => Err("it has the form UID:GID, with numbers".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: RunAs = RunAs { uid: 65534, gid: 65534 };

    #[test]
    fn user_is_two_numbers_and_not_root() {
        assert_eq!("65534:65534".parse::<RunAs>(), Ok(OTHER));
        assert_eq!(OTHER.to_string(), "65534:65534");
        assert!("0:0".parse::<RunAs>().unwrap_err().contains("root"));
        for wrong in ["", "nobody", "1", "1:", "1:x", "-1:1", "4294967295:1", "1:4294967295"] {
            assert!(wrong.parse::<RunAs>().unwrap_err().contains("UID:GID"), "{wrong}");
        }
    }

    #[test]
    fn files_are_used_with_the_rights_of_the_user() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let file = dir.path().join("own");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let read = OTHER.with_its_rights(|| fs::read(&file));
        if Uid::effective().is_root() {
            assert_eq!(read.unwrap().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        } else {
            assert!(read.is_err(), "only root may");
        }
        assert_eq!(fs::read(&file).unwrap(), b"x", "only for that time");
    }

    #[test]
    fn folder_is_passed_by_its_user_group_or_others() {
        let dir = tempfile::tempdir().unwrap();
        let found = fs::metadata(dir.path()).unwrap();
        let (uid, gid) = (found.uid(), found.gid());
        let passes = |mode: u32, user: RunAs| {
            fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            user.may_pass(&fs::metadata(dir.path()).unwrap())
        };
        let [owner, member, other] =
            [(uid, gid), (uid + 1, gid), (uid + 1, gid + 1)].map(|(uid, gid)| RunAs { uid, gid });
        for (mode, expected) in [
            (0o700, [true, false, false]),
            (0o710, [true, true, false]),
            (0o701, [true, false, true]),
            (0o755, [true, true, true]),
            (0o666, [false, false, false]),
        ] {
            assert_eq!([owner, member, other].map(|user| passes(mode, user)), expected, "{mode:o}");
        }
    }
}
