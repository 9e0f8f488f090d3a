//! The local launcher: attempts are processes of this machine. An agent has a process group of its own and outlives the
//! server. A lock that it holds for its whole life shows any server whether it lives.

#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use nix::sys::signal::Signal;
use sqlflow_agent_files::Seal;
use sqlflow_job::{AttemptId, ExecutorRef, InstanceHash, LauncherId, LauncherKind};
use sqlflow_os::exhaustion::{is_exhaustion, with_remedy};
use sqlflow_os::inherited_variables::PassedVariables;
use sqlflow_os::run_as::RunAs;
use tokio::process::{Child, Command};

use super::agent_exits::Exits;
use super::cleanup::FailedCleanups;
use super::data_process::missing_data_process;
use super::lock::{Holder, holder, released};
use super::python::{Python, Unusable};
use super::run_slots::{RunSlot, RunSlots, SlotRequest, Ticket};
use super::unreadable_outcome::Unreadable;
use super::{
    Cleanup, LaunchError, LaunchRequirements, Launched, Launcher, Observation, PendingReason, PendingStatus,
    Target, cleanup, processes, run_folder, scope,
};

/// Settings of the local launcher.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// The `sqlflow-agent` program.
    pub agent: PathBuf,
    /// The Python that agents run submitters with.
    pub python: Python,
    /// The server's state folder, as an absolute path; it must exist.
    pub state_dir: PathBuf,
    /// Folder of the run folders, one for each attempt; within the state folder.
    pub run_dir: PathBuf,
    /// Cache folder of agents for models from remote storages.
    pub cache: PathBuf,
    /// Socket that agents attach to.
    pub socket: PathBuf,
    /// Time for which an agent with an outcome waits for a server before it leaves the outcome in its run folder.
    pub linger: Duration,
    /// Timeout for attaching, while the agent runs.
    pub attach: Duration,
    /// Soft limit of open files for commands; `None`: inherited.
    pub open_files: Option<u64>,
    /// Further variables of the server's environment that programs of jobs inherit.
    pub passed_variables: PassedVariables,
    /// User of Python, which may pass through the state folder; `None`: the server's own.
    pub run_as: Option<RunAs>,
    /// Maximum number of agents that run at a time; `None`: no limit.
    pub max_running: Option<NonZeroUsize>,
}

/// Starts agents on this machine.
#[derive(Clone)]
pub struct LocalLauncher {
    options: Arc<LocalOptions>,
    /// Agents that are children of this process.
    exits: Exits,
    unreadable: Unreadable,
    failed_cleanups: FailedCleanups,
    run_slots: RunSlots,
    /// See [`Launcher::scope`].
    scope: String,
}

/// Interval at which a running agent is observed without a reported change.
const SAFETY_PERIOD: Duration = Duration::from_secs(300);

impl LocalLauncher {
    /// The launcher id of a launcher with this state folder, an absolute path.
    #[must_use]
    pub fn launcher_id_of(state_dir: &Path) -> LauncherId {
        LauncherId { kind: LauncherKind::Local, scope: Some(scope::of(state_dir)) }
    }

    /// A launcher with these settings.
    #[must_use]
    pub fn new(options: LocalOptions) -> Self {
        let run_slots = RunSlots::new(options.run_dir.join("places"), options.max_running);
        let scope = scope::of(&options.state_dir);
        Self {
            options: Arc::new(options),
            exits: Exits::default(),
            unreadable: Unreadable::default(),
            failed_cleanups: FailedCleanups::default(),
            run_slots,
            scope,
        }
    }

    /// The run folder of an executor.
    #[must_use]
    pub fn run_dir(&self, executor: &ExecutorRef) -> PathBuf {
        run_folder::of(&self.options.run_dir, executor)
    }

    /// The holder of the executor's lock.
    ///
    /// # Errors
    /// The lock could not be queried.
    pub fn holder(&self, executor: &ExecutorRef) -> io::Result<Holder> {
        holder(&self.run_dir(executor).join("lock"))
    }

    /// Waits for the exit of the agent that holds the executor's lock, unless that is done already.
    fn follow(&self, executor: &ExecutorRef, held: Holder) {
        // If an agent of this process has exited, it was one that found the lock taken: not the one that runs.
        self.exits.forget(executor);
        self.exits.adopt(executor, released(self.run_dir(executor).join("lock"), held));
    }

