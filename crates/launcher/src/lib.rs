//! Launchers start an attempt somewhere and tell how it stands there. What runs is the agent, which comes back to a server
//! by itself and speaks for the attempt; or, where a framework runs several processes for one attempt, its controller.

mod exits;
pub mod kubernetes;
mod leftovers;
mod local;
mod lock;
mod pod_resources;
mod processes;
mod python;
mod records;
mod registry;
mod removal;
mod run_folder;
mod run_slots;
mod scope;
mod spool;
mod unreadable;

use std::time::Duration;

use async_trait::async_trait;
use sqlflow_proto::agent::{Assignment, Outcome};

use sqlflow_job::{AttemptId, ExecutorRef, Job, LauncherId, Milestones};

pub use leftovers::{Agent, RunFolders};
pub use local::{LocalLauncher, LocalOptions};
pub use lock::Holder;
pub use pod_resources::PodResources;
pub use python::{Candidate, Python, candidates as pythons};
pub use records::RecordSource;
pub use registry::{Execution, Launchers};
pub use run_slots::Ticket;
pub use spool::Spool;
pub use sqlflow_termination_message::TerminalRecords;

/// What an attempt needs of its launcher.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LaunchRequirements {
    /// Resources that its step asks for its Pod.
    pub pod_resources: PodResources,
    /// It makes something that is to be published.
    pub publishes: bool,
    /// It only drops scratch tables, which takes a minute at most: it waits for no run slot. Behind a long training its
    /// job, which has failed or was cancelled, could not end.
    pub cleans_up: bool,
    /// It only publishes what an earlier attempt made, and runs no program.
    pub only_publishes: bool,
    /// All that it is to do, where no agent will ask for it; see [`Supervision::Controller`].
    pub assignment: Option<Box<Assignment>>,
}

/// An attempt and what runs it: whom a launcher is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The attempt.
    pub attempt: AttemptId,
    /// What runs it.
    pub executor: ExecutorRef,
}

impl Target {
    /// An attempt as the job has it.
    #[must_use]
    pub fn of(job: &Job, attempt: &AttemptId) -> Self {
        Self { executor: job.executor(attempt), attempt: attempt.clone() }
    }

    /// An attempt with an executor of its own.
    #[must_use]
    pub fn own(attempt: AttemptId) -> Self {
        Self { executor: ExecutorRef::of_attempt(&attempt), attempt }
    }
}

/// What a platform says of an attempt that it has taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Launched {
    /// Where the platform shows it to a person.
    pub tracker_url: Option<String>,
}

/// Who watches over what an attempt runs, and speaks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supervision {
    /// Our agent: it attaches, and reports how the attempt ended.
    Agent,
    /// The controller of a framework that runs the attempt in processes of its own. No agent attaches: while the platform says
    /// that it runs, all is well, and when nothing runs any more, [`AgentArtifacts`] have its outcome and its records.
    Controller,
}

/// Starts attempts and watches what becomes of them. All methods may be called by any server at any time, and again.
#[async_trait]
pub trait Launcher: Send + Sync + 'static {
    /// The launcher's name: `local`, `kubernetes`, `yarn`.
    fn name(&self) -> &'static str;

    /// Which of the places that launchers of this name can serve is this one's: a cluster and a namespace, or a state
    /// folder. An attempt of another place cannot be asked after here.
    fn scope(&self) -> Option<String> {
        None
    }

    /// Where this launcher starts attempts.
    fn id(&self) -> LauncherId {
        LauncherId { launcher: self.name().to_owned(), scope: self.scope() }
    }

    /// Who speaks for the attempts that this launcher starts.
    fn supervision(&self) -> Supervision {
        Supervision::Agent
    }

    /// Puts the attempt into the queue for a run slot until the ticket is dropped; none where there is no queue, or the
    /// platform has its own.
    fn queue(&self, _attempt: &AttemptId) -> Option<Ticket> {
        None
    }

    /// Starts the attempt. Launching twice is harmless: at most one agent runs for an attempt.
    ///
    /// # Errors
    /// It could not be started; see [`LaunchError`].
    async fn launch(
        &self,
        target: &Target,
        requirements: &LaunchRequirements,
    ) -> Result<Launched, LaunchError>;

    /// Whether attempts can be started at all.
    ///
    /// # Errors
    /// Why not, in one sentence.
    async fn ready(&self) -> Result<(), String>;

    /// How the attempt stands, as the platform sees it.
    async fn observe(&self, target: &Target) -> Observation;

    /// Pending status and timeout while the agent runs but has not attached.
    fn attach_pending(&self) -> PendingStatus;

    /// What the platform did so far to start the attempt; nothing where there is nothing to tell.
    async fn milestones(&self, _target: &Target) -> Milestones {
        Milestones::default()
    }

    /// Ends what runs of the attempt: politely (the agent still reports), or `forced` at once. Harmless when
    /// nothing runs. Reconcilers ask again at each look, also another server's: that must do no more than asking once.
    async fn stop(&self, target: &Target, forced: bool);

    /// Removes what the attempt left behind. Called when its outcome is stored; does nothing while it still runs.
    /// `step_goes_on`: what it made may still be published by another attempt of its step, so that stays.
    ///
    /// # Errors
    /// Something stays that should not. Reconcilers and housekeeping ask again.
    async fn clean_up(&self, target: &Target, step_goes_on: bool) -> anyhow::Result<CleanUp>;

    /// The same for an attempt of which the store knows nothing: it may be another server's, or its store is lost.
    ///
    /// # Errors
    /// As of [`Launcher::clean_up`].
    async fn clean_up_orphan(&self, target: &Target) -> anyhow::Result<()>;

    /// Attempts that left something behind, so that what no server cleaned up can be found.
    async fn leftovers(&self) -> Vec<Target>;

    /// PendingTracker until something may have changed for the attempt, for ever if this launcher cannot tell. A change is a level: it
    /// returns at once until the attempt was observed, and after the exit of an agent that this process started until the
    /// attempt is cleaned up.
    async fn changed(&self, target: &Target);

    /// How often an attempt that runs is to be looked at while nothing tells of a change: what time alone changes, or
    /// [`Launcher::changed`] may miss, is seen then.
    fn look_period(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// What came of cleaning up behind an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum CleanUp {
    /// Nothing is left that should not be.
    Done,
    /// Nothing was done: it runs, or may run. Its clean-up stays due.
    StillRuns,
}

