//! The state of a job, its steps and their attempts, as the store keeps it.

use serde::{Deserialize, Serialize};
use sqlflow_telemetry::Origin;

use super::{AttemptId, ExecutorRef, JobId, LauncherId};

/// A job as it stands. Everything else about it (the program, its secrets, its log) does not change or is kept apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The public id.
    pub id: JobId,
    /// How the job stands.
    pub state: JobState,
    /// Set when somebody, or a limit, asked for the end. What runs is ended first; the job then fails with this.
    pub cancel: Option<Failure>,
    /// The log did not take a result, because it had reached its limit: the job cannot succeed, also when somebody had
    /// cancelled it before. Jobs of earlier versions have only `cancel`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over_limit: bool,
    /// The steps, in order. A step starts when all before it have succeeded.
    pub steps: Vec<Step>,
    /// The first words of the program, for lists. Jobs of earlier versions have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// The client's trace, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// How a job stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Recorded; no attempt was launched.
    Pending,
    /// An attempt was launched.
    Running,
    /// Every step succeeded. Final.
    Succeeded,
    /// The job ended otherwise. Final.
    Failed(Failure),
}

impl JobState {
    /// Whether the job is over.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Pending | Self::Running => false,
            Self::Succeeded | Self::Failed(_) => true,
        }
    }

    /// What the end of a log says of a job that succeeded. Of others it says why.
    pub const SUCCEEDED: &str = "the job succeeded";

    /// All words that [`name`](Self::name) gives.
    pub const NAMES: [&str; 5] = ["pending", "running", "succeeded", "failed", "cancelled"];

    /// The word for listings, metrics, log lines and the store's column. A cancelled job has one of its own: it is no failure of
    /// anything.
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

/// Why a job did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind.
    pub cause: Cause,
    /// One sentence for a person.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into() }
    }

    /// The job said more than its log may hold.
    #[must_use]
    pub fn over_limit() -> Self {
        let message = "the job's results reach the limit of its log; store large results in a table";
        Self::new(Cause::Limit, message)
    }
}

/// The kinds of failure, as in `sqlflow.v1.Cause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A statement failed.
    StatementFailed,
    /// Somebody cancelled the job.
    Cancelled,
    /// Nobody fetched the job in time.
    NotFetched,
    /// Killed for lack of memory.
    OutOfMemory,
    /// The attempt was lost.
    Lost,
    /// A statement that must not be repeated had started, and nothing says what became of it.
    MayHaveExecuted,
    /// No attempt could be started.
    LaunchFailed,
    /// A model could not be read or published.
    Storage,
    /// A limit of the server.
    Limit,
    /// Killed by a signal from elsewhere.
    Killed,
    /// Took too long.
    Deadline,
}

impl Cause {
    /// Somebody, or the fetch timeout, cancelled the job: nothing failed.
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

    /// The kind of failure in a few words, without anything of the program or its data.
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

/// What one submitter runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Index of the first statement in the program.
    pub first_statement: u32,
    /// How many statements the step has.
    pub statement_count: u32,
    /// `standard`, `train`, `predict`, … as [`crate::sql::Body::kind`] names them.
    pub kind: String,
    /// The model that it makes or uses. Standard steps, and jobs of earlier versions, have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// Every statement of the step may be executed twice with the same effect as once.
    pub repeatable: bool,
    /// Its submitter fills a scratch table in the user's database, which replaces the result table after the grant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub writes_table: bool,
    /// Its result takes the place of something that it reads: once that may have happened it must not be run again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overwrites_input: bool,
    /// The attempts made, by number from 1.
    pub attempts: Vec<Attempt>,
}

impl Step {
    /// Whether the step is done: its last attempt succeeded.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.last_run().and_then(Attempt::outcome).is_some_and(Outcome::succeeded)
    }

    /// The newest attempt to run the step, leaving out those that only clean up.
    #[must_use]
    pub fn last_run(&self) -> Option<&Attempt> {
        self.attempts.iter().rev().find(|attempt| attempt.role == Role::Run)
    }

    /// Number of the attempt that ran the command to its end and could not publish what it made. Those after it only
    /// publish.
    #[must_use]
    pub fn kept_output(&self) -> Option<u32> {
        let is_kept = |it: &Attempt| it.outcome().is_some_and(|outcome| outcome.output_kept);
        let index = self.attempts.iter().position(is_kept)?;
        u32::try_from(index + 1).ok()
    }
}

