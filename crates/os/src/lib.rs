//! Functions of the operating system that the server and the agent share.

pub mod clock;
pub mod disk;
pub mod durable;
pub mod errno;
pub mod exhaustion;
pub mod failpoint;
pub mod ignored_signals;
pub mod inherited_variables;
pub mod locks;
pub mod paths;
pub mod reloaded;
pub mod run_as;
pub mod short_command;
#[cfg(feature = "test-support")]
pub mod small_disk;
