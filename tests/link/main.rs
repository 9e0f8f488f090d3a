//! The link between agents and a server, cut, stalled, slowed, repeated and reordered; and servers that are away. A
//! program of the test's own prints; all that it prints has to be in the job's log, once, in order. Each test names the
//! public report that it answers (A: argo-workflows, AF: airflow, T: tekton, SF: sqlflow).

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod attach_protocol;
mod attempt_fenced;
mod bytes;
mod live_output;
mod restored_log;
mod server_outage;
mod streams;
