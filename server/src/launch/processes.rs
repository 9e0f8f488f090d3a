//! Signals for processes of this machine. What an attempt started carries the attempt's id in its environment, so
//! that what a killed agent left behind can be found and ended without trusting a process id.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Environment variable that marks every process of an attempt; its value is the attempt's id.
const MARKER: &str = "SQLFLOW_ATTEMPT";

/// Signals one process. Ids that are not positive stand for groups of processes, or for all; they get nothing.
pub(super) fn signal(pid: i32, signal: Signal) {
    if pid > 0 {
        // Nothing to do when the process is gone already.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Kills every process that carries this mark.
pub(super) fn kill_marked(attempt: &str) {
    let mark = format!("{MARKER}={attempt}").into_bytes();
    for pid in fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| pid_of(&entry)) {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environment.split(|&byte| byte == 0).any(|variable| variable == mark) {
            signal(pid, Signal::SIGKILL);
        }
    }
}

fn pid_of(entry: &fs::DirEntry) -> Option<i32> {
    entry.file_name().to_str()?.parse().ok()
}
