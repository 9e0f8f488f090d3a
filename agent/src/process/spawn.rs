//! Starts the command, and its companion.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io::PipeWriter;
use std::os::fd::OwnedFd;
use std::os::unix::fs::fchown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, anyhow};
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::Pid;
use sqlflow_os::inherited_variables::PassedVariables;
use sqlflow_os::run_as::RunAs;
use sqlflow_proto::agent::{Assignment, AttemptRef};
use sqlflow_proto::submitter_channel::{CHANNEL_FD, COMPANION_FD};
use sqlflow_telemetry::TraceContext;

use super::confined::Confined;
use super::kill_group::KillGroup;
use super::signals;
use super::start_diagnosis;
use super::terminal::Terminal;
use crate::exhaustion::is_exhaustion;
use crate::supervisor::StartFault;
use crate::sys::{self, Descriptors, Executable};

/// Prefix of the agent's own settings, which the command does not get.
pub const ENV_PREFIX: &str = "SQLFLOW_AGENT_";

/// Prefixes of variables with storage credentials. A submitter runs code of users, and does not get them: only the
/// agent accesses storages. A command of the agent's own user keeps them.
const STORAGE_PREFIXES: [&str; 11] = [
    "AWS_",
    "ALIBABA_CLOUD_",
    "OSS_",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_",
    "AZBLOB_",
    "HADOOP_TOKEN_FILE_LOCATION",
    "WEBHDFS_DELEGATION_TOKEN",
    "KRB5CCNAME",
    "KRB5_CLIENT_KTNAME",
    "KRB5_KTNAME",
];

/// Requested pipe capacity for stdout and stderr, which saves wake-ups. The kernel may give less.
const PIPE_BYTES: i32 = 256 << 10;

/// Prefix of the variables with the collector of spans and its keys.
const COLLECTOR_PREFIX: &str = "OTEL_EXPORTER_OTLP_";

/// Variables that lead to files of the agent's user, or name it.
const OF_USER: [&str; 9] = [
    "HOME",
    "LOGNAME",
    "TEMP",
    "TMP",
    "TMPDIR",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
];

/// PATH if none is set.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Beginning of the names of the programs that are installed together with the agent, and have its version.
const SIBLING_PREFIX: &[u8] = b"sqlflow-";

/// Where the programs write: stdout and stderr of the command, which its companion shares.
#[derive(Debug)]
pub struct Output {
    /// Read end of stdout. At its end already if the command has the terminal itself.
    pub stdout: OwnedFd,
    /// The same of stderr.
    pub stderr: OwnedFd,
}

/// The write ends of [`Output`]; `None`: the agent's own streams. To be dropped once all programs have started.
#[derive(Debug)]
pub struct WriteEnds(Option<[PipeWriter; 2]>);

impl Output {
    /// Creates the pipes.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn create(streams: Streams) -> anyhow::Result<(Self, WriteEnds)> {
        let pipe = || std::io::pipe().context("cannot create a pipe");
        let ((stdout, to_stdout), (stderr, to_stderr)) = (pipe()?, pipe()?);
        for pipe in [&stdout, &stderr] {
            // Failure costs only speed.
            let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        }
        let ends = match streams {
            Streams::Piped => Some([to_stdout, to_stderr]),
            Streams::Inherited => None,
        };
        Ok((Self { stdout: stdout.into(), stderr: stderr.into() }, WriteEnds(ends)))
    }
}

impl WriteEnds {
    fn give_to(&self, command: &mut Command) -> std::io::Result<()> {
        match &self.0 {
            Some([stdout, stderr]) => command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?),
            None => command.stdout(Stdio::inherit()).stderr(Stdio::inherit()),
        };
        Ok(())
    }

    /// Lets a command of another user open them by name, such as `/dev/stdout`.
    fn let_open(&self, user: RunAs) {
        for end in self.0.iter().flatten() {
            // Without it, the command can still write to them.
            let _ = fchown(end, Some(user.uid), Some(user.gid));
        }
    }
}

/// A running program.
#[derive(Debug)]
pub struct Started {
    /// Its process, which is also its group.
    pub pid: Pid,
    /// The agent's end of its submitter channel, non-blocking.
    pub channel: Option<UnixStream>,
    /// The terminal. The command's group may be in its foreground, and has to be removed from it after its end.
    pub terminal: Option<Terminal>,
    /// A warning about a suspicious program, for people.
    pub warning: Option<String>,
}

/// A program could not be started.
#[derive(Debug)]
pub struct NotStarted {
    /// What is wrong with it.
    pub fault: StartFault,
    /// A message that names the program.
    pub error: anyhow::Error,
}

impl From<anyhow::Error> for NotStarted {
    fn from(error: anyhow::Error) -> Self {
        let fault = if is_exhaustion(&error) { StartFault::Exhausted } else { StartFault::Other };
        Self { fault, error }
    }
}

