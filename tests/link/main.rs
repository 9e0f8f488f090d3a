//! Faults of the link between agents and a server (cut, stalled, slow, duplicating, reordering), and server outages. A
//! test program prints, and all of its output must be in the job's log, once and in order. A test names the public
//! report that it answers (A: argo-workflows, AF: airflow, T: tekton, SF: sqlflow).

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod attach_protocol;
mod attempt_fenced;
mod believed_success;
mod faulty_links;
mod live_output;
mod reading;
mod restored_log;
mod server_outage;
