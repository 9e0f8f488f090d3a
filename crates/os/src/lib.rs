//! What the server and the agent ask of the operating system.

pub mod clock;
pub mod durable;
pub mod errno;
pub mod exhaustion;
pub mod failpoint;
pub mod locks;
pub mod paths;
#[cfg(feature = "test-support")]
pub mod small_disk;
