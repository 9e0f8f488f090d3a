//! Users of this machine.

use std::io;
use std::sync::LazyLock;

use nix::errno::Errno;
use nix::unistd::{Uid, User};

use crate::{Method, Principal};

/// Number for unknown users, unless the kernel says otherwise.
const NOBODY: u32 = 65534;

/// The principal of a user: `unix:ana`, or `unix:1001` for one without a name. A directory service may block it for long.
///
/// # Errors
/// The name cannot be looked up now. That there is none is no error.
pub fn lookup(uid: u32) -> io::Result<Principal> {
    let name = match User::from_uid(Uid::from_raw(uid)) {
        Ok(user) => user.map(|user| user.name),
        // Some services say so of users that they do not know: see getpwuid(3).
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(named(uid, name.as_deref()))
}

/// The same, for the names of this machine's own services: a name that cannot be looked up is none.
#[must_use]
pub fn of(uid: u32) -> Principal {
    lookup(uid).unwrap_or_else(|_| named(uid, None))
}

fn named(uid: u32, name: Option<&str>) -> Principal {
    Principal::new(Method::Unix, name.unwrap_or(&uid.to_string()))
}

/// The number of the user of this process.
#[must_use]
pub fn own_id() -> u32 {
    Uid::effective().as_raw()
}

/// The number of the user with this name, or of the one that is written as a number. `None`: there is no such user.
#[must_use]
pub fn id_of(name: &str) -> Option<u32> {
    let found = User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
    found.or_else(|| name.parse().ok())
}

/// Whether the number names one user. In a user namespace one number, that of nobody, stands for all users that the namespace
/// does not know.
#[must_use]
pub fn is_one_user(uid: u32) -> bool {
    static OVERFLOW: LazyLock<Option<u32>> = LazyLock::new(|| {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let is_whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
        let number = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
        (!is_whole).then(|| number.trim().parse().unwrap_or(NOBODY))
    });
    *OVERFLOW != Some(uid)
}

/// The user of this process.
#[must_use]
pub fn own() -> Principal {
    of(own_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_their_names() {
        assert_eq!(of(0).name(), "unix:root");
        assert_eq!(of(4_000_000_123).name(), "unix:4000000123");
        let ids = ["root", "4000000123", "no such user"].map(id_of);
        assert_eq!(ids, [Some(0), Some(4_000_000_123), None]);
    }
}
