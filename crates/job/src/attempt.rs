//! The state of an attempt, as the store keeps it.

use serde::{Deserialize, Serialize};

use super::{ExecutorProof, ExecutorRef, LauncherId, Outcome, Reason};

/// Purpose of an attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Runs the step, or publishes the kept output of an earlier attempt.
    #[default]
    Run,
    /// Drops the staging tables that killed attempts of the step left. The job fails anyway, and a cancel does not end
    /// this attempt.
    #[serde(rename = "clean_up")]
    Cleanup,
}

/// One execution of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Purpose.
    #[serde(default)]
    pub role: Role,
    /// Phase.
    pub phase: Phase,
    /// Whether it has the grant to make its effects visible. Then no other attempt starts until it reports or is known
    /// to be dead.
    pub granted: bool,
    /// Launcher that started it.
    #[serde(flatten)]
    pub launcher_id: LauncherId,
    /// Executor. `None`: the executor of its own; earlier versions did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<ExecutorRef>,
    /// How its executor is known. `None`: by its name alone; earlier versions recorded nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ExecutorProof>,
    /// URL of its page at its platform, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracker_url: Option<String>,
    /// Time at which it was recorded, in milliseconds since the Unix epoch, as all times here.
    pub created_ms: i64,
    /// Time at which the launcher had accepted it.
    #[serde(default)]
    pub launched_ms: Option<i64>,
    /// Progress of its start, as reported by the platform.
    #[serde(flatten)]
    pub milestones: Milestones,
    /// Time at which its agent first attached.
    pub attached_ms: Option<i64>,
    /// Id of the server that its agent last attached to. `None` after an attach: the agent is connected to no server
    /// ([`Event::AgentUnheard`](super::Event::AgentUnheard)), or it attached to an earlier version of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_to: Option<String>,
    /// Time at which its outcome was recorded.
    pub ended_ms: Option<i64>,
}

/// Times at which a platform made progress in starting an attempt, by the platform's clock, in milliseconds since the
/// Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Milestones {
    /// A node was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_ms: Option<i64>,
    /// Its image and volumes were ready, and its container was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_ms: Option<i64>,
}

impl Milestones {
    /// Whether all times are known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.scheduled_ms.is_some() && self.container_ms.is_some()
    }
}

/// A stage of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// Its begin.
    pub begin_ms: i64,
    /// Its end.
    pub end_ms: i64,
}

impl Attempt {
    /// The stages until its agent attached, or until `now_ms`, without gaps.
    #[must_use]
    pub fn launch_stages(&self, now_ms: i64) -> Vec<Stage> {
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
        let mut stages = Vec::new();
        for (name, until) in ends {
            let Some(until) = until else { continue };
            // Platforms report whole seconds, by their own clocks.
            let until = until.clamp(at, end);
            stages.push(Stage { name, begin_ms: at, end_ms: until });
            at = until;
        }
        stages
    }

    /// The agent that has attached, if one has.
    #[must_use]
    pub fn instance(&self) -> Option<&InstanceHash> {
        match &self.phase {
            Phase::Attached { instance } => Some(instance),
            Phase::Ended { instance, .. } => instance.as_ref(),
            Phase::Created | Phase::Launched => None,
        }
    }

    /// Its outcome, if it has ended.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Ended { outcome, .. } => Some(outcome),
            Phase::Created | Phase::Launched | Phase::Attached { .. } => None,
        }
    }
}

/// Phase of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", from = "StoredPhase")]
pub enum Phase {
    /// Recorded; it may or may not have been launched.
    Created,
    /// The launcher accepted it.
    Launched,
    /// An agent attached. From now on only this agent may report for the attempt.
    Attached {
        /// Hash of the agent's instance key.
        instance: InstanceHash,
    },
    /// Ended.
    Ended {
        /// The agent that was attached, if one was.
        instance: Option<InstanceHash>,
        /// Outcome.
        outcome: Outcome,
        /// Reporter of the outcome.
        by: EndedBy,
    },
}

impl Phase {
    /// Name of the phase, for listings.
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

/// Reporter of an attempt's outcome. It distinguishes an agent that missed an acknowledgement from one that still runs
/// after its attempt was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// Its agent. The same agent may ask for the acknowledgement again.
    Agent,
    /// A server, which inferred the outcome. An agent of the attempt that still runs is refused.
    Server,
}

impl EndedBy {
    /// The reporter, for documents of versions that did not record it.
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

/// A phase in documents of all versions.
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

/// SHA-256 of an agent's instance key, in hexadecimal: the form in which the store keeps it, with a prefix if the agent
/// seals its files.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InstanceHash(pub String);

/// Begins the hash of an agent that seals its files.
const SEALING: &str = "seals:";

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

    /// The same for an agent that seals what it leaves in its run folder.
    #[must_use]
    pub fn sealing(&self) -> Self {
        Self(format!("{SEALING}{}", self.0))
    }

    /// The hash, if the agent seals its files.
    #[must_use]
    pub fn of_sealing(&self) -> Option<&str> {
        self.0.strip_prefix(SEALING)
    }
}
