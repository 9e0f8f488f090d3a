//! Flags and environment.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sqlflow_model_storage::ModelLocation;
use sqlflow_proto::agent::{AttemptRef, Input, Output};
use sqlflow_units::duration;
use tonic::codegen::http::Uri;
use tonic::transport::Endpoint;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::exhaustion::LAUNCH_TIMEOUT;
use crate::output::WhenFull;
use crate::output::tee::{Tee, TeeMode};
use crate::supervisor::EXIT_FAULT;

/// Exit code for wrong usage.
pub const EXIT_USAGE: u8 = 64;

/// Supervises one program, ships its output and publishes what it made.
#[derive(Debug, Parser)]
#[command(
    name = "sqlflow-agent",
    version,
    after_help = "\
Exit codes:
  the command's own  when it ended by itself
  128+n              when signal n killed it
  64                 wrong usage
  126, 127           it cannot be executed; it, or its interpreter, is not there
  65                 a fault that the command's code does not tell of: no input, not published, no server, refused,
                     what it printed could not be written, no process or memory to start it
  0                  also when another agent runs this attempt already
Where a flag shows [env: …] it can be given there too. Such variables are not passed on to the command.
Times are 500ms, 20s, 5m, 1h30m or 7d; a bare number is seconds."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run an attempt that a server assigns
    Attach(Box<AttachOptions>),
    /// Supervise a command without any server
    Exec(Box<ExecOptions>),
    /// Copy this program into a folder, as `sqlflow-agent`
    Install(InstallOptions),
}

