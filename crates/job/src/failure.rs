//! Failures of jobs, and their causes.

use serde::{Deserialize, Serialize};

/// The reason for which a job did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Cause.
    pub cause: Cause,
    /// One sentence for people.
    pub message: String,
}

impl Failure {
    /// A failure with this cause and message.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into() }
    }

    /// The failure of a job whose results exceed the limit of its log.
    #[must_use]
    pub fn over_limit() -> Self {
        let message = "the job's results reach the limit of its log; store large results in a table";
        Self::new(Cause::Limit, message)
    }
}

/// Causes of failures, as in `sqlflow.v1.Cause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A statement failed.
    StatementFailed,
    /// A client cancelled the job.
    Cancelled,
    /// No client fetched from the job within the fetch timeout.
    NotFetched,
    /// Memory ran out (OOM).
    OutOfMemory,
    /// The attempt was lost.
    Lost,
    /// A statement that is not repeatable started, and its result is unknown.
    MayHaveExecuted,
    /// No attempt could be started.
    LaunchFailed,
    /// A model could not be read or published.
    Storage,
    /// A limit of the server was reached.
    Limit,
    /// Killed by a signal from outside.
    Killed,
    /// The deadline was exceeded.
    Deadline,
}

impl Cause {
    /// Whether a client or the fetch timeout cancelled the job, so that nothing failed.
    #[must_use]
    pub fn is_cancel(self) -> bool {
        match self {
            Self::Cancelled | Self::NotFetched => true,
            Self::StatementFailed
            | Self::OutOfMemory
            | Self::Lost
            | Self::MayHaveExecuted
            | Self::LaunchFailed
            | Self::Storage
            | Self::Limit
            | Self::Killed
            | Self::Deadline => false,
        }
    }

    /// Description in a few words, without parts of the program or its data.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::StatementFailed => "a statement failed",
            Self::Cancelled => "cancelled",
            Self::NotFetched => "cancelled, as nobody fetched it",
            Self::OutOfMemory => "out of memory",
            Self::Lost => "lost",
            Self::MayHaveExecuted => "a statement may have executed",
            Self::LaunchFailed => "could not be started",
            Self::Storage => "the model's storage failed",
            Self::Limit => "a limit was reached",
            Self::Killed => "killed by a signal",
            Self::Deadline => "took too long",
        }
    }
}
