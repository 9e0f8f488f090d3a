//! Runs one attempt: with a server's assignment (`attach`), or with none and by flags alone (`exec`). Both go through
//! the same state machine and the same shell; they differ in who takes the records, grants and acknowledges.

mod prepare;
mod runtime;
mod shell;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sqlflow_model_storage::cache::Cache;
use sqlflow_proto::agent::{Assignment, AttemptRef};
use sqlflow_telemetry::Exporter;
use tokio::sync::mpsc;

use crate::attach::{Attach, Proof};
use crate::cli::{AttachOptions, CommonOptions, ExecOptions, MirrorAs, WhenFull};
use crate::exhaustion::{LAUNCH_TIMEOUT, outlast};
use crate::lock::RunLock;
use crate::process::spawn::{Spawning, Streams};
use crate::process::terminal;
use crate::ship::link::Link;
use crate::ship::mirror::Mirror;
use crate::standalone::Standalone;
use crate::supervise::{EXIT_FAULT, Event, Kept};
use crate::trace::Trace;
use crate::workspace;
use shell::Shell;

/// Between TERM and KILL when nothing says how long.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// How long `exec` waits for its own log to take the last records.
const EXEC_LINGER: Duration = Duration::from_secs(30);

/// Where and how the attempt runs.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// Where the outcome and what no server took are left; `None`: nobody would look for it.
    pub run_dir: Option<PathBuf>,
    /// The assignment's paths begin here.
    pub root: PathBuf,
    /// The command, where it is not the assignment's.
    pub command: Option<Vec<OsString>>,
    /// The command's working folder.
    pub working_dir: PathBuf,
    /// Where the outcome is written as JSON; it may be a file that cannot be replaced, such as a Pod's termination log.
    pub summary: Option<PathBuf>,
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
    pub kept: Kept,
    /// How the command's output is repeated on our own stdout and stderr.
    pub mirror: MirrorAs,
    /// Where spans go that no server asks for.
    pub trace: Option<Trace>,
    /// The command is a submitter: it has a channel and nothing to read on stdin.
    pub is_submitter: bool,
    /// Where the command's output goes.
    pub streams: Streams,
    /// The command is told where the collector of spans is.
    pub finds_collector: bool,
}

impl Setting {
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

/// The attempt that an assignment is for. Both sources of assignments set it before they pass one on.
pub(crate) fn attempt_of(assignment: &Assignment) -> AttemptRef {
    assignment.attempt.clone().unwrap_or_default()
}

/// What the one who gave the attempt says.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// The assignment is complete.
    Assigned(Box<Assignment>),
    /// Everything else, as the machine takes it.
    Event(Event),
}

/// Who gives the attempt, takes its records and acknowledges its outcome.
#[derive(Debug)]
pub(crate) enum Home {
    Server(Box<Attach>),
    Alone(Box<Standalone>),
}

impl Home {
    fn spawn(self, link: Arc<Link>, incoming: mpsc::UnboundedSender<Incoming>) {
        match self {
            Self::Server(attach) => tokio::spawn(attach.run(link, incoming)),
            Self::Alone(alone) => tokio::spawn(alone.run(link, incoming)),
        };
    }
}

/// Runs an attempt that a server assigns; gives the exit code. `mirrors` are stdout and stderr; stderr carries the
/// agent's log, and takes the command's stderr too.
pub fn attach(options: AttachOptions, mirrors: [Mirror; 2]) -> u8 {
    let stdout = mirrors[0].clone();
    exit_code(try_attach(options, mirrors), &stdout)
}

fn try_attach(options: AttachOptions, mirrors: [Mirror; 2]) -> anyhow::Result<u8> {
    if let Some(limit) = options.open_files {
        limit_open_files(limit).context("cannot set the limit of open files")?;
    }
    // The submitter runs as the same user: it must not read the instance key from our memory, nor the storage's
    // credentials from our environment.
    prctl::set_dumpable(false).context("cannot close our memory to others")?;
    let take_lock = || {
        workspace::create_run_folder(&options.dir)?;
        RunLock::take(&options.dir)
    };
    let Some(_lock) = outlast(LAUNCH_TIMEOUT, take_lock)? else {
        tracing::info!(dir = %options.dir.display(), "another agent runs this attempt already");
        return Ok(0);
    };
    let workspace = options.dir.join(workspace::NAME);
    let attempt = options.attempt_ref();
    let proof = Proof { token: options.token, ca: options.ca };
    let attach = Attach::new(options.server, proof, options.dir.clone(), attempt);
    let setting = Setting {
        run_dir: Some(options.dir),
        summary: options.common.outcome.clone(),
        working_dir: workspace.clone(),
        linger: options.linger,
        spool_disk: options.spool_disk << 20,
        keeps_output: options.keep_output,
        is_submitter: true,
        mirror: options.common.mirror.unwrap_or(MirrorAs::Lines),
        ..setting(&options.common, workspace)
    };
    run(setting, Home::Server(Box::new(attach)), mirrors)
}

