//! The state of a job, as the store keeps it.

use serde::{Deserialize, Serialize};
use sqlflow_telemetry::RemoteContext;

use super::{Attempt, AttemptId, ExecutorRef, Failure, JobId, Step};

/// A job and its steps. The store keeps everything else about it (program, secrets, log) elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Public id.
    pub id: JobId,
    /// State.
    pub state: JobState,
    /// Cause for which the end of the job was requested, by a user or a limit. What runs is ended first; then the job
    /// fails with this cause.
    pub cancel: Option<Failure>,
    /// True if a result was not stored because the log had reached its limit: the job cannot succeed, even if it was
    /// cancelled before. Jobs of earlier versions have only `cancel`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over_limit: bool,
    /// Steps, in order. A step starts when all steps before it have succeeded.
    pub steps: Vec<Step>,
    /// First words of the program, for lists. Jobs of earlier versions have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// Trace of the client, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<RemoteContext>,
    /// Whether the job's trace is kept, decided once by the server that recorded the job. `None`: that server had no
    /// collector, or was of an earlier version; the client's trace flag counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled: Option<bool>,
}

/// State of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Recorded; no attempt was launched.
    Pending,
    /// An attempt was launched.
    Running,
    /// All steps succeeded. Final.
    Succeeded,
    /// The job ended without success. Final.
    Failed(Failure),
}

impl JobState {
    /// Whether the job has ended.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Pending | Self::Running => false,
            Self::Succeeded | Self::Failed(_) => true,
        }
    }

    /// Text of the log's last record if the job succeeded. Other jobs have their failure's message.
    pub const SUCCEEDED: &str = "the job succeeded";

    /// All results of [`name`](Self::name).
    pub const NAMES: [&str; 5] = ["pending", "running", "succeeded", "failed", "cancelled"];

    /// Name of the state in listings, metrics, log lines and the store's column. A cancelled job has a name of its own,
    /// because nothing failed.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed(failure) if failure.cause.is_cancel() => "cancelled",
            Self::Failed(_) => "failed",
        }
    }
}

impl Job {
    /// A new job with these steps.
    #[must_use]
    pub fn new(id: JobId, steps: Vec<Step>) -> Self {
        Self {
            id,
            state: JobState::Pending,
            cancel: None,
            over_limit: false,
            steps,
            title: String::new(),
            origin: None,
            sampled: None,
        }
    }

    /// The attempt with this id, if it exists.
    #[must_use]
    pub fn attempt(&self, id: &AttemptId) -> Option<&Attempt> {
        let index = usize::try_from(id.number.checked_sub(1)?).ok()?;
        self.steps.get(id.step as usize)?.attempts.get(index)
    }

    /// The server that the attempt's agent last attached to.
    #[must_use]
    pub fn attached_to(&self, id: &AttemptId) -> Option<&str> {
        self.attempt(id)?.attached_to.as_deref()
    }

    /// Executor of the attempt.
    #[must_use]
    pub fn executor(&self, id: &AttemptId) -> ExecutorRef {
        let stored = self.attempt(id).and_then(|attempt| attempt.executor.clone());
        stored.unwrap_or_else(|| ExecutorRef::of_attempt(id))
    }

    /// Index of the first step that has not succeeded.
    #[must_use]
    pub fn current_step(&self) -> Option<u32> {
        let index = self.steps.iter().position(|step| !step.succeeded())?;
        u32::try_from(index).ok()
    }
}
