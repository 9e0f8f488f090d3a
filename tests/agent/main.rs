//! The agent's program, alone: real commands, real signals, real cgroups and namespaces. Each test names the public
//! report that it answers (A: argo-workflows, AF: airflow, K: kubernetes, T: tekton, SF: sqlflow); what the whole list
//! asks for is in `docs/design/failures-and-bounds.md`.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod container;
mod endings;
mod memory;
mod output;
mod processes;
mod published;
mod sidecars;
mod signals;
mod terminal;
mod trace;