    /// Whether the executor's agent gets its first TERM now: agents take a second TERM as a request to end at once.
    /// Both this process and the run folder record the first one, because another server, or this one after a restart,
    /// repeats the request, and a full or read-only disk takes no record.
    fn is_first_term(&self, executor: &ExecutorRef) -> bool {
        self.exits.is_first_term(executor) && is_first_mark(&self.run_dir(executor))
    }

    fn start(&self, target: &Target, slot: RunSlot) -> Result<Child, LaunchError> {
        let Target { attempt, executor, .. } = target;
        let dir = self.run_dir(executor);
        let prepared = prepare(&dir).and_then(|logs| self.let_pass(&dir).map(|()| logs));
        let [log, log_too] = prepared.map_err(|error| {
            // The job is not the cause.
            let error = with_remedy(&error);
            LaunchError::Later(format!("cannot prepare the run folder {}: {error}", dir.display()))
        })?;
        Command::new(&self.options.agent)
            .arg("attach")
            .arg("--server")
            .arg(format!("unix://{}", self.options.socket.display()))
            .args(["--job", attempt.job.as_str()])
            .args(["--step", &attempt.step.to_string()])
            .args(["--attempt", &attempt.number.to_string()])
            .arg("--dir")
            .arg(&dir)
            .arg("--cache")
            .arg(&self.options.cache)
            .args(["--linger", &self.options.linger.as_secs().to_string()])
            .args(["--tee", "none"])
            .args(
                self.options
                    .open_files
                    .iter()
                    .flat_map(|limit| ["--open-files".to_owned(), limit.to_string()]),
            )
            // The agent itself has the whole environment: credentials of model storages, and settings of its own.
            .arg(format!("--pass-env={}", self.options.passed_variables))
            .args(self.options.run_as.map(|user| format!("--run-as={user}")))
            // The run folder stays until the step has ended.
            .arg("--keep-output")
            // The working folder of submitters is another one.
            .envs(self.options.python.path().map(|path| ("PYTHONPATH", path)))
            // Submitters get only the data source of their own job.
            .env_remove("SQLFLOW_SERVER_DATASOURCE")
            // The server's trace settings are not for agents.
            .env_remove("OTEL_SERVICE_NAME")
            .env_remove("OTEL_RESOURCE_ATTRIBUTES")
            // The agent holds the run slot for its whole life.
            .stdin(slot.into_stdin())
            .stdout(log)
            .stderr(log_too)
            // Ctrl+C in the server's terminal must not end its jobs.
            .process_group(0)
            .spawn()
            .map_err(|error| self.launch_error(&error))
    }

    /// Lets the user of Python pass to its workspace.
    fn let_pass(&self, dir: &Path) -> io::Result<()> {
        let Some(user) = self.options.run_as else { return Ok(()) };
        let below = |folder: &&Path| folder.starts_with(&self.options.run_dir);
        dir.ancestors().take_while(below).try_for_each(|folder| user.let_pass(folder))
    }

    async fn take_slot(&self, attempt: &AttemptId) -> Result<RunSlot, LaunchError> {
        match self.run_slots.take(attempt).await {
            Ok(SlotRequest::Taken(slot)) => Ok(slot),
            Ok(SlotRequest::Wait { before }) => Err(LaunchError::NoFreeSlot { before }),
            // The job is not the cause, and the next one would fail as well.
            Err(error) => Err(LaunchError::Later(format!("cannot take a run slot for the agent: {error}"))),
        }
    }

    /// The launch error for an agent that cannot be started.
    fn launch_error(&self, error: &io::Error) -> LaunchError {
        let message = format!("cannot start the agent {}: {error}", self.options.agent.display());
        if is_exhaustion(error) || error.kind() == io::ErrorKind::ExecutableFileBusy {
            LaunchError::Later(message)
        } else {
            // During an upgrade the program may be missing, or not executable, for a moment, so the step is retried a
            // few times. A wrong path is reported soon.
            LaunchError::Refused { message, retryable: true }
        }
    }
}

