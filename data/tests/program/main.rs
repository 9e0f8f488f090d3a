//! The program, with a stand-in for the agent.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

mod agent;
mod by_hand;
mod full_disk;
mod limits;
mod link;
mod panics;
mod signals;
mod spans;
mod step_document;