/// What an attempt is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Runs the step, or publishes what an earlier attempt made.
    #[default]
    Run,
    /// Removes what killed attempts of the step left in the user's database. The job fails anyway: a cancel does not
    /// end it.
    CleanUp,
}

/// One execution of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// What it is for.
    #[serde(default)]
    pub role: Role,
    /// How far it is.
    pub phase: Phase,
    /// It may make its effects visible; no other attempt is made until it reports or is known to be dead.
    pub granted: bool,
    /// Where it runs.
    #[serde(flatten)]
    pub launcher_id: LauncherId,
    /// What runs it there. `None`: it was recorded before this was, and the executor is its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<ExecutorRef>,
    /// Where its platform shows it to a person, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracker_url: Option<String>,
    /// When it was recorded, in milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// When the launcher had accepted it.
    #[serde(default)]
    pub launched_ms: Option<i64>,
    /// What its platform did meanwhile.
    #[serde(flatten)]
    pub milestones: Milestones,
    /// When its agent first attached.
    pub attached_ms: Option<i64>,
    /// Id of the server that its agent attached to last. `None` after an agent attached: no server hears it
    /// ([`Event::AgentUnheard`](super::Event::AgentUnheard)), or it attached to an earlier version of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_to: Option<String>,
    /// When its outcome was recorded.
    pub ended_ms: Option<i64>,
}

/// What a platform did to start an attempt, as far as it tells; milliseconds since the Unix epoch, by its clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Milestones {
    /// A machine was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_ms: Option<i64>,
    /// Its image and volumes were there, and its container was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_ms: Option<i64>,
}

impl Milestones {
    /// All is known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.scheduled_ms.is_some() && self.container_ms.is_some()
    }
}

impl Attempt {
    /// What it went through until its agent attached, or until `now_ms`: names, beginnings and ends, without gaps.
    #[must_use]
    pub fn way_to_agent(&self, now_ms: i64) -> Vec<(&'static str, i64, i64)> {
        let end = self.attached_ms.or(self.ended_ms).unwrap_or(now_ms).max(self.created_ms);
        let (scheduled, container) = (self.milestones.scheduled_ms, self.milestones.container_ms);
        let ends = [
            // A fast agent attaches before its launcher returns.
            ("launch", self.launched_ms.or(scheduled.is_none().then_some(end))),
            ("schedule", scheduled),
            ("pull", container.filter(|_| scheduled.is_some())),
            ("start", Some(end)),
        ];
        let mut at = self.created_ms;
        let mut way = Vec::new();
        for (name, until) in ends {
            let Some(until) = until else { continue };
            // Platforms count in seconds, and by clocks of their own.
            let until = until.clamp(at, end);
            way.push((name, at, until));
            at = until;
        }
        way
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Ended { outcome, .. } => Some(outcome),
            Phase::Created | Phase::Launched | Phase::Attached { .. } => None,
        }
    }
}

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", from = "StoredPhase")]
pub enum Phase {
    /// Recorded; it may or may not have been launched.
    Created,
    /// The launcher accepted it.
    Launched,
    /// An agent attached. Only this agent may speak for the attempt from now on.
    Attached {
        /// Hash of the agent's instance key.
        instance: InstanceHash,
    },
    /// Over.
    Ended {
        /// The agent that was attached, if one was.
        instance: Option<InstanceHash>,
        /// How it ended.
        outcome: Outcome,
        /// Who said so.
        by: EndedBy,
    },
}

/// Who said that an attempt has ended. Only the difference tells an agent that missed an acknowledgement from one that
/// runs although its attempt was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// Its agent, by reporting the outcome. The same agent may ask for the acknowledgement again.
    Agent,
    /// A server, by an outcome that it inferred. An agent of the attempt that still lives has no say any more.
    Server,
}

/// A phase as documents of all versions have it.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredPhase {
    Created,
    Launched,
    Attached { instance: InstanceHash },
    Ended { instance: Option<InstanceHash>, outcome: Outcome, by: Option<EndedBy> },
}

