//! The audit log: one line for each time that somebody runs, reads or cancels a job. Lines have the target `audit`, so
//! that `RUST_LOG=warn,audit=info` keeps them alone.

use sqlflow_identity::Caller;
use sqlflow_job::JobId;

/// What somebody does with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Runs it.
    Run,
    /// Reads its results, its output or its program.
    Read,
    /// Cancels it.
    Cancel,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Read => "read",
            Self::Cancel => "cancel",
        }
    }
}

/// Writes a line. `right` is what gave access: the job's token, the link of its page, or the caller's own name.
pub fn audit(caller: &Caller, action: Action, job: &JobId, right: &str) {
    tracing::info!(target: "audit", principal = caller.name(), action = action.name(), %job, right, "access to a job");
}
