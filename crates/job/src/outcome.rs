//! Outcomes of attempts, as the store keeps them.

use serde::{Deserialize, Serialize};

/// The end of an attempt: the part of the agent's `Outcome` message on which the next action depends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Reason.
    pub reason: Reason,
    /// One sentence for people.
    pub message: String,
    /// Details such as a traceback, at most [`Outcome::MAX_DETAIL_BYTES`]; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Whether the step may succeed when it is run again.
    pub retryable: bool,
    /// Whether the user can fix it, in the program or its data. False in outcomes of earlier versions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub user_error: bool,
    /// Evidence about its processes in words: exit code, memory, time. May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
    /// Whether the command succeeded and its output is kept for another attempt to publish.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_kept: bool,
    /// Whether the command exited and its submitter did not report the result of the statement that ran: agents set it
    /// only with [`Reason::Exited`], and those of earlier versions never. A server sets it with [`Reason::AgentFailed`]
    /// if the agent reported a success that the log does not show.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unexplained: bool,
    /// Whether the database did not execute the last statement, or rolled it back. Agents of earlier versions do not
    /// report this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_executed: bool,
}

impl Outcome {
    /// Limit of `detail`, because the outcome is a part of the job's small state. Longer details are truncated.
    pub const MAX_DETAIL_BYTES: usize = 16 * 1024;

    /// Limit of a `message` that an agent reports. Longer ones are truncated.
    pub const MAX_MESSAGE_BYTES: usize = 4 * 1024;

    /// An outcome that a server inferred, without detail.
    pub fn by_server(reason: Reason, message: impl Into<String>, retryable: bool) -> Self {
        Self {
            reason,
            message: message.into(),
            detail: String::new(),
            retryable,
            user_error: false,
            evidence: String::new(),
            output_kept: false,
            unexplained: false,
            not_executed: false,
        }
    }

    /// What becomes of a reported success if the log lacks the end of a statement. It is not retried: the agent may have
    /// executed more, or less, than the log shows.
    #[must_use]
    pub fn unproved_success(self, statement: u32) -> Self {
        let number = u64::from(statement) + 1;
        Self {
            reason: Reason::AgentFailed,
            message: format!(
                "the agent reported success, and the log lacks the end of statement {number}, so this is not believed"
            ),
            retryable: false,
            user_error: false,
            output_kept: false,
            unexplained: true,
            not_executed: false,
            ..self
        }
    }

    /// Whether it is an [`unproved_success`](Self::unproved_success).
    #[must_use]
    pub fn is_unproved_success(&self) -> bool {
        self.reason == Reason::AgentFailed && self.unexplained
    }

    /// Whether the attempt succeeded.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.reason == Reason::Succeeded
    }
}

/// Reasons for the end of an attempt, as in `sqlflow.agent.v1.Outcome.Reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Exit code 0, and the outputs are published.
    Succeeded,
    /// Exit code other than 0.
    Exited,
    /// Killed by a signal that the agent did not send.
    Signaled,
    /// Memory ran out (OOM).
    OutOfMemory,
    /// Ended because a server requested it.
    Cancelled,
    /// The command could not be started.
    StartFailed,
    /// An input could not be fetched.
    InputFailed,
    /// An output could not be published.
    PublishFailed,
    /// The commit was refused.
    Refused,
    /// The agent failed.
    AgentFailed,
    /// The agent ended without an outcome.
    Lost,
    /// The attempt could not be launched.
    LaunchFailed,
    /// The deadline was exceeded.
    Deadline,
    /// The platform, or a user of the machine, ended the agent.
    Terminated,
}

impl Reason {
    /// Name of the reason, also in documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Exited => "exited",
            Self::Signaled => "signaled",
            Self::OutOfMemory => "out_of_memory",
            Self::Cancelled => "cancelled",
            Self::StartFailed => "start_failed",
            Self::InputFailed => "input_failed",
            Self::PublishFailed => "publish_failed",
            Self::Refused => "refused",
            Self::AgentFailed => "agent_failed",
            Self::Lost => "lost",
            Self::LaunchFailed => "launch_failed",
            Self::Deadline => "deadline",
            Self::Terminated => "terminated",
        }
    }
}
