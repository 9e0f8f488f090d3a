//! How and where an attempt runs, whoever assigns it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use sqlflow_model_storage::cache::Cache;

use crate::output::WhenFull;
use crate::output::tee::TeeMode;
use crate::process::spawn::{Spawning, Streams};
use crate::supervisor::OutputSink;
use crate::trace::Trace;

/// Where and how the attempt runs.
#[derive(Debug, Clone)]
pub(crate) struct RunConfig {
    /// Where the outcome and what no server took are left; `None`: nobody would look for it.
    pub run_dir: Option<PathBuf>,
    /// The assignment's paths begin here.
    pub root: PathBuf,
    /// The command, where it is not the assignment's.
    pub command: Option<Vec<OsString>>,
    /// The command's working folder.
    pub working_dir: PathBuf,
    /// Where the outcome is written as JSON; it may be a file that cannot be replaced, such as a Pod's termination log.
    pub outcome_json: Option<PathBuf>,
    /// Between TERM and KILL; `None`: as the assignment says, which counts whole seconds.
    pub grace: Option<Duration>,
    /// For what the command leaves behind; `None`: the same.
    pub drain: Option<Duration>,
    /// How long to wait for a server when nothing runs.
    pub linger: Duration,
    pub publish_retry: Duration,
    /// What the command makes outlives the agent.
    pub keeps_output: bool,
    /// Models that were fetched before.
    pub cache: Option<Cache>,
    /// From TERM to the end of all; `None`: the command has its whole grace, and the rest comes after it.
    pub termination_grace: Option<Duration>,
    pub when_full: WhenFull,
    /// Largest size of the overflow file in bytes.
    pub spool_disk: u64,
    /// Who else has what the command prints.
    pub sink: OutputSink,
    /// How the command's output is copied to the agent's own stdout and stderr.
    pub tee: TeeMode,
    /// Where spans go that no server asks for.
    pub trace: Option<Trace>,
    /// The command is a submitter: it has a channel and nothing to read on stdin.
    pub is_submitter: bool,
    /// Where the command's output goes.
    pub streams: Streams,
    /// The command is told where the collector of spans is.
    pub finds_collector: bool,
}

impl RunConfig {
    pub(crate) fn spawning<'a>(&'a self, command: &'a [OsString]) -> Spawning<'a> {
        let command = self.command.as_deref().unwrap_or(command);
        Spawning {
            command,
            working_dir: &self.working_dir,
            is_submitter: self.is_submitter,
            streams: self.streams,
            finds_collector: self.finds_collector,
        }
    }
}