#[async_trait]
impl Launcher for LocalLauncher {
    fn kind(&self) -> LauncherKind {
        LauncherKind::Local
    }

    fn queue(&self, attempt: &AttemptId) -> Option<Ticket> {
        self.run_slots.queue(attempt)
    }

    fn scope(&self) -> Option<String> {
        Some(self.scope.clone())
    }

    async fn launch(
        &self,
        target: &Target,
        requirements: &LaunchRequirements,
    ) -> Result<Launched, LaunchError> {
        let Target { attempt, executor, .. } = target;
        // The agent may even run.
        let asked = |error: io::Error| {
            LaunchError::Later(format!("cannot see whether an agent was started: {error}"))
        };
        if self.holder(executor).map_err(asked)? != Holder::Nobody {
            // An earlier server started it and could not record that. It has its run slot.
            return Ok(Launched::default());
        }
        if run_folder::has_outcome(&self.run_dir(executor)).map_err(asked)? {
            // That agent has ended. If a second one there were killed, the outcome of the first would be taken for its
            // own.
            return Ok(Launched::default());
        }
        if !requirements.only_publishes && !requirements.plain_sql {
            self.options.python.usable().await.map_err(|why| match why {
                Unusable::No(message) => LaunchError::Refused { message, retryable: false },
                Unusable::NotKnown(message) => LaunchError::Later(message),
            })?;
        }
        let slot =
            if requirements.cleans_up { RunSlot::uncounted() } else { self.take_slot(attempt).await? };
        let child = self.start(target, slot)?;
        let run_slots = self.run_slots.clone();
        self.exits.reap(executor.clone(), child, move || run_slots.wake());
        self.run_slots.leave(attempt);
        Ok(Launched::default())
    }

    async fn ready(&self) -> Result<(), String> {
        let agent = &self.options.agent;
        nix::unistd::access(agent, nix::unistd::AccessFlags::X_OK)
            .map_err(|error| format!("the agent {} cannot be started: {error}", agent.display()))?;
        if let Some(why) = missing_data_process(agent) {
            return Err(why);
        }
        self.options.python.usable().await.map_err(|(Unusable::No(why) | Unusable::NotKnown(why))| why)
    }

    async fn observe(&self, target: &Target) -> Observation {
        let dir = self.run_dir(&target.executor);
        let (observed, unreadable) = (target.clone(), self.unreadable.clone());
        let look = move || match holder(&dir.join("lock")) {
            Ok(Holder::Nobody) => Err(left(&observed, &dir, &unreadable)),
            Ok(held) => Ok(held),
            Err(error) => Err(unknown("the agent's lock", &error)),
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(Ok(held)) => {
                self.follow(&target.executor, held);
                Observation::Running
            }
            Ok(Err(observation)) => observation,
            Err(_) => Observation::Unknown("the server is shutting down".to_owned()),
        }
    }

    fn attach_pending(&self) -> PendingStatus {
        let socket = self.options.socket.display();
        PendingStatus {
            reason: PendingReason::Attach,
            message: format!("the agent runs, but it has not reached the server at {socket}"),
            timeout: self.options.attach,
        }
    }

    async fn stop(&self, target: &Target, forced: bool) {
        let executor = &target.executor;
        if let Ok(held @ Holder::Process(agent)) = self.holder(executor) {
            self.follow(executor, held);
            if forced {
                processes::signal(agent, Signal::SIGKILL);
            } else if self.is_first_term(executor) {
                processes::signal(agent, Signal::SIGTERM);
            }
        }
        if forced {
            let attempt = &target.attempt;
            let marker = attempt.to_string();
            let killed = tokio::task::spawn_blocking(move || processes::kill_marked(&marker)).await;
            if let Ok(Err(error)) = killed {
                let error = with_remedy(&error);
                tracing::warn!(%attempt, error, "cannot kill what the attempt started now, will try again");
            }
        }
    }

