//! Attempts as processes of this machine. The agent is started in a process group of its own and outlives the
//! server; a lock that it holds for its whole life tells any server whether it lives.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::signal::Signal;
use prost::Message as _;
use sqlflow_proto::agent::Outcome;
use tokio::sync::watch;

use super::{ATTACH, LaunchError, Launcher, Needs, Observation, Remains, Spool, Waiting, processes};
use crate::job::{AttemptId, JobId};

/// Settings of the local launcher.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// The `sqlflow-agent` program.
    pub agent: PathBuf,
    /// Folder of the run folders, one for each attempt.
    pub run_dir: PathBuf,
    /// Where agents keep models that they fetched from a storage elsewhere.
    pub cache: PathBuf,
    /// The socket that agents attach to.
    pub socket: PathBuf,
    /// How long an agent with an outcome waits for a server before it leaves it in its run folder.
    pub linger: Duration,
    /// How long an agent that runs may take until it attaches.
    pub attach: Duration,
}

/// Starts agents on this machine.
#[derive(Clone)]
pub struct LocalLauncher {
    options: Arc<LocalOptions>,
    /// Whether the agent has exited, of attempts whose agent is or was a child of this process. It stays until the attempt
    /// is cleaned up, so an exit that came before anybody waited for it is not missed.
    exits: Arc<Mutex<HashMap<AttemptId, watch::Receiver<bool>>>>,
}

/// How much of the agent's own log is kept when it dies without an outcome.
const LAST_WORDS_BYTES: u64 = 2048;

impl LocalLauncher {
    /// A launcher with these settings.
    #[must_use]
    pub fn new(options: LocalOptions) -> Self {
        Self { options: Arc::new(options), exits: Arc::default() }
    }

    /// The run folder of an attempt.
    #[must_use]
    pub fn run_dir(&self, attempt: &AttemptId) -> PathBuf {
        let name = format!("{}-{}", attempt.step, attempt.number);
        self.options.run_dir.join(attempt.job.as_str()).join(name)
    }

    /// The process that holds the attempt's lock: its living agent.
    ///
    /// # Errors
    /// The lock could not be asked.
    pub fn agent_pid(&self, attempt: &AttemptId) -> io::Result<Option<i32>> {
        lock_holder(&self.run_dir(attempt).join("lock"))
    }

    fn start(&self, attempt: &AttemptId) -> io::Result<std::process::Child> {
        let dir = self.run_dir(attempt);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join("agent.log"))?;
        let log_too = log.try_clone()?;
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
            .args(["--mirror", "none"])
            // The run folder stays until the step is done.
            .arg("--keep-output")
            // Submitters get the data source of their own job only.
            .env_remove("SQLFLOW_SERVER_DATASOURCE")
            // Spans of ours are not theirs.
            .env_remove("OTEL_SERVICE_NAME")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_too)
            // Ctrl+C in the server's terminal is not meant for its jobs.
            .process_group(0)
            .spawn()
    }

    /// Reaps the agent when it ends, and notes that.
    fn reap(&self, attempt: AttemptId, mut child: std::process::Child) {
        let (has_exited, exit) = watch::channel(false);
        self.exits.lock().unwrap_or_else(PoisonError::into_inner).insert(attempt, exit);
        tokio::task::spawn_blocking(move || {
            let _ = child.wait();
            has_exited.send_replace(true);
        });
    }
}

#[async_trait]
impl Launcher for LocalLauncher {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn launch(&self, attempt: &AttemptId, _: &Needs) -> Result<(), LaunchError> {
        let child = self.start(attempt).map_err(|error| LaunchError::Refused {
            message: format!("the agent {} could not be started: {error}", self.options.agent.display()),
            retryable: error.kind() == io::ErrorKind::WouldBlock,
        })?;
        self.reap(attempt.clone(), child);
        Ok(())
    }

    async fn ready(&self) -> Result<(), String> {
        let agent = &self.options.agent;
        nix::unistd::access(agent, nix::unistd::AccessFlags::X_OK)
            .map_err(|error| format!("the agent {} cannot be started: {error}", agent.display()))
    }

    async fn observe(&self, attempt: &AttemptId) -> Observation {
        let dir = self.run_dir(attempt);
        let look = move || match lock_holder(&dir.join("lock")) {
            Ok(Some(_)) => Observation::Running,
            Ok(None) => match remains(&dir) {
                Ok(remains) => Observation::Gone(Box::new(remains)),
                Err(error) => Observation::Unknown(format!("what the agent left could not be read: {error}")),
            },
            Err(error) => Observation::Unknown(format!("the agent's lock could not be read: {error}")),
        };
        tokio::task::spawn_blocking(look)
            .await
            .unwrap_or_else(|_| Observation::Unknown("the server is shutting down".to_owned()))
    }