/// How an attempt stands.
#[derive(Debug)]
pub enum Observation {
    /// Its agent runs.
    Running,
    /// The platform has taken it, but it does not run yet.
    Pending(PendingStatus),
    /// Nothing runs. What the agent left for a server to find is here.
    Gone(Box<AgentArtifacts>),
    /// The platform cannot be asked at the moment.
    Unknown(String),
}

/// Why an attempt has no agent yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingStatus {
    /// What it waits for. Each reason has its own timeout, which begins when the reason does.
    pub reason: PendingReason,
    /// One sentence for a person.
    pub message: String,
    /// How long this reason may last.
    pub timeout: Duration,
}

/// What an attempt waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingReason {
    /// A run slot of its launcher.
    RunSlot,
    /// The platform, to accept the attempt.
    Launch,
    /// A node for its Pod.
    Schedule,
    /// The image of its Pod.
    Image,
    /// The start of its Pod.
    Start,
    /// The agent, which runs, to attach.
    Attach,
    /// A server that can ask its launcher.
    ForeignLauncher,
    /// The platform, to answer how the attempt stands.
    UnknownState,
}

/// Who ended an attempt from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminatedBy {
    /// The cluster, or somebody by its means: in words for a person.
    Cluster(String),
    /// It ran longer than it may.
    Deadline,
}

/// What a dead agent left.
#[derive(Debug, Default)]
pub struct AgentArtifacts {
    /// Records that no server had acknowledged.
    pub records: Option<Box<dyn RecordSource>>,
    /// What there is instead of records when they went with the agent's disk.
    pub terminal_records: Option<TerminalRecords>,
    /// What is known of the end.
    pub end: End,
    /// The last lines that the agent itself logged, for the person who looks into it; may be empty.
    pub last_words: String,
}

impl AgentArtifacts {
    /// Whether the platform, or the agent, tells that the attempt ended: then it is not about to start.
    pub fn tell_of_an_end(&self) -> bool {
        match self.end {
            End::Reported(_) | End::Seen(_) => true,
            End::Unknown => false,
        }
    }

    /// The outcome that the agent reported.
    pub fn reported(&self) -> Option<&Outcome> {
        match &self.end {
            End::Reported(outcome) => Some(outcome),
            End::Seen(_) | End::Unknown => None,
        }
    }
}

/// Who says how an attempt ended.
#[derive(Debug, Default, Clone, PartialEq)]
pub enum End {
    /// The agent, which came to know the outcome. It also says how many records there are.
    Reported(Outcome),
    /// The platform: the agent could not tell. It knows nothing of records.
    Seen(Outcome),
    /// Nobody.
    #[default]
    Unknown,
}

/// An attempt could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The platform refused it.
    #[error("{message}")]
    Refused {
        /// One sentence for a person.
        message: String,
        /// It may well work later.
        retryable: bool,
    },
    /// It is not known whether it was started: the platform cannot be asked now, or has no room. Launch it again.
    #[error("{0}")]
    Later(String),
    /// As many run as may. It was not started; launch it again when its ticket says so. This is no fault, however long it
    /// takes.
    #[error("waiting for a run slot, {before} before it")]
    NoFreeSlot {
        /// How many attempts come first.
        before: usize,
    },
}