    async fn cleanup(&self, target: &Target, step_goes_on: bool) -> anyhow::Result<Cleanup> {
        let executor = target.executor.clone();
        if self.holder(&executor).context("cannot ask for the agent's lock")? != Holder::Nobody {
            return Ok(Cleanup::StillRuns);
        }
        self.exits.forget(&executor);
        self.unreadable.end(&executor);
        let dir = self.run_dir(&executor);
        let (marker, seal) = (target.attempt.to_string(), seal_of(target));
        let failed_cleanups = self.failed_cleanups.clone();
        let cleanup = move || {
            // This searches all processes of the machine, and most attempts do not need it.
            let end_processes = || match run_folder::has_nothing_left(&dir, seal.as_ref()) {
                true => Ok(()),
                false => processes::kill_marked(&marker),
            };
            if step_goes_on {
                end_processes().context("cannot kill what the attempt started")?;
                return Ok(Cleanup::Done);
            }
            failed_cleanups
                .cleanup(&executor, end_processes, || cleanup::remove(&dir))
                .with_context(|| format!("cannot remove the run folder {}", dir.display()))?;
            // The job's folder goes with its last attempt.
            dir.parent().map(fs::remove_dir);
            Ok(Cleanup::Done)
        };
        tokio::task::spawn_blocking(cleanup).await?
    }

    async fn collect_garbage(&self, target: &Target) -> anyhow::Result<()> {
        // The run folder is in the state folder of this server only.
        self.cleanup(target, false).await.map(drop)
    }

    async fn attempts(&self) -> Vec<Target> {
        let run_dir = self.options.run_dir.clone();
        tokio::task::spawn_blocking(move || targets_in(&run_dir)).await.unwrap_or_default()
    }

    async fn changed(&self, target: &Target) {
        self.exits.exited(&target.executor).await;
    }

    /// The exit of an agent that was seen to run is never missed, so this is only a safety net.
    fn poll_interval(&self) -> Duration {
        SAFETY_PERIOD
    }
}

/// Whether no server has recorded the first TERM in the run folder. Where nothing can be recorded, a second server may
/// shorten the grace period: an attempt that ends early is better than one that does not end.
fn is_first_mark(run_dir: &Path) -> bool {
    let mark = OpenOptions::new().write(true).create_new(true).mode(0o600).open(run_dir.join("terminated"));
    mark.map_or_else(|error| error.kind() != io::ErrorKind::AlreadyExists, |_| true)
}

/// The seal that what the executor left must have. `None`: its agent never attached, or is of an earlier version, which
/// had none.
fn seal_of(target: &Target) -> Option<Seal> {
    target.instance.as_ref().and_then(InstanceHash::of_sealing).map(Seal::of_hash)
}

/// Observation of an executor whose lock is free.
fn left(target: &Target, dir: &Path, unreadable: &Unreadable) -> Observation {
    let (executor, seal) = (&target.executor, seal_of(target));
    let artifacts = match run_folder::artifacts(dir, seal.as_ref()) {
        Ok(artifacts) => {
            unreadable.end(executor);
            artifacts
        }
        Err(error) if unreadable.is_lasting(executor, &error, Instant::now()) => {
            run_folder::remains_without_outcome(dir, seal.as_ref(), &error)
        }
        Err(error) => return unknown("what the agent left", &error),
    };
    let has_attached = target.instance.is_some();
    Observation::Gone(Box::new(if has_attached { artifacts } else { run_folder::without_proof(artifacts) }))
}

fn unknown(what: &str, error: &io::Error) -> Observation {
    Observation::Unknown(format!("cannot read {what}: {}", with_remedy(error)))
}

/// Creates the run folder, and the log file for the agent's stdout and stderr.
fn prepare(dir: &Path) -> io::Result<[File; 2]> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join("agent.log"))?;
    Ok([log.try_clone()?, log])
}

/// The attempts that have a run folder. Folders that cannot be listed now are found the next time.
fn targets_in(run_dir: &Path) -> Vec<Target> {
    let mut found = Vec::new();
    for job in run_folder::jobs_in(run_dir).unwrap_or_default() {
        let job_dir = run_dir.join(job.as_str());
        match run_folder::attempts_of(&job, &job_dir) {
            // Its last attempt was removed without it. A folder that is being created now is created again.
            Ok(attempts) if attempts.is_empty() => drop(fs::remove_dir(&job_dir)),
            Ok(attempts) => found.extend(attempts.into_iter().map(Target::own)),
            Err(_) => {}
        }
    }
    found
}