impl From<StoredPhase> for Phase {
    fn from(stored: StoredPhase) -> Self {
        match stored {
            StoredPhase::Created => Self::Created,
            StoredPhase::Launched => Self::Launched,
            StoredPhase::Attached { instance } => Self::Attached { instance },
            StoredPhase::Ended { instance, outcome, by } => {
                let by = by.unwrap_or_else(|| EndedBy::inferred(instance.as_ref(), &outcome));
                Self::Ended { instance, outcome, by }
            }
        }
    }
}

impl EndedBy {
    /// For documents from before this was recorded.
    fn inferred(instance: Option<&InstanceHash>, outcome: &Outcome) -> Self {
        match outcome.reason {
            Reason::Lost | Reason::LaunchFailed => Self::Server,
            _ if instance.is_none() => Self::Server,
            Reason::Succeeded
            | Reason::Exited
            | Reason::Signaled
            | Reason::OutOfMemory
            | Reason::Cancelled
            | Reason::StartFailed
            | Reason::InputFailed
            | Reason::PublishFailed
            | Reason::Refused
            | Reason::AgentFailed
            | Reason::Deadline
            | Reason::Terminated => Self::Agent,
        }
    }
}

impl Phase {
    /// The word for listings.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Launched => "launched",
            Self::Attached { .. } => "attached",
            Self::Ended { .. } => "ended",
        }
    }
}

/// SHA-256, in hexadecimal, of an agent's instance key: what the store keeps of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceHash(pub String);

impl InstanceHash {
    /// Hash of a key.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        use sha2::Digest as _;
        use std::fmt::Write as _;
        let mut text = String::with_capacity(64);
        for byte in sha2::Sha256::digest(key) {
            write!(text, "{byte:02x}").expect("writing to a String does not fail");
        }
        Self(text)
    }
}

/// How an attempt ended: what the job's course depends on, of the agent's `Outcome` message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The kind of end.
    pub reason: Reason,
    /// One sentence for a person.
    pub message: String,
    /// Traceback and the like, at most [`Outcome::MAX_DETAIL_BYTES`]; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The same step may well succeed when it is run again.
    pub retryable: bool,
    /// The user can fix it, in the program or its data. Outcomes that an earlier version recorded never say this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub user_error: bool,
    /// What is known of its processes, in words: exit code, memory, time. May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
    /// The command succeeded, and what it made is still there to be published by another attempt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_kept: bool,
    /// The command exited and its submitter did not say what became of the statement that ran. Agents of earlier versions
    /// never report this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unexplained: bool,
    /// The database did not execute the statement that ran last, or undid it. Agents of earlier versions never report this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_executed: bool,
}

impl Outcome {
    /// Longer details are cut: the outcome is a part of the job's small state.
    pub const MAX_DETAIL_BYTES: usize = 16 * 1024;

    /// An outcome that a server made, without detail.
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

    /// Whether the attempt did what it should.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.reason == Reason::Succeeded
    }
}

impl Reason {
    /// The word for it, as it is stored too.
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

/// Kinds of end, as in `sqlflow.agent.v1.Outcome.Reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Exit code 0, and the outputs are published.
    Succeeded,
    /// Another exit code.
    Exited,
    /// Killed by a signal that the agent did not send.
    Signaled,
    /// Killed for lack of memory.
    OutOfMemory,
    /// Ended on request.
    Cancelled,
    /// The command could not be started.
    StartFailed,
    /// An input could not be fetched.
    InputFailed,
    /// An output could not be published.
    PublishFailed,
    /// The commit was refused.
    Refused,
    /// The agent could not do its work.
    AgentFailed,
    /// The agent vanished without an outcome.
    Lost,
    /// The attempt could not be launched.
    LaunchFailed,
    /// Ran longer than it may.
    Deadline,
    /// The platform, or somebody at the machine, ended the agent.
    Terminated,
}

impl Job {
    /// A new job of these steps.
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
        }
    }

    /// The attempt of this id, if there is one.
    #[must_use]
    pub fn attempt(&self, id: &AttemptId) -> Option<&Attempt> {
        let index = usize::try_from(id.number.checked_sub(1)?).ok()?;
        self.steps.get(id.step as usize)?.attempts.get(index)
    }

    /// The server that the attempt's agent attached to last.
    #[must_use]
    pub fn attached_to(&self, id: &AttemptId) -> Option<&str> {
        self.attempt(id)?.attached_to.as_deref()
    }

    /// What runs the attempt at its place.
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
