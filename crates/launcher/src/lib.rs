//! Launchers: they start attempts, observe and terminate them. What runs is an agent, which attaches to a server by
//! itself and reports for the attempt; or the controller of a framework that runs an attempt in several processes.

mod agent_exits;
mod cleanup;
mod data_process;
pub mod kubernetes;
mod local;
mod lock;
mod pod_resources;
mod processes;
mod python;
mod records;
mod registry;
mod run_folder;
mod run_folder_audit;
mod run_slots;
mod scope;
mod spool;
mod unreadable_outcome;

use std::time::Duration;

use async_trait::async_trait;
use sqlflow_proto::agent::{Assignment, Outcome};

use sqlflow_job::{
    Attempt, AttemptId, ExecutorProof, ExecutorRef, InstanceHash, Job, LauncherId, LauncherKind, Milestones,
};

pub use data_process::{DATA_PROCESS, missing_data_process};
pub use local::{LocalLauncher, LocalOptions};
pub use lock::Holder;
pub use pod_resources::PodResources;
pub use python::{Candidate, Python, candidates as pythons};
pub use records::RecordSource;
pub use registry::{Execution, Launchers};
pub use run_folder_audit::{Agent, RunFolders};
pub use run_slots::Ticket;
pub use spool::Spool;
pub use sqlflow_termination_message::TerminalRecords;

/// Requirements of an attempt for its launcher.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LaunchRequirements {
    /// Resources that its step requests for its Pod.
    pub pod_resources: PodResources,
    /// Whether its step is plain SQL, which needs no Python.
    pub plain_sql: bool,
    /// Whether it has output to publish.
    pub publishes: bool,
    /// Whether it only drops staging tables, which takes a minute at most. Such an attempt needs no run slot: its job
    /// has failed or was cancelled, and should not wait for a long training.
    pub cleans_up: bool,
    /// Whether it only publishes the kept output of an earlier attempt, and runs no program.
    pub only_publishes: bool,
    /// Its assignment, if no agent will fetch it; see [`Supervision::Controller`].
    pub assignment: Option<Box<Assignment>>,
}

/// An attempt and its executor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The attempt.
    pub attempt: AttemptId,
    /// The executor.
    pub executor: ExecutorRef,
    /// The agent that has attached, as far as it is known. Only it can have written what an executor left.
    pub instance: Option<InstanceHash>,
    /// What distinguishes the executor from one of another program with the same name. `None`: only its name is known.
    pub proof: Option<ExecutorProof>,
}

impl Target {
    /// The attempt with the executor that the job has recorded.
    #[must_use]
    pub fn of(job: &Job, attempt: &AttemptId) -> Self {
        let recorded = job.attempt(attempt);
        let instance = recorded.and_then(Attempt::instance).cloned();
        // No server has made the executor of an attempt that is not recorded.
        let proof = recorded.map_or(Some(ExecutorProof::Mark), |it| it.proof.clone());
        Self { executor: job.executor(attempt), attempt: attempt.clone(), instance, proof }
    }

    /// The attempt with an executor of its own.
    #[must_use]
    pub fn own(attempt: AttemptId) -> Self {
        Self { executor: ExecutorRef::of_attempt(&attempt), attempt, instance: None, proof: None }
    }
}

/// What a platform reports about an attempt that it accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Launched {
    /// URL of the attempt's page at the platform.
    pub tracker_url: Option<String>,
    /// Uid of the executor at the platform, if it gives one.
    pub executor_uid: Option<String>,
}

/// Supervisor of an attempt's processes, which reports its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supervision {
    /// An agent: it attaches, and reports the outcome.
    Agent,
    /// The controller of a framework that runs the attempt in its own processes. No agent attaches. When nothing runs
    /// any more, [`AgentArtifacts`] have the outcome and the records.
    Controller,
}

