//! Configuration of an attempt, for both control planes.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use sqlflow_agent_files::Seal;
use sqlflow_model_storage::cache::Cache;
use sqlflow_os::inherited_variables::PassedVariables;
use sqlflow_os::run_as::RunAs;

use crate::output::WhenFull;
use crate::output::tee::TeeMode;
use crate::process::spawn::{Spawning, Streams};
use crate::supervisor::OutputSink;
use crate::trace::Trace;

/// How and where an attempt runs.
#[derive(Debug, Clone)]
pub(crate) struct RunConfig {
    /// Run folder, for outcome file and spool; `None`: no server would look for them.
    pub run_dir: Option<PathBuf>,
    /// Seal of what it leaves there.
    pub seal: Option<Seal>,
    /// Root of the assignment's relative paths.
    pub root: PathBuf,
    /// The command, instead of the assignment's.
    pub command: Option<Vec<OsString>>,
    /// The command's working folder.
    pub working_dir: PathBuf,
    /// File for the outcome as JSON. It may be one that cannot be replaced, such as a Pod's termination log.
    pub outcome_json: Option<PathBuf>,
    /// Files of its options that its command must not open.
    pub own_files: Vec<PathBuf>,
    /// Grace period, instead of the assignment's, which has whole seconds.
    pub grace: Option<Duration>,
    /// Drain time, instead of the assignment's.
    pub drain: Option<Duration>,
    /// Timeout for a server while nothing runs.
    pub linger: Duration,
    pub publish_retry: Duration,
    /// The command's output outlives the agent.
    pub keeps_output: bool,
    /// Cache of fetched models.
    pub cache: Option<Cache>,
    /// Time from TERM to the exit; `None`: the command has its whole grace period, and the rest follows it.
    pub termination_grace: Option<Duration>,
    pub when_full: WhenFull,
    /// Maximum length of the overflow file in bytes.
    pub spool_disk: u64,
    /// Where the command's output is kept.
    pub sink: OutputSink,
    /// How the command's output is copied to the agent's stdout and stderr.
    pub tee: TeeMode,
    /// Trace of an attempt without a server.
    pub trace: Option<Trace>,
    /// The command is a submitter: it has a channel and an empty stdin.
    pub is_submitter: bool,
    /// What programs inherit of the agent's environment, besides what all do; `None`: all but credentials of storages.
    pub passed_variables: Option<PassedVariables>,
    /// Another user than the agent's, as whom a command with code of users runs.
    pub run_as: Option<RunAs>,
    /// Where the command's output goes.
    pub streams: Streams,
    /// The command gets the address of the collector of spans.
    pub finds_collector: bool,
}

impl RunConfig {
    pub(crate) fn spawning<'a>(&'a self, command: &'a [OsString]) -> Spawning<'a> {
        let command = self.command.as_deref().unwrap_or(command);
        Spawning {
            command,
            working_dir: &self.working_dir,
            is_submitter: self.is_submitter,
            passed_variables: self.passed_variables.as_ref(),
            finds_collector: self.finds_collector,
            confinement: None,
            run_as: None,
            group: None,
        }
    }
}