/// Target of the command's stdout and stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// The agent, which records and copies the output.
    Piped,
    /// The agent's own, which are a terminal: the command has it as without an agent, and the output is not recorded.
    Inherited,
}

/// How a command is started.
#[derive(Debug, Clone, Copy)]
pub struct Spawning<'a> {
    /// Program and arguments as bytes; an assignment has only UTF-8.
    pub command: &'a [OsString],
    /// Its working folder.
    pub working_dir: &'a Path,
    /// A server assigned it: it gets a channel and an empty stdin, and may be a program beside the agent. Other commands
    /// read from the agent's stdin.
    pub is_submitter: bool,
    /// What it inherits of the agent's environment, besides what every program does; `None`: all but credentials.
    pub passed_variables: Option<&'a PassedVariables>,
    /// It gets the address of the collector of spans, and its headers.
    pub finds_collector: bool,
    /// What it must not reach.
    pub confinement: Option<&'a Confined>,
    /// Its user, if that is another one than the agent's.
    pub run_as: Option<RunAs>,
    /// Its cgroup.
    pub group: Option<&'a KillGroup>,
}

/// Starts a program. Must be called on the main thread (see [`sys::spawn`]), after
/// [`record_children`](super::preexisting::record_children). `companion` is its end of the socket between command and
/// companion.
///
/// # Errors
/// See [`NotStarted`].
pub fn spawn(
    assignment: &Assignment,
    how: &Spawning<'_>,
    output: &WriteEnds,
    companion: Option<OwnedFd>,
) -> Result<Started, NotStarted> {
    let (program, arguments) =
        how.command.split_first().ok_or_else(|| anyhow!("cannot start the command: it is empty"))?;
    let (agent_end, command_end) = if how.is_submitter { channel()? } else { (None, None) };

    let mut environment = environment(assignment, how);
    if companion.is_some() {
        environment.insert(COMPANION_FD.into(), sys::COMPANION_FD.to_string().into());
    }
    let siblings = siblings_folder().filter(|_| how.is_submitter && is_sibling(program));
    let paths = paths(program, environment.get(OsStr::new("PATH")), siblings.as_deref());
    let executable = executable(&paths, program, arguments, &environment)
        .with_context(|| format!("cannot start {}", program.display()))?;
    let mut command = Command::new(program);
    command.current_dir(how.working_dir);
    command.stdin(if how.is_submitter { Stdio::null() } else { Stdio::inherit() });
    output.give_to(&mut command).with_context(|| format!("cannot start {}", program.display()))?;
    if let Some(user) = how.run_as {
        output.let_open(user);
    }
    // A submitter does not read from a terminal, and must not be stopped by one.
    let mut terminal = if how.is_submitter { None } else { Terminal::of_self() };
    let foreground = terminal.as_mut().and_then(Terminal::for_command);
    let signals = signals::inherited();
    let found = || start_diagnosis::find(&paths, how.working_dir);
    if let Some(confined) = how.confinement
        && let Some(file) = found()
    {
        confined.check_program(&file).with_context(|| format!("cannot start {}", program.display()))?;
    }
    let rules = how.confinement.map(Confined::rules).transpose()?.flatten();
    let group = how.group.and_then(|group| group.entrance().ok());
    let descriptors = Descriptors { channel: command_end.map(OwnedFd::from), companion, rules, group };
    let spawned = sys::spawn(&mut command, executable, descriptors, how.run_as, signals, foreground);
    if let (Err(_), Some(terminal)) = (&spawned, &terminal) {
        // It took the terminal before its start failed.
        terminal.take_back(None);
    }
    let child =
        spawned.map_err(|error| start_diagnosis::explain(error, program, found(), siblings.as_deref()))?;

    let pid = Pid::from_raw(i32::try_from(child.id()).expect("pids are positive i32 in Linux"));
    let warning = found().and_then(|file| start_diagnosis::carriage_return(&file));
    Ok(Started { pid, channel: agent_end, terminal, warning })
}

/// The socket between command and companion.
///
/// # Errors
/// There is no descriptor left.
pub fn companion_link() -> anyhow::Result<[OwnedFd; 2]> {
    let (one, other) = UnixStream::pair().context("cannot create the socket to the companion")?;
    Ok([one.into(), other.into()])
}

/// Folder of the agent's own program, in which the programs lie that were installed with it. `None`: not known.
pub fn siblings_folder() -> Option<PathBuf> {
    // Also of a program that was replaced since: its link ends with ` (deleted)`, behind the folder.
    std::env::current_exe().ok()?.parent().map(Path::to_owned)
}

