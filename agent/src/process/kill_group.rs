//! A cgroup of the command's own, where cgroups (version 2) are delegated to the agent: its kernel file `cgroup.kill` ends
//! all processes of the group at once, also those that are being started. Elsewhere, passes over the descendants do.
//!
//! The companion, which runs no code of users, is not in it: moving a process costs milliseconds.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Beginning of the group's name, before the agent's pid.
const PREFIX: &str = "sqlflow-agent-";

/// The group. Its folder is removed with it, if no process is left.
#[derive(Debug)]
pub struct KillGroup {
    folder: PathBuf,
}

impl KillGroup {
    /// A new group below the agent's own. At most one may exist at a time. `None`: none is delegated to the agent, or the
    /// kernel is older than Linux 5.14.
    pub fn create() -> Option<Self> {
        let parent = Self::parent()?;
        remove_abandoned(&parent);
        Self::below(&parent)
    }

    fn parent() -> Option<PathBuf> {
        let read = |path| fs::read_to_string(path).ok();
        own_group(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)
    }

    fn below(parent: &Path) -> Option<Self> {
        let folder = parent.join(format!("{PREFIX}{}", std::process::id()));
        // That of an agent that was killed and had the same pid. It fails while a process is in it.
        let _ = fs::remove_dir(&folder);
        fs::create_dir(&folder).ok()?;
        let group = Self { folder };
        let can_kill = File::options().write(true).open(group.folder.join("cgroup.kill")).is_ok();
        (can_kill && group.entrance().is_ok()).then_some(group)
    }

    /// A file to which a process writes `0` to enter the group.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn entrance(&self) -> io::Result<OwnedFd> {
        Ok(File::options().write(true).open(self.folder.join("cgroup.procs"))?.into())
    }

    /// Kills all of its processes.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.folder.join("cgroup.kill"), "1")
    }
}

impl Drop for KillGroup {
    fn drop(&mut self) {
        // It stays while a process does, and the next agent here removes it.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// The folder of this process's group, from the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn own_group(mounts: &str, groups: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        let place = fields.split(' ').nth(4)?;
        (kind.split(' ').next() == Some("cgroup2")).then_some(place)
    })?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // That of a process outside of the namespace's root.
    (!path.starts_with("..")).then(|| Path::new(mount).join(path))
}

/// Removes the groups of agents that were killed. That of a living agent may be empty for a moment.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let agent = name.to_str().and_then(|it| it.strip_prefix(PREFIX)?.parse().ok());
        if agent.is_some_and(|pid| kill(Pid::from_raw(pid), None::<Signal>) == Err(Errno::ESRCH)) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn own_group_is_found_in_both_layouts() {
        let unified = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let user = "0::/user.slice/user-7.slice/user@7.service/app.slice\n";
        let found = own_group(unified, user).unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/user.slice/user-7.slice/user@7.service/app.slice"));
        let hybrid = "31 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      32 24 0:28 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let root = "4:memory:/a\n0::/\n";
        assert_eq!(own_group(hybrid, root).unwrap(), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(own_group(hybrid.lines().next().unwrap(), root), None, "there is no version 2");
        assert_eq!(own_group(unified, "0::/../other\n"), None);
    }

    #[test]
    fn kill_ends_all_of_the_group_and_its_folder_goes() {
        // Not on machines without delegated cgroups.
        let Some(group) = KillGroup::create() else { return };
        let mut child = Command::new("sh")
            .args(["-c", "read line; sleep 600 & sleep 600 & wait"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        fs::write(group.folder.join("cgroup.procs"), child.id().to_string()).unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let processes = || fs::read_to_string(group.folder.join("cgroup.procs")).unwrap().lines().count();
        while processes() < 3 {
            std::thread::yield_now();
        }
        group.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        while processes() > 0 {
            std::thread::yield_now();
        }
        let folder = group.folder.clone();
        drop(group);
        assert!(!folder.exists());
    }

    #[test]
    fn empty_group_of_a_killed_agent_with_the_same_pid_is_replaced() {
        let pid = std::process::id();
        let Some(parent) = KillGroup::parent().map(|it| it.join(format!("sqlflow-test-{pid}"))) else {
            return;
        };
        let can_kill = fs::create_dir(&parent).is_ok() && parent.join("cgroup.kill").exists();
        let is_replaced = can_kill.then(|| {
            fs::create_dir(parent.join(format!("{PREFIX}{pid}"))).unwrap();
            KillGroup::below(&parent).is_some()
        });
        let _ = fs::remove_dir(parent.join(format!("{PREFIX}{pid}")));
        let _ = fs::remove_dir(&parent);
        // Not on machines without delegated cgroups.
        assert_ne!(is_replaced, Some(false));
    }

    #[test]
    fn group_of_an_agent_that_was_killed_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let mut dead = Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let folder = |pid: u32| parent.path().join(format!("{PREFIX}{pid}"));
        for pid in [dead.id(), std::process::id()] {
            fs::create_dir(folder(pid)).unwrap();
        }
        remove_abandoned(parent.path());
        assert!(!folder(dead.id()).exists() && folder(std::process::id()).exists());
    }
}
