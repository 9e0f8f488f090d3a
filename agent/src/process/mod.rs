//! The child and all that descends from it: `spawn` starts it, `reaper` owns every exit status, `tree` lists who is
//! there, `cgroup` knows of memory limits and out-of-memory kills.

pub mod cgroup;
pub mod reaper;
pub mod spawn;
pub mod tree;
