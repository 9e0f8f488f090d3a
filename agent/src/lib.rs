//! `sqlflow-agent`: supervises one program, ships its output and publishes its models.
//!
//! [`commands`] starts an attempt: a `control_plane` assigns it, the `runner` carries out what the `supervisor`
//! decides, which does no I/O. `output` and `channel` handle the command's output, `process` and `sys` processes,
//! `workspace`, `input` and `publish` files, `trace` spans. The agent knows nothing of SQL.
//!
//! Everything runs on the main thread, except packing, unpacking and other slow work with files.

mod channel;
pub mod cli;
pub mod commands;
mod control_plane;
pub mod exhaustion;
mod input;
pub mod install;
mod known_models;
mod lock;
mod outcome;
mod outcome_json;
pub mod output;
pub mod process;
mod publish;
mod resource_usage;
mod runner;
mod supervisor;
mod sys;
mod trace;
mod workspace;
