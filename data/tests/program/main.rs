//! The program, with a stand-in for the agent.

mod agent;
mod limits;
mod panics;
mod signals;
mod spans;