/// Flags that every way to run a command has.
#[derive(Debug, Clone, Args)]
pub struct CommonOptions {
    /// Write how it ended, with evidence, to this file in a folder that is there: JSON of at most 4 KiB, as a Pod's
    /// /dev/termination-log takes it
    #[arg(long, env = "SQLFLOW_AGENT_OUTCOME", value_name = "FILE")]
    pub outcome: Option<PathBuf>,
    /// How long to try again when the storage fails while an output is published
    #[arg(long, env = "SQLFLOW_AGENT_PUBLISH_RETRY", value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub publish_retry: Duration,
    /// Keep models that were fetched from HDFS or an object store in this folder, for whoever needs them next; several
    /// agents may share it
    #[arg(long, env = "SQLFLOW_AGENT_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Megabytes of models that are kept; what was used least goes first
    #[arg(long, env = "SQLFLOW_AGENT_CACHE_SIZE", value_name = "MIB", default_value = "4096", value_parser = clap::value_parser!(u64).range(..1 << 40))]
    pub cache_size: u64,
    /// Time from TERM to the end of all: a Pod's terminationGracePeriodSeconds, less a second or two. It is divided
    /// between the command, its outputs and its last log records, whatever the grace is
    #[arg(long, env = "SQLFLOW_AGENT_TERMINATION_GRACE", value_name = "TIME", value_parser = duration)]
    pub termination_grace: Option<Duration>,
    /// What to do when no more output can be kept because nobody takes it
    #[arg(long, env = "SQLFLOW_AGENT_WHEN_FULL", value_name = "POLICY", default_value = "block")]
    pub when_full: WhenFull,
    /// How the command's output is copied to the agent's own stdout and stderr [default: lines for attach, raw for exec]
    #[arg(long, env = "SQLFLOW_AGENT_TEE", value_name = "HOW")]
    tee: Option<TeeMode>,
    /// The name of `--tee` until 0.1
    #[arg(long, env = "SQLFLOW_AGENT_MIRROR", value_name = "HOW", hide = true, conflicts_with = "tee")]
    mirror: Option<TeeMode>,
    /// How the agent's own log lines on stderr look; SQLFLOW_AGENT_LOG says which there are [default: json for attach,
    /// text for exec]
    #[arg(long, env = "SQLFLOW_AGENT_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Flags of `attach`.
#[derive(Debug, Clone, Args)]
pub struct AttachOptions {
    /// Server to attach to: unix:///path/to/agent.sock, or https://host:port
    #[arg(long, env = "SQLFLOW_AGENT_SERVER", value_name = "URL", value_parser = parse_server)]
    pub server: Endpoint,
    /// Certificates (PEM) that a server over https:// must be signed by
    #[arg(long, env = "SQLFLOW_AGENT_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Token that proves which Pod this is: a projected service-account token, read anew for every connection
    #[arg(long, env = "SQLFLOW_AGENT_TOKEN", value_name = "FILE")]
    pub token: Option<PathBuf>,
    /// Job of the attempt. Without job, step and attempt the agent waits until the server has an attempt for it
    #[arg(long, env = "SQLFLOW_AGENT_JOB", value_name = "JOBID", value_parser = parse_job, requires_all = ["step", "attempt"])]
    pub job: Option<String>,
    /// Step of the attempt, from 0
    #[arg(long, env = "SQLFLOW_AGENT_STEP", value_name = "N", requires = "job")]
    pub step: Option<u32>,
    /// Number of the attempt, from 1
    #[arg(long, env = "SQLFLOW_AGENT_ATTEMPT", value_name = "N", requires = "job", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: Option<u32>,
    /// Run folder of the attempt; it, or the folder that it is made in, must exist
    #[arg(long, env = "SQLFLOW_AGENT_DIR", value_name = "RUN_DIR", value_parser = parse_run_folder)]
    pub dir: PathBuf,
    /// The run folder is on a volume that outlives this agent: what the command made can be published by another
    /// attempt when this one cannot
    #[arg(long, env = "SQLFLOW_AGENT_KEEP_OUTPUT")]
    pub keep_output: bool,
    /// How long to wait for a server before the command starts, for a commit grant, and for the end to be acknowledged;
    /// at the end it counts from the last record that a server took
    #[arg(long, env = "SQLFLOW_AGENT_LINGER", value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub linger: Duration,
    /// Soft limit of open files for the command, and so for this agent [default: the one that it inherits]
    #[arg(long, env = "SQLFLOW_AGENT_OPEN_FILES", value_name = "N", value_parser = clap::value_parser!(u64).range(64..))]
    pub open_files: Option<u64>,
    /// Megabytes in the run folder for records that no server takes, beside 8 MiB in memory
    #[arg(long, env = "SQLFLOW_AGENT_SPOOL_DISK", value_name = "MIB", default_value = "256", value_parser = clap::value_parser!(u64).range(..1 << 40))]
    pub spool_disk: u64,
    /// See above.
    #[command(flatten)]
    pub common: CommonOptions,
}

/// Flags of `exec`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  sqlflow-agent exec -- python3 train.py
  sqlflow-agent exec --log-to /logs/run-17 --output out=file:///models/run-17.tar.gz -- python3 train.py
  sqlflow-agent exec --outcome /dev/termination-log --termination-grace 28 -- ./server")]
pub struct ExecOptions {
    /// Folder that receives the output: `stdout` and `stderr` byte for byte, `records.jsonl` with times and order
    #[arg(long, env = "SQLFLOW_AGENT_LOG_TO", value_name = "DIR")]
    pub log_to: Option<PathBuf>,
    /// Pack DIR into a tarball at URI when the command succeeded, whole or not at all: out=file:///models/m.tar.gz
    #[arg(long, value_name = "DIR=URI", value_parser = parse_output)]
    pub output: Vec<Output>,
    /// Unpack the tarball at URI into DIR before the command starts: file:///models/m.tar.gz=in
    #[arg(long, value_name = "URI=DIR", value_parser = parse_input)]
    pub input: Vec<Input>,
    /// Send spans to this OpenTelemetry collector by OTLP over gRPC; they join the trace of TRACEPARENT if that is set,
    /// and the command gets a TRACEPARENT of its own [default: as OTEL_EXPORTER_OTLP_ENDPOINT and its kin say]
    #[arg(long, env = "SQLFLOW_AGENT_TRACE", value_name = "http://HOST:4317", value_parser = parse_collector)]
    pub trace: Option<String>,
    /// Let the command send spans too: it gets the collector's address and the headers of OTEL_EXPORTER_OTLP_*, which may
    /// hold a key, and otherwise none of these variables
    #[arg(long, env = "SQLFLOW_AGENT_TRACE_COMMAND")]
    pub trace_command: bool,
    /// Time between TERM and KILL for the command and all that it started; the agent's own last work comes after it.
    /// Without this and --termination-grace everything ends within 10s
    #[arg(long, env = "SQLFLOW_AGENT_GRACE", value_name = "TIME", value_parser = duration)]
    pub grace: Option<Duration>,
    /// After the command's end, how long to wait for processes that it left behind and for what they still print
    #[arg(long, env = "SQLFLOW_AGENT_DRAIN", value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub drain: Duration,
    /// See above.
    #[command(flatten)]
    pub common: CommonOptions,
    /// The command and its arguments; no shell is involved
    #[arg(required = true, last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Flags of `install`.
#[derive(Debug, Clone, Args)]
pub struct InstallOptions {
    /// Where to; it must exist
    #[arg(value_name = "DIR", value_parser = parse_folder)]
    pub dir: PathBuf,
}

impl CommonOptions {
    /// How the command's output is copied, if the options say so.
    pub fn tee(&self) -> Option<TeeMode> {
        self.tee.or(self.mirror)
    }
}

impl AttachOptions {
    /// The attempt that the flags name, if they do.
    pub fn attempt_ref(&self) -> Option<AttemptRef> {
        Some(AttemptRef { job_id: self.job.clone()?, step: self.step?, attempt: self.attempt? })
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line
    Json,
    /// For people
    Text,
}

fn parse_server(url: &str) -> Result<Endpoint, String> {
    match url.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => {
            Endpoint::from_shared(url.to_owned()).map_err(|error| error.to_string())
        }
        _ if url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty()) => {
            Endpoint::from_shared(url.to_owned()).map_err(|error| error.to_string())
        }
        _ => Err("the server must be given as unix:///path/to/agent.sock or https://host:port".to_owned()),
    }
}

/// The id becomes part of folder names.
fn parse_job(id: &str) -> Result<String, String> {
    let fits = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    fits.then(|| id.to_owned()).ok_or_else(|| "a job id is made of letters, digits, `-` and `_`".to_owned())
}

fn parse_folder(path: &str) -> Result<PathBuf, String> {
    let folder = PathBuf::from(path);
    match std::fs::metadata(&folder) {
        Ok(found) if found.is_dir() => std::path::absolute(folder).map_err(|error| error.to_string()),
        Ok(_) => Err("it is not a folder".to_owned()),
        Err(error) => Err(format!("{error}; it must exist")),
    }
}

fn parse_run_folder(path: &str) -> Result<PathBuf, String> {
    let is_new = std::fs::metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    let absolute = std::path::absolute(path).map_err(|error| error.to_string())?;
    match absolute.parent().filter(|parent| is_new && parent.is_dir()) {
        Some(_) => Ok(absolute),
        None => parse_folder(path),
    }
}

fn parse_output(text: &str) -> Result<Output, String> {
    let (folder, uri) =
        text.split_once('=').ok_or("DIR=URI is needed, such as out=file:///models/m.tar.gz")?;
    let (directory, (uri, name)) = (below_root(folder)?, tarball(uri)?);
    Ok(Output { uri, name, directory, ..Output::default() })
}

fn parse_input(text: &str) -> Result<Input, String> {
    let (uri, folder) =
        text.rsplit_once('=').ok_or("URI=DIR is needed, such as file:///models/m.tar.gz=in")?;
    let (directory, (uri, name)) = (below_root(folder)?, tarball(uri)?);
    Ok(Input { uri, name, directory })
}

/// `exec` has no workspace: its paths begin at the root.
fn below_root(folder: &str) -> Result<String, String> {
    let absolute = std::path::absolute(folder).map_err(|error| format!("{folder:?}: {error}"))?;
    let text = absolute.to_str().ok_or("the folder's name is not UTF-8")?;
    Ok(text.trim_start_matches('/').to_owned())
}

/// The folder and the name of a tarball.
fn tarball(uri: &str) -> Result<(String, String), String> {
    let (folder, name) = uri
        .strip_suffix(".tar.gz")
        .and_then(|uri| uri.rsplit_once('/'))
        .ok_or_else(|| format!("{uri:?} is not the URI of a .tar.gz file"))?;
    ModelLocation::new(folder, name)?;
    Ok((folder.to_owned(), name.to_owned()))
}

fn parse_collector(url: &str) -> Result<String, String> {
    let is_usable =
        url.strip_prefix("http://").is_some_and(|rest| !rest.is_empty()) && url.parse::<Uri>().is_ok();
    is_usable
        .then(|| url.to_owned())
        .ok_or_else(|| "http://host:port is needed; TLS is not supported".to_owned())
}

/// Prints help or what is wrong, and gives the exit code.
pub fn usage_error(error: &clap::Error) -> ExitCode {
    // Nobody is there to be told that stderr is closed.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
}

/// Says why the agent cannot do its work, where no log is there yet.
pub fn fault(why: &str) -> ExitCode {
    // Nobody is there to be told that stderr is closed.
    let _ = writeln!(std::io::stderr(), "sqlflow-agent: {why}");
    ExitCode::from(EXIT_FAULT)
}

impl Command {
    /// How long it may wait for threads and the like that are used up before it runs. In front of somebody's command,
    /// and where a person waits, an error is of more use.
    pub fn launch_timeout(&self) -> Duration {
        match self {
            Self::Attach(_) => LAUNCH_TIMEOUT,
            Self::Exec(_) | Self::Install(_) => Duration::ZERO,
        }
    }