/// Whether the program is looked up beside the agent. Not any name: a `python3` that happens to lie there, for example
/// in `/usr/local/bin`, may not be the one that PATH names.
pub fn is_sibling(program: &OsStr) -> bool {
    let name = program.as_encoded_bytes();
    name.starts_with(SIBLING_PREFIX) && !name.contains(&b'/')
}

/// Candidate paths of the program, in order; first in the folder `siblings`.
fn paths(program: &OsStr, path: Option<&OsString>, siblings: Option<&Path>) -> Vec<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') || program.is_empty() {
        return vec![program.into()];
    }
    let path = path.map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str);
    // An empty entry is the working folder.
    let folders = std::env::split_paths(path).map(|folder| Path::new(".").join(folder));
    siblings.map(Path::to_owned).into_iter().chain(folders).map(|folder| folder.join(program)).collect()
}

fn executable(
    paths: &[PathBuf],
    program: &OsStr,
    arguments: &[OsString],
    environment: &BTreeMap<OsString, OsString>,
) -> anyhow::Result<Executable> {
    let text = |bytes: &OsStr| {
        CString::new(bytes.as_encoded_bytes()).context("its name or an argument contains a zero byte")
    };
    let paths = paths.iter().map(|it| text(it.as_os_str())).collect::<anyhow::Result<_>>()?;
    let arguments = [program]
        .into_iter()
        .chain(arguments.iter().map(OsString::as_os_str))
        .map(text)
        .collect::<anyhow::Result<_>>()?;
    let variable = |(name, value): (&OsString, &OsString)| {
        let mut both = name.clone();
        both.push("=");
        both.push(value);
        text(&both)
    };
    let environment = environment.iter().map(variable).collect::<anyhow::Result<_>>()?;
    Ok(Executable::new(paths, arguments, environment))
}

fn channel() -> anyhow::Result<(Option<UnixStream>, Option<UnixStream>)> {
    let (agent_end, command_end) = UnixStream::pair().context("cannot create the submitter channel")?;
    agent_end.set_nonblocking(true).context("cannot create the submitter channel")?;
    Ok((Some(agent_end), Some(command_end)))
}

/// Environment of the command.
fn environment(assignment: &Assignment, how: &Spawning<'_>) -> BTreeMap<OsString, OsString> {
    let inherited: BTreeMap<_, _> = std::env::vars_os().collect();
    let mut all = inherited.clone();
    if let Some(passed) = how.passed_variables {
        all.retain(|name, _| passed.includes(name));
    }
    for (name, value) in &assignment.environment {
        // Variables of the agent's container take precedence.
        all.entry(name.into()).or_insert_with(|| value.into());
    }
    let finds_collector = how.finds_collector || assignment.trace_user_code;
    all.retain(|name, _| {
        let is = |prefix: &&str| name.as_encoded_bytes().starts_with(prefix.as_bytes());
        let is_kept_from_submitters = how.is_submitter && STORAGE_PREFIXES.iter().any(is);
        !is(&ENV_PREFIX) && !is_kept_from_submitters && (finds_collector || !is(&COLLECTOR_PREFIX))
    });
    all.entry("PYTHONUNBUFFERED".into()).or_insert_with(|| "1".into());
    // The state belongs to its parent, and is meaningless without it.
    let given = |name: &str| inherited.get(OsStr::new(name)).and_then(|it| it.to_str());
    let (parent, state) = match assignment.tracestate.as_str() {
        "" if !how.is_submitter => (given("TRACEPARENT"), given("TRACESTATE")),
        state => (Some(assignment.traceparent.as_str()), Some(state)),
    };
    all.remove(OsStr::new("TRACESTATE"));
    if let Some(state) = state.filter(|it| !it.is_empty())
        && parent.is_some_and(|it| it.parse::<TraceContext>().is_ok())
    {
        all.insert("TRACESTATE".into(), state.into());
    }
    if !assignment.traceparent.is_empty() {
        all.insert("TRACEPARENT".into(), assignment.traceparent.clone().into());
    }
    if how.run_as.is_some() {
        OF_USER.iter().for_each(|name| drop(all.remove(OsStr::new(name))));
        // Not the user's own: it is there for other jobs too, who could leave code in it that Python loads.
        all.insert("HOME".into(), how.working_dir.into());
    }
    if let Some(folder) = how.confinement.and_then(Confined::temporary_folder) {
        all.insert("TMPDIR".into(), folder.into());
    }
    if how.is_submitter {
        all.insert(CHANNEL_FD.into(), sys::CHANNEL_FD.to_string().into());
        all.insert("SQLFLOW_ATTEMPT".into(), attempt_path(assignment.attempt.as_ref()).into());
    }
    all
}

/// `<job>/<step>/<attempt>`.
fn attempt_path(attempt: Option<&AttemptRef>) -> String {
    let attempt = attempt.cloned().unwrap_or_default();
    format!("{}/{}/{}", attempt.job_id, attempt.step, attempt.attempt)
}
