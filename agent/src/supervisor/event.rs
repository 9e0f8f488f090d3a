//! What happens to an attempt, and what it makes happen.

use std::time::Duration;

use nix::sys::signal::Signal;
use sqlflow_proto::agent::Failure;
use sqlflow_proto::record::ModelPublished;

use super::budget::Budget;
use super::exit_report::{Exit, ExitReport, PublishFault, StartFault};

/// What the machine needs to know of the assignment and the agent's options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plan {
    /// There are models to publish.
    pub publishes: bool,
    /// The command ran in an earlier attempt; only publishing is left.
    pub is_publish_only: bool,
    /// What the command makes outlives the agent.
    pub keeps_output: bool,
    /// Who else has what the command prints.
    pub sink: OutputSink,
    /// Time between TERM and KILL.
    pub grace: Duration,
    /// How long to wait after the exit for pipes that something still holds open.
    pub drain: Duration,
}

impl Plan {
    /// A server gave the attempt, and takes its outcome.
    pub fn has_server(&self) -> bool {
        self.sink == OutputSink::Server
    }
}

/// Who has all that the command prints, besides the reader of the agent's own stdout and stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputSink {
    /// A server; the agent's own streams are only for people.
    #[default]
    Server,
    /// A log folder.
    LogFolder,
    /// Nobody.
    Nowhere,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A server knows this agent and has no attempt for it yet.
    WaitingForAttempt,
    /// The server that kept this agent waiting is gone.
    WaitInterrupted,
    /// The assignment is here.
    Assigned(Plan),
    /// The server refused this agent for good.
    AttachRefused(String),
    /// Workspace and inputs are ready.
    Prepared,
    /// An input could not be fetched.
    InputFailed {
        /// One sentence.
        message: String,
        /// It is not there, as opposed to not readable just now.
        user_error: bool,
    },
    /// The workspace could not be made.
    WorkspaceFailed(String),
    /// What an earlier attempt made is not there to be published.
    OutputMissing(String),
    /// The command could not be started.
    StartFailed {
        /// One sentence.
        message: String,
        /// What is wrong.
        fault: StartFault,
    },
    /// The command ended.
    Exited(Exit),
    /// After the command's end: no process of the attempt is left.
    Alone,
    /// Nothing more will be read from the command's pipes and channel.
    StreamsEnded {
        /// Something still holds one of them open.
        open: bool,
    },
    /// The submitter says why it is about to fail.
    SubmitterFailed(Failure),
    /// What came over the channel is no frame.
    ChannelBroken(String),
    /// The channel ended within a frame.
    ChannelCut,
    /// The submitter asks for leave to make its effect visible.
    CommitAsked,
    /// The commit is granted.
    Granted,
    /// The commit is refused.
    CommitRefused(String),
    /// The outputs are staged and checked.
    Staged(Vec<ModelPublished>),
    /// The outputs are in place.
    Committed(Vec<ModelPublished>),
    /// An output could not be published; those in `committed` are in place all the same.
    PublishFailed {
        /// One sentence.
        message: String,
        /// What was committed before.
        committed: Vec<ModelPublished>,
        /// What is wrong.
        fault: PublishFault,
    },
    /// Somebody else's model came in between staging and commit, and the storage did not put ours over it.
    WriteConflict {
        /// One sentence.
        message: String,
        /// What was committed before.
        committed: Vec<ModelPublished>,
    },
    /// The server asks for the end.
    Cancel {
        /// Why, for a person.
        reason: String,
        /// Time between TERM and KILL; unset: the assignment's.
        grace: Option<Duration>,
    },
    /// The agent itself got TERM or INT.
    Terminate {
        /// Which of them.
        signal: Signal,
        /// Who sent it.
        sender: String,
        /// How the time that is left is divided.
        budget: Budget,
    },
    /// The agent got a signal that is meant for the command.
    Forward(Signal),
    /// What the command printed is where it goes; or one sentence on what is not.
    Flushed {
        /// On the agent's stdout and stderr.
        unwritten: Option<String>,
        /// In the log.
        unlogged: Option<String>,
    },
    /// The server has the outcome safely.
    OutcomeAcked,
    /// Records have been acknowledged since [`Timer::Linger`] was set. Comes just before that runs out.
    AckedMeanwhile,
    /// The log has all records, and could not be finished all the same.
    LogUnfinished(String),
    /// A timer ran out.
    TimeUp(Timer),
}

/// Timers; there is one of each, and config it again moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// How long to wait for a server when nothing runs; for the end of records that are being taken, as long as they are.
    Linger,
    /// Until a stronger signal follows.
    Grace,
    /// From KILL until a command that it does not end is given up.
    GiveUp,
    /// Until leftovers are ended.
    Settle,
    /// Until pipes that are held open are given up.
    Drain,
    /// Until the start is tried again.
    StartAgain,
    /// From TERM until publishing gives up.
    PublishBy,
    /// From TERM until the agent leaves.
    LeaveBy,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write the files, fetch the inputs.
    Prepare,
    /// Give up preparing.
    AbandonPrepare,
    /// Start the command; answered at once by `StartFailed` when that fails.
    Start,
    /// Signal the command's group and all its descendants.
    Signal(Signal),
    /// Signal the command's group only.
    Forward(Signal),
    /// The command has ended: signal what is left of its descendants, and name them in a warning. TERM is only for those
    /// that had none yet.
    SignalLeftovers(Signal),
    /// Read what is there and no more; answered by `StreamsEnded`.
    StopReading,
    /// Pack the outputs beside their destination.
    Stage,
    /// Ask the server for the commit grant.
    AskCommit(Vec<ModelPublished>),
    /// Withdraw that.
    ForgetCommit,
    /// Tell the submitter that it may make its effect visible, or why not.
    AnswerSubmitter(Result<(), String>),
    /// Put the outputs in place.
    Commit,
    /// Do not try again what failed.
    HurryPublish,
    /// Stop staging and remove it.
    AbandonPublish,
    /// Put a warning into the result log.
    Warn(String),
    /// Put a gap into the result log: something holds a pipe open.
    RecordGap,
    /// Put the published models into the result log.
    RecordModels(Vec<ModelPublished>),
    /// Wait until what the command printed is where it goes; answered by `Flushed`.
    Flush,
    /// Wait for a moment only.
    HurryFlush,
    /// Write the outcome down and report it.
    Report(Box<ExitReport>, Vec<ModelPublished>),
    /// Start a timer.
    SetTimer(Timer, Duration),
    /// The end: save what no server took, and exit.
    Exit(u8),
}