    /// What the agent's own log looks like, and what is in it unless SQLFLOW_AGENT_LOG says otherwise: in front of
    /// somebody's command only what needs a look.
    pub fn logging(&self) -> (LogFormat, &'static str) {
        match self {
            Self::Attach(options) => (options.common.log_format.unwrap_or(LogFormat::Json), "info"),
            Self::Exec(options) => (options.common.log_format.unwrap_or(LogFormat::Text), "warn"),
            Self::Install(_) => (LogFormat::Text, "warn"),
        }
    }
}

/// Log lines go to stderr; SQLFLOW_AGENT_LOG says which: `debug`, `info,opendal_core=off`. (A filter with more to it costs
/// this program a quarter of a megabyte.)
pub fn init_logging((format, default): (LogFormat, &str), stderr: Tee) {
    let wanted = std::env::var("SQLFLOW_AGENT_LOG").unwrap_or_else(|_| default.to_owned());
    let parsed = wanted.parse::<Targets>();
    let filter =
        parsed.as_ref().ok().cloned().unwrap_or_else(|| default.parse().expect("a level is a filter"));
    let lines = fmt::layer().with_writer(move || stderr.clone());
    let lines = match format {
        LogFormat::Json => lines.json().boxed(),
        LogFormat::Text => lines.with_ansi(false).boxed(),
    };
    tracing_subscriber::registry().with(lines).with(filter).init();
    if let Err(error) = parsed {
        tracing::warn!("SQLFLOW_AGENT_LOG is ignored: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn parse(server: &str, job: &str, dir: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([
            "sqlflow-agent",
            "attach",
            "--server",
            server,
            "--job",
            job,
            "--step",
            "0",
            "--attempt",
            "1",
            "--dir",
            dir,
        ])
    }

