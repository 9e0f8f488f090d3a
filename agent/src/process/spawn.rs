//! Starting the command.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, anyhow};
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::Pid;
use sqlflow_proto::agent::{Assignment, AttemptRef};

use super::earlier;
use super::signals;
use super::terminal::Foreground;
use crate::sys;

/// Settings of the agent itself begin with this and are kept from the child.
pub const ENV_PREFIX: &str = "SQLFLOW_AGENT_";

/// Variables that open storages. A submitter runs what users wrote, and needs none of them: the agent alone talks to
/// storages. A command of the agent's own user keeps them.
const STORAGE_PREFIXES: [&str; 8] = [
    "AWS_",
    "ALIBABA_CLOUD_",
    "OSS_",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_",
    "AZBLOB_",
    "HADOOP_TOKEN_FILE_LOCATION",
    "WEBHDFS_DELEGATION_TOKEN",
];

/// Asked of the kernel for stdout and stderr: fewer wake-ups for the same bytes. It may give less.
const PIPE_BYTES: i32 = 256 << 10;

/// A command that runs.
#[derive(Debug)]
pub struct Started {
    /// The command's process, which is also its group.
    pub pid: Pid,
    /// Read ends of the command's output.
    pub stdout: OwnedFd,
    /// See `stdout`.
    pub stderr: OwnedFd,
    /// The agent's end of a submitter's channel, in non-blocking mode.
    pub channel: Option<UnixStream>,
    /// What the command's group has now, and has to be taken back when it has ended.
    pub foreground: Option<Foreground>,
}

/// How a command is started.
#[derive(Debug, Clone, Copy)]
pub struct Spawning<'a> {
    /// Program and arguments as they were given to us; an assignment can name only what is UTF-8.
    pub command: &'a [OsString],
    /// Its working folder.
    pub working_dir: &'a Path,
    /// It gets a channel, and nothing on stdin. Otherwise it reads from the agent's own stdin.
    pub is_submitter: bool,
}

/// Starts the command. Must be called on the main thread (see [`sys::spawn`]).
///
/// # Errors
/// One sentence that names the command.
pub fn spawn(assignment: &Assignment, how: &Spawning<'_>) -> anyhow::Result<Started> {
    let (program, arguments) = how.command.split_first().ok_or_else(|| anyhow!("there is no command"))?;
    let (ours, theirs) = if how.is_submitter { channel()? } else { (None, None) };

    let mut command = Command::new(program);
    command.args(arguments).current_dir(how.working_dir);
    command.stdin(if how.is_submitter { Stdio::null() } else { Stdio::inherit() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    set_environment(&mut command, assignment, how.is_submitter);
    if how.is_submitter {
        command.env("SQLFLOW_CHANNEL_FD", sys::CHANNEL_FD.to_string());
        command.env("SQLFLOW_ATTEMPT", attempt_path(assignment.attempt.as_ref()));
    }
    // A submitter reads nothing from a terminal, and must not be stopped by one.
    let foreground = if how.is_submitter { None } else { Foreground::of_self() };
    earlier::remember();
    let spawned =
        sys::spawn(&mut command, theirs.map(OwnedFd::from), signals::inherited(), foreground.is_some());
    if let (Err(_), Some(foreground)) = (&spawned, foreground) {
        // It had it before it was found that it cannot be started.
        foreground.take_back(None);
    }
    let mut child = spawned.with_context(|| format!("cannot start {}", program.display()))?;

    let pid = Pid::from_raw(i32::try_from(child.id()).expect("pids are positive i32 in Linux"));
    let stdout = OwnedFd::from(child.stdout.take().expect("stdout is piped"));
    let stderr = OwnedFd::from(child.stderr.take().expect("stderr is piped"));
    for pipe in [&stdout, &stderr] {
        // Only speed depends on it.
        let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    }
    Ok(Started { pid, stdout, stderr, channel: ours, foreground })
}

fn channel() -> anyhow::Result<(Option<UnixStream>, Option<UnixStream>)> {
    let (ours, theirs) = UnixStream::pair().context("cannot make the submitter channel")?;
    ours.set_nonblocking(true).context("cannot make the submitter channel")?;
    Ok((Some(ours), Some(theirs)))
}

fn set_environment(command: &mut Command, assignment: &Assignment, is_submitter: bool) {
    for (name, _) in std::env::vars_os() {
        let is = |prefix: &&str| name.as_encoded_bytes().starts_with(prefix.as_bytes());
        if is(&ENV_PREFIX) || (is_submitter && STORAGE_PREFIXES.iter().any(is)) {
            command.env_remove(name);
        }
    }
    if std::env::var_os("PYTHONUNBUFFERED").is_none() {
        command.env("PYTHONUNBUFFERED", "1");
    }
    // What the operator gave the agent's container wins.
    let given = |name: &String| std::env::var_os(name).is_some();
    command.envs(assignment.environment.iter().filter(|(name, _)| !given(name)));
    for (name, value) in [("TRACEPARENT", &assignment.traceparent), ("TRACESTATE", &assignment.tracestate)] {
        if !value.is_empty() {
            command.env(name, value);
        }
    }
}

/// `<job>/<step>/<attempt>`.
fn attempt_path(attempt: Option<&AttemptRef>) -> String {
    let attempt = attempt.cloned().unwrap_or_default();
    format!("{}/{}/{}", attempt.job_id, attempt.step, attempt.attempt)
}
