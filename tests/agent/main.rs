//! The agent's program, alone: real commands, signals, cgroups and namespaces. A test names the public report that it
//! answers (A: argo-workflows, AF: airflow, K: kubernetes, T: tekton, SF: sqlflow). The list of these reports is in
//! `docs/design/failures-and-bounds.md`.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod companions;
mod container;
mod endings;
mod memory;
mod output;
mod process_limit;
mod publishing;
mod siblings;
mod sidecars;
mod signals;
mod terminal;
mod trace;
