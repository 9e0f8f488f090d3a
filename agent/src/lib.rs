//! `sqlflow-agent`: supervises one program, ships its output and publishes what it made.
//!
//! [`run`] is the shell around [`supervise`], which makes all decisions and does no I/O. `attach` is the connection to a
//! server, `standalone` takes its place where there is none, `ship` and `channel` carry the output of the command,
//! `process` and `sys` handle processes, `workspace`, `input` and `publish` handle files, `trace` makes spans. The agent
//! knows nothing of SQL.
//!
//! Everything runs on one thread, the main one; only packing, unpacking and other slow work with files goes to others.

mod attach;
mod channel;
pub mod cli;
pub mod exhaustion;
mod input;
pub mod install;
mod lock;
mod meter;
mod outcome;
pub mod process;
mod publish;
pub mod run;
pub mod ship;
mod standalone;
mod summary;
mod supervise;
mod sys;
mod trace;
mod workspace;
