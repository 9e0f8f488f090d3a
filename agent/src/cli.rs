//! Command-line options and their environment variables.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sqlflow_model_storage::ModelLocation;
use sqlflow_os::inherited_variables::PassedVariables;
use sqlflow_os::run_as::RunAs;
use sqlflow_proto::agent::{AttemptRef, Input, Output};
use sqlflow_telemetry::Settings;
use sqlflow_units::{duration, whole_number};
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

/// Supervises one program, ships its output and publishes its models.
#[derive(Debug, Parser)]
#[command(
    name = "sqlflow-agent",
    version,
    after_help = "\
Exit codes:
  the command's own  if it ended by itself
  128+n              if signal n killed it
  64                 wrong usage
  126, 127           the command cannot be executed; it, or its interpreter, does not exist
  65                 a fault that the command's code does not show: input missing, not published, no server, refused,
                     output not written, no process or memory for the start
  0                  also if another agent already runs this attempt
Options with [env: …] can be set by that variable too. The command does not get these variables.
Times are 500ms, 20s, 5m, 1h30m or 7d; a bare number is seconds."
)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run an attempt that a server assigns
    Attach(Box<AttachOptions>),
    /// Supervise a command without a server
    Exec(Box<ExecOptions>),
    /// Copy this program into a folder, as `sqlflow-agent`, and `sqlflow-data` if it lies beside this program
    Install(InstallOptions),
}