    fn silence(&self) -> Waiting {
        let socket = self.options.socket.display();
        Waiting {
            kind: ATTACH,
            why: format!("the agent runs, but it has not reached the server at {socket}"),
            patience: self.options.attach,
        }
    }

    async fn stop(&self, attempt: &AttemptId, forced: bool) {
        if let Ok(Some(agent)) = self.agent_pid(attempt) {
            if forced {
                processes::signal(agent, Signal::SIGKILL);
            } else if is_first_term(&self.run_dir(attempt)) {
                processes::signal(agent, Signal::SIGTERM);
            }
        }
        if forced {
            let marker = attempt.to_string();
            let _ = tokio::task::spawn_blocking(move || processes::kill_marked(&marker)).await;
        }
    }

    async fn clean_up(&self, attempt: &AttemptId, step_goes_on: bool) {
        if matches!(self.agent_pid(attempt), Ok(None)) {
            self.exits.lock().unwrap_or_else(PoisonError::into_inner).remove(attempt);
            let dir = self.run_dir(attempt);
            let marker = attempt.to_string();
            let _ = tokio::task::spawn_blocking(move || {
                processes::kill_marked(&marker);
                if !step_goes_on {
                    let _ = fs::remove_dir_all(&dir);
                    // The job's folder goes with its last attempt.
                    dir.parent().map(fs::remove_dir);
                }
            })
            .await;
        }
    }

    async fn clean_up_orphan(&self, attempt: &AttemptId) {
        // The run folder is in the state folder: nobody else's.
        self.clean_up(attempt, false).await;
    }

    async fn leftovers(&self) -> Vec<AttemptId> {
        let run_dir = self.options.run_dir.clone();
        tokio::task::spawn_blocking(move || attempts_in(&run_dir)).await.unwrap_or_default()
    }

    async fn changed(&self, attempt: &AttemptId) {
        let known = self.exits.lock().unwrap_or_else(PoisonError::into_inner).get(attempt).cloned();
        let Some(mut exit) = known else { return std::future::pending().await };
        // An error means that nobody waits for the child any more: the server is shutting down.
        if exit.wait_for(|has_exited| *has_exited).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Whether this attempt's agent gets its TERM now: an agent takes a second one for the order to end at once. The mark is
/// in the run folder, since another server, or this one after a restart, asks for the same.
fn is_first_term(run_dir: &Path) -> bool {
    let mark = OpenOptions::new().write(true).create_new(true).mode(0o600).open(run_dir.join("terminated"));
    // Where no mark can be made, an attempt that ends too fast is better than one that does not end.
    mark.map_or_else(|error| error.kind() != io::ErrorKind::AlreadyExists, |_| true)
}

fn attempts_in(run_dir: &Path) -> Vec<AttemptId> {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for job_dir in entries(run_dir) {
        let Some(job) = job_dir.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        for attempt_dir in entries(&job_dir.path()) {
            let name = attempt_dir.file_name();
            let numbers = name.to_str().and_then(|name| name.split_once('-'));
            if let Some((Ok(step), Ok(number))) = numbers.map(|(step, number)| (step.parse(), number.parse()))
            {
                found.push(AttemptId { job: JobId::clone(&job), step, number });
            }
        }
    }
    found
}

/// Who holds the POSIX lock on this file; nobody also when there is no file.
fn lock_holder(path: &Path) -> io::Result<Option<i32>> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut query = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as nix::libc::c_short,
        l_whence: nix::libc::SEEK_SET as nix::libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GETLK(&mut query))?;
    let locked = i32::from(query.l_type) != nix::libc::F_UNLCK;
    Ok(locked.then_some(query.l_pid))
}

fn remains(dir: &Path) -> io::Result<Remains> {
    let outcome = read_if_there(&dir.join("outcome"))?.map(|bytes| Outcome::decode(bytes.as_slice()));
    let last_words = match &outcome {
        Some(Ok(_)) => String::new(),
        Some(Err(error)) => format!("the outcome that it left is damaged: {error}"),
        None => tail(&dir.join("agent.log")),
    };
    let spool = Some(Spool::at(dir.join("spool")));
    let outcome = outcome.and_then(Result::ok);
    Ok(Remains { spool, outcome, last_words, ..Remains::default() })
}

fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn tail(path: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).trim().to_owned()
}
