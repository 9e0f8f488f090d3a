//! Common parts of the command lines of the server, the agent and `sqlflowctl`.

pub mod address;
pub mod ctrl_c;
#[cfg(feature = "manual")]
pub mod manual;
pub mod origin;
