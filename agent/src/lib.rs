//! `sqlflow-agent`: supervises one program, ships its output and publishes what it made.
//!
//! [`run`] is the shell around [`supervise`], which decides everything and touches nothing. `attach` talks to the
//! server, `standalone` stands in for it where there is none, `ship` and `channel` carry what the child says, `process`
//! and `sys` know of processes, `workspace`, `input`, `unpack`, `publish`, `tarball` and `cache` know of files, `store` of
//! storages and `trace` of collectors. The agent knows nothing of SQL. [`models`] is for people who look into a storage.
//!
//! Everything runs on one thread, the main one; only packing, unpacking and other slow work with files goes to others.

mod attach;
mod cache;
mod channel;
pub mod cli;
pub mod exhaustion;
mod input;
pub mod install;
mod lock;
mod meter;
pub mod models;
mod outcome;
pub mod process;
mod publish;
pub mod run;
pub mod ship;
mod standalone;
mod store;
mod summary;
mod supervise;
mod sys;
mod tarball;
mod trace;
mod unpack;
mod workspace;
