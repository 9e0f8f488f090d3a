//! Processes older than the command: `sh -c 'sidecar & exec sqlflow-agent …'` makes the sidecar a child of the agent.
//! Neither it nor its children belong to the attempt.

use std::collections::HashSet;
use std::fs;
use std::sync::{Mutex, OnceLock};

use nix::unistd::{Pid, getpgid, getpgrp};
use sqlflow_sync::lock;

/// Children from before the start of the command that were not reaped yet. Unset: there were none.
static PREEXISTING: OnceLock<Mutex<HashSet<Pid>>> = OnceLock::new();

/// Remembers the present children. Call it before the command starts, on the main thread, which has all children from
/// the start of the process.
pub fn record_children() {
    let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let mut children = children.split_ascii_whitespace().filter_map(|it| it.parse().ok()).peekable();
    if children.peek().is_some() {
        lock(PREEXISTING.get_or_init(Mutex::default)).extend(children.map(Pid::from_raw));
    }
}

/// Whether there were any, so that a remaining child may not belong to the command.
pub fn exist() -> bool {
    PREEXISTING.get().is_some()
}

/// Whether a process is one of them, or an orphan of one. Orphans are recognized by their process group: in a script, a
/// sidecar and its children are in the agent's group, and the command has another.
pub fn is_preexisting(process: Pid) -> bool {
    let Some(preexisting) = PREEXISTING.get() else { return false };
    lock(preexisting).contains(&process) || getpgid(Some(process)) == Ok(getpgrp())
}

/// Forgets a reaped child, whose pid may be used again.
pub fn forget(child: Pid) {
    if let Some(preexisting) = PREEXISTING.get() {
        lock(preexisting).remove(&child);
    }
}
