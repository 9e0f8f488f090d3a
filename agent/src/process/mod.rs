//! The child and all that descends from it: `spawn` starts it, `reaper` owns every exit status, `signals` reads what is
//! sent to the agent, `terminal` gives it a terminal's foreground and takes that back, `unstartable` says why it cannot be started, `stop` stops the agent with it, `tree`
//! lists who is there, without those who were there `earlier`, `cgroup` knows of memory limits and out-of-memory kills.

pub mod cgroup;
pub mod earlier;
pub mod reaper;
pub mod signals;
pub mod spawn;
pub mod stop;
pub mod terminal;
pub mod tree;
mod unstartable;