    #[test]
    fn invalid_flags_are_rejected_when_parsed() {
        assert!(parse("unix:///tmp/agent.sock", "01jx-a", "/tmp").is_ok());
        assert!(parse("http://example.com", "j", "/tmp").is_err());
        assert!(parse("unix:///tmp/agent.sock", "../j", "/tmp").is_err());
        let error = parse("unix:///tmp/agent.sock", "j", "/no/such/folder").unwrap_err().to_string();
        assert!(error.contains("/no/such/folder") && error.contains("it must exist"), "{error}");
    }

    #[test]
    fn output_and_input_flags_parse_folder_and_uri() {
        let output = parse_output("/data/out=file:///models/a=b/m.tar.gz").unwrap();
        assert_eq!(
            (&*output.directory, &*output.uri, &*output.name),
            ("data/out", "file:///models/a=b", "m")
        );
        let input = parse_input("file:///models/a=b/m.tar.gz=/in").unwrap();
        assert_eq!((&*input.directory, &*input.uri, &*input.name), ("in", "file:///models/a=b", "m"));
        for bad in ["out", "out=file:///models/m", "out=ftp://h/m.tar.gz", "out=file:///models/.tar.gz"] {
            assert!(parse_output(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn arguments_after_dashes_belong_to_the_command() {
        let cli = Cli::try_parse_from([
            "sqlflow-agent",
            "exec",
            "--grace",
            "3s",
            "--",
            "sh",
            "-c",
            "exit 3",
            "--grace",
        ]);
        let Command::Exec(options) = cli.unwrap().command else { panic!("not exec") };
        assert_eq!(options.command, ["sh", "-c", "exit 3", "--grace"]);
        assert_eq!(options.grace, Some(Duration::from_secs(3)));
        assert!(Cli::try_parse_from(["sqlflow-agent", "exec"]).is_err());
        let latin_1 = OsString::from_vec(b"caf\xe9".to_vec());
        let words = ["sqlflow-agent", "exec", "--", "cat"].map(OsString::from);
        let cli = Cli::try_parse_from(words.into_iter().chain([latin_1.clone()]));
        let Command::Exec(options) = cli.unwrap().command else { panic!("not exec") };
        assert_eq!(options.command[1], latin_1, "a file's name need not be UTF-8");
    }
}
