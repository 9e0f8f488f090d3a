//! Tests on a full disk. The test runs itself in a mount namespace that has a small one.

#![expect(clippy::unwrap_used, clippy::missing_panics_doc, clippy::print_stdout, reason = "for tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

const DISK: &str = "SQLFLOW_TEST_SMALL_DISK";
const DONE: &str = "the disk was small";
pub const MIB: usize = 1 << 20;

/// Runs a test of the calling crate with a disk of one MiB. It must call [`done`] at its end.
pub fn run(test: &str) {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=1m none "$0" && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(dir.path()).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(DISK, dir.path());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains(DONE),
        "this test mounts a small disk and needs the right to do so\n{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The small disk; `None`: the test was not started by [`run`].
pub fn here() -> Option<PathBuf> {
    std::env::var_os(DISK).map(PathBuf::from)
}

/// Fills the disk, and returns the file to remove to free space again.
pub fn fill(disk: &Path) -> PathBuf {
    let ballast = disk.join("ballast");
    let filled = std::fs::write(&ballast, vec![1; 2 * MIB]);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    ballast
}

/// Marks the test as complete.
pub fn done() {
    println!("{DONE}");
}
