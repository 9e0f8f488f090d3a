//! Users of this machine.

use nix::unistd::{Uid, User};

use crate::{Method, Principal};

/// The principal of a user: `unix:ana`, or `unix:1001` for one without a name.
#[must_use]
pub fn of(uid: u32) -> Principal {
    let name = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
    Principal::new(Method::Unix, &name.unwrap_or_else(|| uid.to_string()))
}

/// The user of this process.
#[must_use]
pub fn own() -> Principal {
    of(Uid::effective().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_their_names() {
        assert_eq!(of(0).name(), "unix:root");
        assert_eq!(of(4_000_000_123).name(), "unix:4000000123");
    }
}
