//! The user of `--run-as`: the Python of local jobs runs as this user, and not as the server's.

use std::fs;

use anyhow::{Context as _, ensure};
use nix::unistd::{Uid, User};
use sqlflow_os::run_as::RunAs;

use super::{LauncherOption, Options};

/// Capabilities that it takes, by their bits (`linux/capability.h`): to become another user, to give it a workspace, to
/// remove what it leaves, and to find its processes and kill them.
const NEEDED: [(u32, &str); 6] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (5, "CAP_KILL"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
    (19, "CAP_SYS_PTRACE"),
];

/// What this process may do.
struct Rights {
    user: Uid,
    /// Effective capabilities.
    capabilities: u64,
}

impl Options {
    /// The user of submitters on this machine. `None`: the server's own.
    ///
    /// # Errors
    /// There is no such user, it is root, or this server may not switch to it.
    pub fn run_as(&self) -> anyhow::Result<Option<RunAs>> {
        self.run_as_by(&Rights { user: Uid::effective(), capabilities: effective_capabilities() })
    }

    fn run_as_by(&self, rights: &Rights) -> anyhow::Result<Option<RunAs>> {
        // Pods have the user of their template.
        let is_local = self.launcher == LauncherOption::Local;
        let Some(name) = self.run_as.as_deref().filter(|name| is_local && !name.is_empty()) else {
            return Ok(None);
        };
        let cannot = || format!("cannot run jobs as user {name} (from {})", self.origin("run-as"));
        let user = user(name).with_context(cannot)?;
        check(user, rights).with_context(cannot)?;
        Ok(Some(user))
    }
}

/// The user with this name or number.
fn user(name: &str) -> anyhow::Result<RunAs> {
    let found = match name.parse::<u32>() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(name),
    };
    let found = found.context("the users of this machine cannot be read")?;
    let found =
        found.context("there is no such user; create it with useradd --system, or name another one")?;
    Ok(RunAs { uid: found.uid.as_raw(), gid: found.gid.as_raw() })
}

fn check(user: RunAs, rights: &Rights) -> anyhow::Result<()> {
    ensure!(user.uid != 0, "it is root; name a user who has no rights of its own");
    ensure!(user.gid != 0, "its group is that of root; name a user with a group of its own");
    ensure!(
        rights.user.is_root(),
        "this server does not run as root; start it as root, or leave the option out"
    );
    let missing = NEEDED.iter().filter(|(bit, _)| (rights.capabilities >> bit) & 1 == 0);
    let missing: Vec<_> = missing.map(|(_, name)| *name).collect();
    ensure!(
        missing.is_empty(),
        "this server does not have {}; give it these capabilities, or leave the option out",
        missing.join(", ")
    );
    Ok(())
}

/// Those of this process; none if they cannot be read.
fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    const ROOT: Rights = Rights { user: Uid::from_raw(0), capabilities: u64::MAX };

    fn run_as(flags: &[&str], rights: &Rights) -> Result<Option<RunAs>, String> {
        let options = Options::parse_from([&["sqlflow-server"], flags].concat());
        options.run_as_by(rights).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn user_is_found_by_its_name_or_number() {
        let nobody = User::from_name("nobody").unwrap().unwrap();
        let expected = RunAs { uid: nobody.uid.as_raw(), gid: nobody.gid.as_raw() };
        for name in ["nobody".to_owned(), expected.uid.to_string()] {
            let flag = format!("--run-as={name}");
            assert_eq!(run_as(&[flag.as_str()], &ROOT), Ok(Some(expected)));
        }
        assert_eq!(run_as(&[], &ROOT), Ok(None));
    }

    #[test]
    fn user_that_cannot_be_used_is_refused_with_the_reason() {
        let refused = |flag: &str, rights: &Rights| run_as(&[flag], rights).unwrap_err();
        let unknown = refused("--run-as=no such user", &ROOT);
        assert!(unknown.starts_with("cannot run jobs as user no such user (from --run-as): "), "{unknown}");
        assert!(unknown.contains("there is no such user; create it"), "{unknown}");
        assert!(refused("--run-as=root", &ROOT).contains("it is root"));
        let other = Rights { user: Uid::from_raw(1000), ..ROOT };
        assert!(refused("--run-as=nobody", &other).contains("start it as root"));
        // As in a container.
        let poor = Rights { capabilities: ROOT.capabilities & !(1 << 5) & !(1 << 19), ..ROOT };
        let error = refused("--run-as=nobody", &poor);
        assert!(error.contains("does not have CAP_KILL, CAP_SYS_PTRACE; give it"), "{error}");
    }

    #[test]
    fn server_of_pods_leaves_the_user_to_their_template() {
        assert_eq!(run_as(&["--launcher=kubernetes", "--run-as=no such user"], &ROOT), Ok(None));
    }
}