/// Starts, observes and terminates attempts. All methods are idempotent, and any server may call them at any time.
///
/// A reconciler launches an attempt, observes it until it is gone, and cleans up once the outcome is stored:
///
/// ```
/// use sqlflow_launcher::{Cleanup, LaunchRequirements, Launcher, Observation, Target};
///
/// async fn run(launcher: &dyn Launcher, target: &Target) -> anyhow::Result<()> {
///     launcher.launch(target, &LaunchRequirements::default()).await?;
///     loop {
///         match launcher.observe(target).await {
///             Observation::Running | Observation::Unknown(_) => {}
///             Observation::Pending(status) => println!("{}", status.message),
///             Observation::Gone(artifacts) => {
///                 println!("{:?}", artifacts.reported());
///                 break;
///             }
///         }
///         launcher.changed(target).await;
///     }
///     assert_eq!(launcher.cleanup(target, false).await?, Cleanup::Done);
///     Ok(())
/// }
/// # let _ = run;
/// ```
#[async_trait]
pub trait Launcher: Send + Sync + 'static {
    /// Kind of the launcher.
    fn kind(&self) -> LauncherKind;

    /// The launcher's scope among launchers of its kind: a cluster and namespace, or a state folder. Attempts of
    /// another scope cannot be observed here.
    fn scope(&self) -> Option<String> {
        None
    }

    /// The launcher id: kind and scope.
    fn id(&self) -> LauncherId {
        LauncherId { kind: self.kind(), scope: self.scope() }
    }

    /// Supervisor of the attempts that this launcher starts.
    fn supervision(&self) -> Supervision {
        Supervision::Agent
    }

    /// Adds the attempt to the queue for run slots until the ticket is dropped. `None`: the launcher has no queue, or
    /// the platform has its own.
    fn queue(&self, _attempt: &AttemptId) -> Option<Ticket> {
        None
    }

    /// Starts the attempt. Idempotent: at most one agent runs for an attempt.
    ///
    /// # Errors
    /// See [`LaunchError`].
    async fn launch(
        &self,
        target: &Target,
        requirements: &LaunchRequirements,
    ) -> Result<Launched, LaunchError>;

    /// Checks whether attempts can be started.
    ///
    /// # Errors
    /// The reason, in one sentence.
    async fn ready(&self) -> Result<(), String>;

    /// The state of the attempt at its platform.
    async fn observe(&self, target: &Target) -> Observation;

    /// Pending status and timeout while the agent runs but has not attached.
    fn attach_pending(&self) -> PendingStatus;

    /// The platform's progress in starting the attempt; empty if it is not reported.
    async fn milestones(&self, _target: &Target) -> Milestones {
        Milestones::default()
    }

    /// Terminates the attempt: with SIGTERM, after which the agent still reports, or `forced` at once. Idempotent:
    /// reconcilers repeat it at each pass, also from another server.
    async fn stop(&self, target: &Target, forced: bool);

    /// Removes what the attempt left. Called when its outcome is stored; does nothing while it runs. `step_goes_on`:
    /// kept output stays, because another attempt of the step may publish it.
    ///
    /// # Errors
    /// Something could not be removed. Reconcilers and housekeeping call it again.
    async fn cleanup(&self, target: &Target, step_goes_on: bool) -> anyhow::Result<Cleanup>;

    /// Removes what an attempt left that is not in the store: it may belong to another server, or its store was lost.
    ///
    /// # Errors
    /// Those of [`Launcher::cleanup`].
    async fn collect_garbage(&self, target: &Target) -> anyhow::Result<()>;

    /// Attempts that have anything at the platform, for garbage collection.
    async fn attempts(&self) -> Vec<Target>;

    /// Waits until the state of the attempt may have changed; forever if this launcher cannot detect changes. It is
    /// level-triggered: it returns at once until the attempt was observed, and after the exit of an agent that this
    /// process started until the attempt is cleaned up.
    async fn changed(&self, target: &Target);

    /// Interval at which a running attempt is observed without a reported change, to see what depends on time or what
    /// [`Launcher::changed`] may miss.
    fn poll_interval(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// Result of a cleanup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Cleanup {
    /// Everything is removed.
    Done,
    /// Nothing was removed, because the attempt runs or may run. The cleanup stays due.
    StillRuns,
}

/// State of an attempt at its platform.
#[derive(Debug)]
pub enum Observation {
    /// Its agent runs.
    Running,
    /// The platform has accepted it, but it does not run yet.
    Pending(PendingStatus),
    /// Nothing runs. The agent left these artifacts.
    Gone(Box<AgentArtifacts>),
    /// The platform cannot be queried at the moment, for this reason.
    Unknown(String),
}

/// The reason for which an attempt has no agent yet, with its timeout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingStatus {
    /// Reason. Each reason has its own timeout, which starts with the reason.
    pub reason: PendingReason,
    /// One sentence for people.
    pub message: String,
    /// Timeout of this reason.
    pub timeout: Duration,
}

/// What a pending attempt waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingReason {
    /// A free run slot of its launcher.
    RunSlot,
    /// The platform has not accepted the attempt.
    Launch,
    /// Its Pod has no node.
    Schedule,
    /// The image of its Pod is not ready.
    Image,
    /// Its Pod has not started.
    Start,
    /// The agent runs and has not attached.
    Attach,
    /// No server can query its launcher.
    ForeignLauncher,
    /// The platform does not report the state of the attempt.
    UnknownState,
}

/// Who ended an attempt from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminatedBy {
    /// The cluster, or a user of it; with a description for people.
    Cluster(String),
    /// The deadline.
    Deadline,
    /// The node, because the attempt wrote more to its disk than it may; with a description for people.
    DiskLimit(String),
}

/// Artifacts of an agent that has ended.
#[derive(Debug, Default)]
pub struct AgentArtifacts {
    /// Records that no server had acknowledged.
    pub records: Option<Box<dyn RecordSource>>,
    /// Terminal records, if the records were lost with the agent's disk.
    pub terminal_records: Option<TerminalRecords>,
    /// The end, as far as it is known.
    pub end: End,
    /// Agent log tail; may be empty.
    pub log_tail: String,
}

impl AgentArtifacts {
    /// Whether the platform or the agent reported an end, so that the attempt is not about to start.
    pub fn has_known_end(&self) -> bool {
        match self.end {
            End::Reported(_) | End::ReportedByPlatform(_) => true,
            End::Unknown => false,
        }
    }

    /// The outcome that the agent reported.
    pub fn reported(&self) -> Option<&Outcome> {
        match &self.end {
            End::Reported(outcome) => Some(outcome),
            End::ReportedByPlatform(_) | End::Unknown => None,
        }
    }
}

/// The end of an attempt, by its reporter.
#[derive(Debug, Default, Clone, PartialEq)]
pub enum End {
    /// The agent reported the outcome. It also contains the number of records.
    Reported(Outcome),
    /// The platform reported the outcome, because the agent could not. It says nothing about records.
    ReportedByPlatform(Outcome),
    /// No report.
    #[default]
    Unknown,
}

/// An error of [`Launcher::launch`].
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The platform refused it.
    #[error("{message}")]
    Refused {
        /// One sentence for people.
        message: String,
        /// Whether it may succeed later.
        retryable: bool,
    },
    /// It is unknown whether it was started: the platform cannot be queried now, or has no room. Call it again.
    #[error("{0}")]
    Later(String),
    /// All run slots are taken. It was not started; launch it again when its ticket is due. This is no failure, however
    /// long it takes.
    #[error("waiting for a run slot, {before} before it")]
    NoFreeSlot {
        /// Number of attempts before it in the queue.
        before: usize,
    },
}
