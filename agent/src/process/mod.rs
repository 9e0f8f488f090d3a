//! The command and its descendants: `spawn` starts it, `start_diagnosis` explains why it cannot be started, `reaper` owns
//! every exit status, `tree` lists descendants, without `preexisting` processes. `signals` reads signals to the agent,
//! `terminal` moves the foreground of a terminal, `stop` stops the agent with its command, `cgroup` reads memory limits
//! and OOM kills. `confined` is what the command must not reach, and `private_files` the agent's own files among it. `kill_group` is
//! a cgroup of the command's own.

pub mod cgroup;
pub mod confined;
pub mod kill_group;
pub mod preexisting;
mod private_files;
pub mod reaper;
pub mod signals;
pub mod spawn;
mod start_diagnosis;
pub mod stop;
pub mod terminal;
pub mod tree;
