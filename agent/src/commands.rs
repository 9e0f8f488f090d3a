//! The commands `attach` and `exec`. Both turn options into a running attempt, and differ in the control plane.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sqlflow_model_storage::cache::Cache;
use sqlflow_proto::agent::AttemptRef;
use sqlflow_telemetry::{Propagation, Settings};

use crate::cli::{AttachOptions, CommonOptions, ExecOptions};
use crate::control_plane::ControlPlane;
use crate::control_plane::local::LocalControlPlane;
use crate::control_plane::remote::{Credentials, RemoteControlPlane};
use crate::exhaustion::{LAUNCH_TIMEOUT, retry_exhaustion};
use crate::lock::RunLock;
use crate::output::WhenFull;
use crate::output::tee::{Tee, TeeMode};
use crate::process::spawn::Streams;
use crate::process::terminal;
use crate::runner::{DEFAULT_GRACE, RunConfig, run};
use crate::supervisor::{EXIT_FAULT, OutputSink};
use crate::trace::Trace;
use crate::workspace;

/// Timeout of `exec` for the last records of its log folder.
const EXEC_LINGER: Duration = Duration::from_secs(30);

/// Runs an attempt that a server assigns. Returns the exit code. `tees` are stdout and stderr; the agent's log and the
/// command's stderr share stderr.
pub fn attach(options: AttachOptions, tees: [Tee; 2]) -> u8 {
    let stdout = tees[0].clone();
    exit_code(try_attach(options, tees), &stdout)
}

fn try_attach(options: AttachOptions, tees: [Tee; 2]) -> anyhow::Result<u8> {
    if let Some(limit) = options.open_files {
        limit_open_files(limit).context("cannot set the limit of open files")?;
    }
    // The submitter runs as the same user. It must not read the instance key from the agent's memory, or storage
    // credentials from its environment.
    prctl::set_dumpable(false).context("cannot protect the agent's memory from other processes")?;
    if options.run_as.is_some() {
        // What the user wrote is read with its rights, and not with those of groups of the agent.
        nix::unistd::setgroups(&[]).context("cannot give up the agent's groups; --run-as needs root")?;
    }
    let take_lock = || {
        workspace::create_run_folder(&options.dir)?;
        RunLock::take(&options.dir)
    };
    let Some(_lock) = retry_exhaustion(LAUNCH_TIMEOUT, take_lock)? else {
        tracing::info!(dir = %options.dir.display(), "another agent runs this attempt already");
        return Ok(0);
    };
    let workspace = options.dir.join(workspace::NAME);
    let attempt = options.attempt_ref();
    let own_files = options.token.iter().chain(&options.common.outcome).cloned().collect();
    let credentials = Credentials { token: options.token, ca: options.ca };
    let remote = RemoteControlPlane::new(options.server, credentials, options.dir.clone(), attempt);
    let config = RunConfig {
        run_dir: Some(options.dir),
        seal: Some(remote.seal()),
        own_files,
        outcome_json: options.common.outcome.clone(),
        working_dir: workspace.clone(),
        linger: options.linger,
        spool_disk: options.spool_disk << 20,
        keeps_output: options.keep_output,
        is_submitter: true,
        passed_variables: options.pass_env,
        run_as: options.run_as,
        tee: options.common.tee().unwrap_or(TeeMode::Lines),
        ..config(&options.common, workspace)
    };
    run(config, ControlPlane::Remote(Box::new(remote)), tees)
}

/// Sets the soft limit, which the command inherits.
fn limit_open_files(limit: u64) -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, limit.min(hard), hard)
}

/// Runs the command of the options, without a server. Returns the exit code.
pub fn exec(options: ExecOptions, tees: [Tee; 2]) -> u8 {
    let stdout = tees[0].clone();
    exit_code(try_exec(options, tees), &stdout)
}

fn try_exec(options: ExecOptions, tees: [Tee; 2]) -> anyhow::Result<u8> {
    let working_dir = std::env::current_dir().context("cannot find the working folder")?;
    let variable = |name: &str| std::env::var(name).ok();
    let alone = |settings| {
        let propagation = Propagation::from_variables(&variable)?;
        let traceparent = variable("TRACEPARENT").filter(|_| propagation.trace_context);
        Trace::alone(settings, traceparent.as_deref())
    };
    // Without spans of the agent, the command gets the agent's TRACEPARENT.
    let trace = match &options.trace {
        Some(collector) => Some(Settings::for_collector(collector, &variable).and_then(alone)?),
        // The variables may be meant for the command, so an error does not keep it from running.
        None => Trace::from_variables(&variable, alone),
    };
    let attempt = AttemptRef { job_id: format!("exec-{:016x}", rand::random::<u64>()), step: 0, attempt: 1 };
    // Output that is logged, dropped or changed on its way must go through the agent.
    let is_unchanged = options.log_to.is_none()
        && options.common.when_full == WhenFull::Block
        && options.common.tee().is_none_or(|it| it == TeeMode::Raw);
    let passes_terminal = is_unchanged && terminal::is_at_one();
    let common = config(&options.common, PathBuf::from("/"));
    let config = RunConfig {
        streams: if passes_terminal { Streams::Inherited } else { Streams::Piped },
        finds_collector: options.trace_command,
        termination_grace: match (common.termination_grace, options.grace) {
            (None, None) => Some(DEFAULT_GRACE),
            (total, _) => total,
        },
        grace: options.grace.map(nonzero),
        drain: Some(nonzero(options.drain)),
        command: Some(options.command.clone()),
        working_dir,
        outcome_json: options.common.outcome.clone(),
        linger: EXEC_LINGER,
        trace,
        sink: if options.log_to.is_some() { OutputSink::LogFolder } else { OutputSink::Nowhere },
        ..common
    };
    let local = LocalControlPlane::new(options, attempt)?;
    run(config, ControlPlane::Local(Box::new(local)), tees)
}

/// Zero would cut off output that a command has just printed.
fn nonzero(time: Duration) -> Duration {
    if time.is_zero() { Duration::from_secs(1) } else { time }
}

fn config(common: &CommonOptions, root: PathBuf) -> RunConfig {
    RunConfig {
        run_dir: None,
        seal: None,
        outcome_json: None,
        own_files: Vec::new(),
        command: None,
        working_dir: root.clone(),
        root,
        grace: None,
        drain: None,
        linger: Duration::ZERO,
        publish_retry: common.publish_retry,
        // In the folder that the user gave.
        keeps_output: true,
        cache: common.cache.clone().map(|folder| Cache::new(folder, common.cache_size << 20)),
        termination_grace: common.termination_grace,
        when_full: common.when_full,
        spool_disk: 0,
        trace: None,
        sink: OutputSink::Server,
        tee: common.tee().unwrap_or(TeeMode::Raw),
        is_submitter: false,
        passed_variables: None,
        run_as: None,
        streams: Streams::Piped,
        // Its assignment says so.
        finds_collector: false,
    }
}

fn exit_code(ended: anyhow::Result<u8>, stdout: &Tee) -> u8 {
    let code = ended.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        EXIT_FAULT
    });
    stdout.flush_log();
    code
}
