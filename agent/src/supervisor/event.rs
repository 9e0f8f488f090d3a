//! Events and actions of an attempt.

use std::time::Duration;

use nix::sys::signal::Signal;
use sqlflow_proto::agent::Failure;
use sqlflow_proto::record::ModelPublished;

use super::budget::Budget;
use super::exit_report::{Exit, ExitReport, PublishFault, StartFault};
use super::programs::Program;

/// The parts of the assignment and the options that the supervisor needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Name of the companion that runs beside the command.
    pub companion: Option<String>,
    /// There are models to publish.
    pub publishes: bool,
    /// The command ran in an earlier attempt; only publish its output.
    pub is_publish_only: bool,
    /// The command's output outlives the agent.
    pub keeps_output: bool,
    /// Where the command's output is kept.
    pub sink: OutputSink,
    /// Time between TERM and KILL.
    pub grace: Duration,
    /// Timeout after the exit for pipes that a process still holds open.
    pub drain: Duration,
}

impl Plan {
    /// Whether a server assigned the attempt and takes its outcome.
    pub fn has_server(&self) -> bool {
        self.sink == OutputSink::Server
    }
}

/// Where all output of the command is kept, besides the tee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputSink {
    /// At a server; the agent's own streams are only for people.
    #[default]
    Server,
    /// In a log folder.
    LogFolder,
    /// Not at all.
    Nowhere,
}

/// An event. A state that has nothing to do with a group ignores it as a whole; a state that handles one of a group names
/// all of them.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// See [`AttachEvent`].
    Attach(AttachEvent),
    /// See [`PrepareEvent`].
    Prepare(PrepareEvent),
    /// See [`CommandEvent`].
    Command(CommandEvent),
    /// See [`GrantEvent`].
    Grant(GrantEvent),
    /// See [`PublishEvent`].
    Publish(PublishEvent),
    /// See [`ReportEvent`].
    Report(ReportEvent),
    /// The server refused this agent for good.
    AttachRefused(String),
    /// The server cancels the attempt.
    Cancel {
        /// The reason, for people.
        reason: String,
        /// Time between TERM and KILL; `None`: that of the assignment.
        grace: Option<Duration>,
    },
    /// The agent got TERM or INT.
    Terminate {
        /// The signal.
        signal: Signal,
        /// Its sender.
        sender: String,
        /// Division of the remaining time.
        budget: Budget,
    },
    /// The agent got a signal for the command.
    Forward(Signal),
    /// A timer expired.
    TimeUp(Timer),
}

/// Events of attaching to a server, before the assignment.
#[derive(Debug, Clone, PartialEq)]
pub enum AttachEvent {
    /// The server has no attempt for this agent yet.
    WaitingForAttempt,
    /// The connection to that server was lost.
    WaitInterrupted,
    /// The assignment arrived.
    Assigned(Plan),
}

/// Results of preparing workspace and inputs.
#[derive(Debug, Clone, PartialEq)]
pub enum PrepareEvent {
    /// Workspace and inputs are ready.
    Prepared,
    /// An input could not be fetched.
    InputFailed {
        /// A message for people.
        message: String,
        /// It does not exist, as opposed to a failed read.
        user_error: bool,
    },
    /// The workspace could not be created.
    WorkspaceFailed(String),
    /// The kept output of an earlier attempt is missing.
    OutputMissing(String),
}

/// Events of the command, its processes and its channel.
#[derive(Debug, Clone, PartialEq)]
pub enum CommandEvent {
    /// The command could not be started.
    StartFailed {
        /// A message for people.
        message: String,
        /// What is wrong.
        fault: StartFault,
    },
    /// A program ended.
    Exited {
        /// Which one.
        program: Program,
        /// How.
        exit: Exit,
        /// The strongest signal to end that it got from the agent before.
        told: Option<Signal>,
    },
    /// No process of the attempt is left, after the end of all programs.
    AllExited,
    /// Nothing more will be read from the command's pipes and channel.
    StreamsEnded {
        /// A process still holds one of them open.
        open: bool,
    },
    /// A program reports why it is about to fail.
    SubmitterFailed {
        /// Which one.
        program: Program,
        /// Its report.
        failure: Failure,
    },
    /// The bytes on the channel are not a frame.
    ChannelBroken(String),
    /// The channel ended within a frame.
    ChannelCut,
    /// The submitter asks for the commit grant.
    CommitAsked,
    /// The companion sent a frame since [`Timer::Completion`] was set. Comes directly before it expires.
    CompanionSpoke,
}

