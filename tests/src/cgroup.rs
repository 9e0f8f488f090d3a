//! Real cgroups, of version 1.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::agent::Exec;

/// A new cgroup, removed when it is dropped.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Group {
    /// In the hierarchy of this controller.
    pub fn new(controller: &str, name: &str) -> Self {
        let folder =
            PathBuf::from(format!("/sys/fs/cgroup/{controller}/sqlflow-test-{}-{name}", std::process::id()));
        std::fs::create_dir(&folder).unwrap_or_else(|error| {
            panic!("this test needs cgroup v1's {controller} controller, and the right to use it: {error}")
        });
        Self(folder)
    }

    /// Writes a number to one of its files.
    pub fn set(&self, file: &str, value: u64) {
        assert!(self.try_set(file, value), "{file} cannot be set");
    }

    /// The same; false if this machine has no such file.
    pub fn try_set(&self, file: &str, value: u64) -> bool {
        std::fs::write(self.0.join(file), value.to_string()).is_ok()
    }

    /// An agent that is in the group from its first instruction, as in a Pod.
    pub fn exec(&self, agent: &Path) -> Exec {
        let script = format!("{} && exec \"$@\"", self.enter());
        Exec::with_agent(&["sh", "-c", &script, "sh"], agent)
    }

    /// Writes a script into the folder that runs this program in the group.
    pub fn script(&self, dir: &Path, program: &Path) -> PathBuf {
        let path = dir.join("in-group");
        let text = format!("#!/bin/sh\n{} && exec {} \"$@\"\n", self.enter(), program.display());
        std::fs::write(&path, text).expect("the folder can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .expect("the test owns the file");
        path
    }

    /// Waits until a fork failed because of the group's limit of processes.
    pub async fn until_refused(&self) {
        let refused = || {
            let events = std::fs::read_to_string(self.0.join("pids.events")).expect("it is a group of pids");
            !events.trim().ends_with(" 0")
        };
        while !refused() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Shell code that puts the shell into the group.
    fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.0.display())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel takes a moment after the last process.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
