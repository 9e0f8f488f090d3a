//! The SQLFlow job server: takes programs of SQL, runs each statement's program outside of itself, and answers
//! what became of them. `ARCHITECTURE.md` has the map and the rules.
//!
//! Dependencies point one way: `api` and `drive` use `job`, `store`, `log`, `launch` and `codegen`; `job` and `sql` use
//! nothing of the rest and do no I/O.

mod accept;
pub mod api;

pub mod codegen;
pub mod config;
mod convert;
pub mod descriptors;
pub mod doctor;
pub mod drive;
#[cfg(test)]
mod fixture;
pub mod memory_peaks;
pub mod metrics;
mod reader;
pub mod refusals;
pub mod server;
pub mod silence;
pub mod trace;
pub mod web;
