//! SQLFlow job server: accepts SQL programs, executes each of their steps in an attempt outside of this process, and
//! serves their output. `ARCHITECTURE.md` has the map and the rules.
//!
//! Dependencies point one way: `api` and `reconciler` use `job`, the store, the log, the launchers and `codegen`; `job`
//! and `sql` depend on none of the others and do no I/O.

pub mod access;
pub mod admission;
pub mod api;
mod connections;

pub mod agent_liveness;
mod agent_outcome;
mod agent_records;
mod agents_certificate;
pub mod attach_errors;
pub mod codegen;
pub mod config;
pub mod data_sources;
pub mod doctor;
#[cfg(test)]
mod fixture;
pub mod idle;
pub mod memory_peaks;
pub mod metrics;
pub mod model_rights;
mod on_exit;
pub mod open_files;
mod read_recorder;
pub mod reconciler;
mod retry_hint;
pub mod server;
mod state_folder;
mod success;
pub mod telemetry;
pub mod trace;
pub mod web;