/// Options of all subcommands that run a command.
#[derive(Debug, Clone, Args)]
pub struct CommonOptions {
    /// Write the outcome to this file in an existing folder: JSON of at most 4 KiB, which fits into a Pod's
    /// /dev/termination-log
    #[arg(long, env = "SQLFLOW_AGENT_OUTCOME", value_name = "FILE")]
    pub outcome: Option<PathBuf>,
    /// Retry timeout for a storage that fails while inputs are fetched and outputs are published
    #[arg(long, env = "SQLFLOW_AGENT_PUBLISH_RETRY", value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub publish_retry: Duration,
    /// Folder for a cache of models from HDFS or an object store; several agents may share it
    #[arg(long, env = "SQLFLOW_AGENT_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Size limit of the cache in MiB; the least recently used models are evicted
    #[arg(long, env = "SQLFLOW_AGENT_CACHE_SIZE", value_name = "MIB", default_value = "4096", value_parser = |text: &str| whole_number::<u64>(text, 0..=(1 << 40) - 1))]
    pub cache_size: u64,
    /// Time from TERM to the agent's exit: a Pod's terminationGracePeriodSeconds, less a second or two. It is divided
    /// among the command, its outputs and its last log records, and overrides the grace period
    #[arg(long, env = "SQLFLOW_AGENT_TERMINATION_GRACE", value_name = "TIME", value_parser = duration)]
    pub termination_grace: Option<Duration>,
    /// Policy for output when all buffers are full
    #[arg(long, env = "SQLFLOW_AGENT_WHEN_FULL", value_name = "POLICY", default_value = "block")]
    pub when_full: WhenFull,
    /// How to copy the command's output to the agent's own stdout and stderr [default: lines for attach, raw for exec]
    #[arg(long, env = "SQLFLOW_AGENT_TEE", value_name = "HOW")]
    tee: Option<TeeMode>,
    /// The name of `--tee` until 0.1
    #[arg(long, env = "SQLFLOW_AGENT_MIRROR", value_name = "HOW", hide = true)]
    mirror: Option<TeeMode>,
    /// Format of the agent's own log on stderr; SQLFLOW_AGENT_LOG sets its level [default: json for attach, text for
    /// exec]
    #[arg(long, env = "SQLFLOW_AGENT_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Options of `attach`.
#[derive(Debug, Clone, Args)]
pub struct AttachOptions {
    /// Server to attach to: unix:///path/to/agent.sock, or https://host:port
    #[arg(long, env = "SQLFLOW_AGENT_SERVER", value_name = "URL", value_parser = parse_server)]
    pub server: Endpoint,
    /// Certificates (PEM) of the authorities for a server over https://
    #[arg(long, env = "SQLFLOW_AGENT_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Projected service account token that identifies the Pod; read for every connection
    #[arg(long, env = "SQLFLOW_AGENT_TOKEN", value_name = "FILE")]
    pub token: Option<PathBuf>,
    /// Job of the attempt. Without job, step and attempt, the agent waits until the server assigns an attempt
    #[arg(long, env = "SQLFLOW_AGENT_JOB", value_name = "JOBID", value_parser = parse_job, requires_all = ["step", "attempt"])]
    pub job: Option<String>,
    /// Step of the attempt, from 0
    #[arg(long, env = "SQLFLOW_AGENT_STEP", value_name = "N", requires = "job", value_parser = |text: &str| whole_number::<u32>(text, 0..=u64::from(u32::MAX)))]
    pub step: Option<u32>,
    /// Number of the attempt, from 1
    #[arg(long, env = "SQLFLOW_AGENT_ATTEMPT", value_name = "N", requires = "job", value_parser = |text: &str| whole_number::<u32>(text, 1..=u64::from(u32::MAX)))]
    pub attempt: Option<u32>,
    /// Run folder of the attempt; it, or its parent, must exist
    #[arg(long, env = "SQLFLOW_AGENT_DIR", value_name = "RUN_DIR", value_parser = parse_run_folder)]
    pub dir: PathBuf,
    /// The run folder is on a volume that outlives this agent, so that a later attempt can publish the command's output
    /// if this one cannot
    #[arg(long, env = "SQLFLOW_AGENT_KEEP_OUTPUT")]
    pub keep_output: bool,
    /// Timeout for a server: before the command starts, for a commit grant, and for the acknowledgement of the end,
    /// where it counts from the last record that a server took
    #[arg(long, env = "SQLFLOW_AGENT_LINGER", value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub linger: Duration,
    /// Soft limit of open files for the command and this agent [default: inherited]
    #[arg(long, env = "SQLFLOW_AGENT_OPEN_FILES", value_name = "N", value_parser = |text: &str| whole_number::<u64>(text, 64..=u64::MAX))]
    pub open_files: Option<u64>,
    /// The programs inherit only what says how to run on this machine, and these variables: NAME or BEGINNING*, with commas
    /// between them. Without this option they inherit everything but the credentials of storages
    #[arg(long, env = "SQLFLOW_AGENT_PASS_ENV", value_name = "NAMES")]
    pub pass_env: Option<PassedVariables>,
    /// User and group, by their numbers, as whom Python runs, which executes code of users; it gets no other groups. This
    /// agent must be root. The user must be able to enter the run folder
    #[arg(long, env = "SQLFLOW_AGENT_RUN_AS", value_name = "UID:GID")]
    pub run_as: Option<RunAs>,
    /// MiB in the run folder for records that no server takes, besides 8 MiB in memory
    #[arg(long, env = "SQLFLOW_AGENT_SPOOL_DISK", value_name = "MIB", default_value = "256", value_parser = |text: &str| whole_number::<u64>(text, 0..=(1 << 40) - 1))]
    pub spool_disk: u64,
    /// See above.
    #[command(flatten)]
    pub common: CommonOptions,
}

/// Options of `exec`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  sqlflow-agent exec -- python3 train.py
  sqlflow-agent exec --log-to /logs/run-17 --output out=file:///models/run-17.tar.gz -- python3 train.py
  sqlflow-agent exec --outcome /dev/termination-log --termination-grace 28 -- ./server")]
pub struct ExecOptions {
    /// Folder for the output: `stdout` and `stderr` byte for byte, `records.jsonl` with times and order
    #[arg(long, env = "SQLFLOW_AGENT_LOG_TO", value_name = "DIR")]
    pub log_to: Option<PathBuf>,
    /// Pack DIR atomically into a tarball at URI if the command succeeds: out=file:///models/m.tar.gz
    #[arg(long, value_name = "DIR=URI", value_parser = parse_output)]
    pub output: Vec<Output>,
    /// Unpack the tarball at URI into DIR before the command starts: file:///models/m.tar.gz=in
    #[arg(long, value_name = "URI=DIR", value_parser = parse_input)]
    pub input: Vec<Input>,
    /// Send spans to this OpenTelemetry collector by OTLP: over HTTP to port 4318 or a path that ends in /v1/traces, else
    /// over gRPC. They join the trace of TRACEPARENT if that is set, and the command gets a TRACEPARENT of its own [default: from OTEL_EXPORTER_OTLP_ENDPOINT and related variables]
    #[arg(long, env = "SQLFLOW_AGENT_TRACE", value_name = "URL", value_parser = parse_collector)]
    pub trace: Option<String>,
    /// Let the command send spans too: it gets the collector's address and the headers of OTEL_EXPORTER_OTLP_*, which
    /// may contain a key. Without this it gets none of these variables
    #[arg(long, env = "SQLFLOW_AGENT_TRACE_COMMAND")]
    pub trace_command: bool,
    /// Grace period between TERM and KILL for the command and its descendants; the agent finishes after it. Without
    /// this and --termination-grace everything ends within 10s
    #[arg(long, env = "SQLFLOW_AGENT_GRACE", value_name = "TIME", value_parser = duration)]
    pub grace: Option<Duration>,
    /// Timeout after the command's end for its remaining processes and their output
    #[arg(long, env = "SQLFLOW_AGENT_DRAIN", value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub drain: Duration,
    /// See above.
    #[command(flatten)]
    pub common: CommonOptions,
    /// The command and its arguments; no shell is involved
    #[arg(required = true, last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Options of `install`.
#[derive(Debug, Clone, Args)]
pub struct InstallOptions {
    /// Target folder; it must exist
    #[arg(value_name = "DIR", value_parser = parse_folder)]
    pub dir: PathBuf,
}

impl CommonOptions {
    /// How to copy the command's output, if the options say so.
    pub fn tee(&self) -> Option<TeeMode> {
        self.tee.or(self.mirror)
    }
}

impl AttachOptions {
    /// The attempt of the options, if they name one.
    pub fn attempt_ref(&self) -> Option<AttemptRef> {
        Some(AttemptRef { job_id: self.job.clone()?, step: self.step?, attempt: self.attempt? })
    }
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line
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
        _ => Err("the server is unix:///path/to/agent.sock or https://host:port".to_owned()),
    }
}

/// The id becomes part of folder names.
fn parse_job(id: &str) -> Result<String, String> {
    let fits = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    fits.then(|| id.to_owned()).ok_or_else(|| "a job id consists of letters, digits, `-` and `_`".to_owned())
}

fn parse_folder(path: &str) -> Result<PathBuf, String> {
    let folder = PathBuf::from(path);
    match std::fs::metadata(&folder) {
        Ok(found) if found.is_dir() => std::path::absolute(folder).map_err(|error| error.to_string()),
        Ok(_) => Err("not a folder".to_owned()),
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

/// `exec` has no workspace: its paths are relative to the root.
fn below_root(folder: &str) -> Result<String, String> {
    let absolute = std::path::absolute(folder).map_err(|error| format!("{folder:?}: {error}"))?;
    let text = absolute.to_str().ok_or("the folder's name is not UTF-8")?;
    Ok(text.trim_start_matches('/').to_owned())
}

/// Splits the URI of a tarball into folder and name.
fn tarball(uri: &str) -> Result<(String, String), String> {
    let (folder, name) = uri
        .strip_suffix(".tar.gz")
        .and_then(|uri| uri.rsplit_once('/'))
        .ok_or_else(|| format!("{uri:?} is not the URI of a .tar.gz file"))?;
    ModelLocation::new(folder, name)?;
    Ok((folder.to_owned(), name.to_owned()))
}

fn parse_collector(url: &str) -> Result<String, String> {
    let is_usable = Settings::for_collector(url, &|_: &str| None).is_ok();
    let example = "it is not the address of a collector, such as http://host:4317 or https://host/v1/traces";
    if is_usable { Ok(url.to_owned()) } else { Err(example.to_owned()) }
}

/// Prints help or a usage error. Returns the exit code.
pub fn usage_error(error: &clap::Error) -> ExitCode {
    // An error means that stderr is closed.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
}

/// Prints a fault before logging is initialized. Returns the exit code.
pub fn fault(why: &str) -> ExitCode {
    // An error means that stderr is closed.
    let _ = writeln!(std::io::stderr(), "sqlflow-agent: {why}");
    ExitCode::from(EXIT_FAULT)
}

impl Command {
    /// Timeout for exhaustion, such as of threads, before it runs. A person or a caller of `exec` rather gets an error
    /// at once.
    pub fn launch_timeout(&self) -> Duration {
        match self {
            Self::Attach(_) => LAUNCH_TIMEOUT,
            Self::Exec(_) | Self::Install(_) => Duration::ZERO,
        }
    }

    /// Format and default level of the agent's log: `exec` logs only warnings.
    pub fn logging(&self) -> (LogFormat, &'static str) {
        match self {
            Self::Attach(options) => (options.common.log_format.unwrap_or(LogFormat::Json), "info"),
            Self::Exec(options) => (options.common.log_format.unwrap_or(LogFormat::Text), "warn"),
            Self::Install(_) => (LogFormat::Text, "warn"),
        }
    }
}

/// Starts logging to stderr, with the filter of SQLFLOW_AGENT_LOG: `debug`, `info,opendal_core=off`. (The larger
/// `EnvFilter` would add a quarter of a megabyte to this program.)
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
        tracing::warn!("cannot parse SQLFLOW_AGENT_LOG: {error}; using the default");
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
    fn former_name_of_tee_counts_only_without_it() {
        let tee = |flags: &[&str]| {
            let words = [&["sqlflow-agent", "exec"], flags, &["--", "true"]].concat();
            let Command::Exec(options) = Cli::try_parse_from(words).unwrap().command else {
                panic!("it is exec")
            };
            options.common.tee()
        };
        assert_eq!(tee(&["--mirror", "lines"]), Some(TeeMode::Lines));
        // As for a local launcher's agent, with SQLFLOW_AGENT_MIRROR in the environment of the server.
        assert_eq!(tee(&["--mirror", "lines", "--tee", "none"]), Some(TeeMode::None));
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
