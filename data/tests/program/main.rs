//! The program, with a stand-in for the agent.

mod agent;
mod by_hand;
mod limits;
mod panics;
mod signals;
mod spans;