/// Sets the soft limit, which what this process starts inherits.
fn limit_open_files(limit: u64) -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, limit.min(hard), hard)
}

/// Runs the command that the flags name, without any server; gives the exit code.
pub fn exec(options: ExecOptions, mirrors: [Mirror; 2]) -> u8 {
    let stdout = mirrors[0].clone();
    exit_code(try_exec(options, mirrors), &stdout)
}

fn try_exec(options: ExecOptions, mirrors: [Mirror; 2]) -> anyhow::Result<u8> {
    let working_dir = std::env::current_dir().context("cannot tell the working folder")?;
    let variable = |name: &str| std::env::var(name).ok();
    let exporter = match &options.trace {
        Some(collector) => Some(Exporter::to(collector, &variable)?),
        // They may be meant for the command, so it runs whatever they say.
        None => exporter_from_env(&variable).unwrap_or_else(|error| {
            tracing::warn!("spans are not sent: {error:#}");
            None
        }),
    };
    // Without spans of ours the command finds what we found.
    let trace = exporter.map(|exporter| Trace::alone(exporter, variable("TRACEPARENT").as_deref()));
    let attempt = AttemptRef { job_id: format!("exec-{:016x}", rand::random::<u64>()), step: 0, attempt: 1 };
    // What a person, or a log, is to get otherwise than as it is printed has to come by way of the agent.
    let is_seen_as_it_is = options.log_to.is_none()
        && options.common.when_full == WhenFull::Block
        && options.common.mirror.is_none_or(|it| it == MirrorAs::Raw);
    let passes_terminal = is_seen_as_it_is && terminal::is_at_one();
    let common = setting(&options.common, PathBuf::from("/"));
    let setting = Setting {
        streams: if passes_terminal { Streams::Inherited } else { Streams::Piped },
        finds_collector: options.trace_command,
        termination_grace: match (common.termination_grace, options.grace) {
            (None, None) => Some(DEFAULT_GRACE),
            (total, _) => total,
        },
        grace: options.grace.map(at_least_some),
        drain: Some(at_least_some(options.drain)),
        command: Some(options.command.clone()),
        working_dir,
        summary: options.common.outcome.clone(),
        linger: EXEC_LINGER,
        trace,
        kept: if options.log_to.is_some() { Kept::InLog } else { Kept::Nowhere },
        ..common
    };
    let alone = Standalone::new(options, attempt)?;
    run(setting, Home::Alone(Box::new(alone)), mirrors)
}

/// No time at all would cut off what a command has just printed.
fn at_least_some(time: Duration) -> Duration {
    if time.is_zero() { Duration::from_secs(1) } else { time }
}

/// Only with the one protocol that there is here: the port of another would take the bytes for nonsense.
fn exporter_from_env(variable: &impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<Exporter>> {
    let exporter = Exporter::from_env(variable)?;
    let names = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
    match names.iter().find_map(|name| variable(name)).filter(|it| it.starts_with("http")) {
        Some(protocol) if exporter.is_some() => bail!("{} is {protocol}; only grpc is supported", names[1]),
        _ => Ok(exporter),
    }
}

fn setting(common: &CommonOptions, root: PathBuf) -> Setting {
    Setting {
        run_dir: None,
        summary: None,
        command: None,
        working_dir: root.clone(),
        root,
        grace: None,
        drain: None,
        linger: Duration::ZERO,
        publish_retry: common.publish_retry,
        // In the folder that the user named.
        keeps_output: true,
        cache: common.cache.clone().map(|folder| Cache::new(folder, common.cache_size << 20)),
        termination_grace: common.termination_grace,
        when_full: common.when_full,
        spool_disk: 0,
        trace: None,
        kept: Kept::ByServer,
        mirror: common.mirror.unwrap_or(MirrorAs::Raw),
        is_submitter: false,
        streams: Streams::Piped,
        // It is the operator's own, who gave it to the server.
        finds_collector: true,
    }
}

fn run(setting: Setting, home: Home, mirrors: [Mirror; 2]) -> anyhow::Result<u8> {
    prctl::set_child_subreaper(true).context("cannot become the subreaper")?;
    let timeout = match home {
        Home::Server(_) => LAUNCH_TIMEOUT,
        Home::Alone(_) => Duration::ZERO,
    };
    let runtime = outlast(timeout, || runtime::start().context("cannot start a thread"))?;
    let code = runtime.block_on(async { Shell::new(setting, mirrors).run(home).await });
    // A thread that is stuck in a disk must not hold the exit.
    runtime.shutdown_background();
    code
}

fn exit_code(ended: anyhow::Result<u8>, stdout: &Mirror) -> u8 {
    let code = ended.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        EXIT_FAULT
    });
    stdout.flush_log();
    code
}
