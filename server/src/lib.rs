//! The SQLFlow job server: takes programs of SQL, runs each statement's program outside of itself, and answers
//! what became of them. `ARCHITECTURE.md` has the map and the rules.
//!
//! Dependencies point one way: `api` and `reconciler` use `job`, the store, the log, the launchers and `codegen`; `job` and `sql` use
//! nothing of the rest and do no I/O.

mod accept;
pub mod api;

pub mod agent_liveness;
pub mod attach_errors;
pub mod codegen;
pub mod config;
pub mod descriptors;
pub mod doctor;
#[cfg(test)]
mod fixture;
pub mod memory_peaks;
pub mod metrics;
mod reader;
pub mod reconciler;
pub mod server;
pub mod trace;
pub mod web;
mod wire;
