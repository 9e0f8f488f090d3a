//! The audit log: who did what, and by which right. Lines have the target `audit`, so that `RUST_LOG=warn,audit=info` keeps
//! them alone. `docs/security.md` describes their fields.

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

/// What gives access to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// The caller's identity.
    Identity,
    /// The job's token.
    Token,
    /// The link of the job's page.
    Link,
}

/// Where somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// gRPC.
    Api,
    /// Web pages.
    Page,
}

/// What a job does with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelAction {
    /// Makes it, or replaces one.
    Publish,
    /// Drops it.
    Drop,
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

impl Right {
    fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Token => "token",
            Self::Link => "link",
        }
    }
}

impl Via {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Page => "page",
        }
    }
}

/// Somebody does something with a job.
pub fn audit(caller: &Caller, action: Action, job: &JobId, right: Right, via: Via) {
    tracing::info!(
        target: "audit",
        principal = caller.name(),
        action = action.name(),
        %job,
        right = right.name(),
        via = via.name(),
        "access to a job"
    );
}

/// Somebody lists the jobs that they may see.
pub fn audit_list(caller: &Caller, via: Via) {
    tracing::info!(
        target: "audit",
        principal = caller.name(),
        action = "list",
        right = Right::Identity.name(),
        via = via.name(),
        "list of jobs"
    );
}

/// A job of this principal may replace or drop a model from now on. `owner` is whose model it is, if it is somebody else's.
pub fn audit_model(
    principal: Option<&str>,
    action: ModelAction,
    model: &str,
    job: &JobId,
    owner: Option<&str>,
) {
    let action = match action {
        ModelAction::Publish => "publish",
        ModelAction::Drop => "drop",
    };
    tracing::info!(
        target: "audit",
        principal,
        action,
        model,
        %job,
        owner,
        "a model is published or dropped"
    );
}