/// Answers to a request for the commit grant.
#[derive(Debug, Clone, PartialEq)]
pub enum GrantEvent {
    /// The commit is granted.
    Granted,
    /// The commit is refused.
    CommitRefused(String),
}

/// Results of staging and publishing.
#[derive(Debug, Clone, PartialEq)]
pub enum PublishEvent {
    /// The outputs are staged.
    Staged(Vec<ModelPublished>),
    /// The outputs are published.
    Committed(Vec<ModelPublished>),
    /// An output could not be published. Those in `committed` are published.
    PublishFailed {
        /// A message for people.
        message: String,
        /// Outputs that were published before.
        committed: Vec<ModelPublished>,
        /// What is wrong.
        fault: PublishFault,
    },
    /// Another model was published between staging and commit, so this one was not.
    WriteConflict {
        /// A message for people.
        message: String,
        /// Outputs that were published before.
        committed: Vec<ModelPublished>,
    },
}

/// Results of flushing and reporting.
#[derive(Debug, Clone, PartialEq)]
pub enum ReportEvent {
    /// The command's output was flushed; or messages about what was not.
    Flushed {
        /// On the agent's stdout and stderr.
        unwritten: Option<String>,
        /// In the log.
        unlogged: Option<String>,
    },
    /// The server has recorded the outcome.
    OutcomeAcked,
    /// Records were acknowledged since [`Timer::Linger`] was set. Comes directly before it expires.
    AckedMeanwhile,
    /// The log has all records, but could not be finished.
    LogUnfinished(String),
}

/// Timers. There is one of each; setting it again moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// Timeout for a server while nothing runs. It begins again while records are being acknowledged.
    Linger,
    /// Until a stronger signal follows.
    Grace,
    /// From the TERM to the command until its companion gets TERM too.
    CompanionTerm,
    /// Timeout for a companion whose command has succeeded. It begins again while the companion sends frames.
    Completion,
    /// From KILL until an unkillable program is given up.
    GiveUp,
    /// Until remaining processes are terminated.
    Settle,
    /// Until open pipes are given up.
    Drain,
    /// Until the start is retried.
    StartAgain,
    /// From TERM until publishing gives up.
    PublishBy,
    /// From TERM until the agent exits.
    LeaveBy,
}

/// An action.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write the files, fetch the inputs.
    Prepare,
    /// Abandon preparing.
    AbandonPrepare,
    /// Start the companion, if there is one, and the command. `StartFailed` follows if that fails; none of them runs then.
    Start,
    /// Signal a program's group and all its descendants. Orphans belong to the command.
    Signal(Program, Signal),
    /// KILL all processes of the attempt.
    Kill,
    /// Report to the companion that the command has exited with 0.
    ReportCommandEnd,
    /// Signal the command's group only.
    Forward(Signal),
    /// Signal the remaining processes of the ended command, with a warning that names them. TERM is only for those that
    /// had no signal yet.
    SignalRemaining(Signal),
    /// Read what the pipes hold and no more; `StreamsEnded` follows.
    StopReading,
    /// Pack the outputs beside their destination.
    Stage,
    /// Ask the server for the commit grant.
    AskCommit(Vec<ModelPublished>),
    /// Withdraw that request.
    ForgetCommit,
    /// Send the submitter the grant, or the reason of a refusal.
    AnswerSubmitter(Result<(), String>),
    /// Publish the staged outputs.
    Commit,
    /// Do not retry failures of publishing any more.
    HurryPublish,
    /// Stop staging and remove staged files.
    AbandonPublish,
    /// Append a warning to the result log.
    Warn(String),
    /// Append a gap to the result log: a process holds a pipe open.
    RecordGap,
    /// Append the published models to the result log.
    RecordModels(Vec<ModelPublished>),
    /// Append the ends of the statements that end with an output to the result log.
    RecordEnds,
    /// Flush the command's output; `Flushed` follows.
    Flush,
    /// Shorten the flush to a moment.
    HurryFlush,
    /// Write the outcome to disk and report it.
    Report(Box<ExitReport>, Vec<ModelPublished>),
    /// Start a timer.
    SetTimer(Timer, Duration),
    /// Save what no server took, and exit.
    Exit(u8),
}
