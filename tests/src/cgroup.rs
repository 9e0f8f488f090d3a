//! Real cgroups, of version 1.

use std::path::{Path, PathBuf};

use crate::agent::Exec;

/// A cgroup of our own, removed when it is dropped.
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

    /// The same; false: there is no such file on this machine.
    pub fn try_set(&self, file: &str, value: u64) -> bool {
        std::fs::write(self.0.join(file), value.to_string()).is_ok()
    }

    /// An agent that is in the group from its first instruction, as in a Pod.
    pub fn exec(&self, agent: &Path) -> Exec {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        Exec::with_agent(&["sh", "-c", &script, "sh"], agent)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel takes a moment after the last process.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
