//! Who was there before the command: `sh -c 'sidecar & exec sqlflow-agent …'` makes the sidecar a child of the agent. It is
//! not the attempt's, and neither is what it starts.

use std::collections::HashSet;
use std::fs;
use std::sync::{Mutex, OnceLock};

use nix::unistd::{Pid, getpgid, getpgrp};
use sqlflow_sync::lock;

/// Children that this process had before it started the command, and that were not reaped yet. Unset: there were none.
static EARLIER: OnceLock<Mutex<HashSet<Pid>>> = OnceLock::new();

/// Remembers the children that there are. Call it on the main thread, which has all that were there at the start, before
/// the command starts.
pub fn remember() {
    let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let mut children = children.split_ascii_whitespace().filter_map(|it| it.parse().ok()).peekable();
    if children.peek().is_some() {
        lock(EARLIER.get_or_init(Mutex::default)).extend(children.map(Pid::from_raw));
    }
}

/// There were some, so a child that is left need not be the command's.
pub fn were_there() -> bool {
    EARLIER.get().is_some()
}

/// Whether a process is one of them, or was left behind by one that has ended. That shows by its process group: in a script a
/// sidecar and its children are in the agent's, and the command has another.
pub fn is_earlier(process: Pid) -> bool {
    let Some(earlier) = EARLIER.get() else { return false };
    lock(earlier).contains(&process) || getpgid(Some(process)) == Ok(getpgrp())
}

/// A child was reaped, so its number may get a new owner.
pub fn forget(child: Pid) {
    if let Some(earlier) = EARLIER.get() {
        lock(earlier).remove(&child);
    }
}
