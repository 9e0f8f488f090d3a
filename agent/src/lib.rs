//! `sqlflow-agent`: supervises one program, ships its output and publishes what it made.
//!
//! [`commands`] starts an attempt: a `control_plane` assigns it, the `runner` carries out what the `supervisor` decides,
//! which does no I/O. `output` and `channel` carry what the command says, `process` and `sys` handle processes,
//! `workspace`, `input` and `publish` handle files, `trace` makes spans. The agent knows nothing of SQL.
//!
//! Everything runs on one thread, the main one; only packing, unpacking and other slow work with files goes to others.

mod channel;
pub mod cli;
pub mod commands;
mod control_plane;
pub mod exhaustion;
mod input;
pub mod install;
mod lock;
mod meter;
mod outcome;
mod outcome_json;
pub mod output;
pub mod process;
mod publish;
mod runner;
mod supervisor;
mod sys;
mod trace;
mod workspace;
