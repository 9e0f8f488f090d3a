//! Options of the server: from flags, the environment, or a TOML file, in this order of precedence. `locations` and
//! `values` check their values, `check` is `--check`, `toml_file` reads the TOML file.

mod access;
mod check;
mod confinement;
pub(crate) mod files;
mod kubernetes;
mod locations;
mod oidc;
mod run_as;
mod secrets_key;
mod toml_file;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use sqlflow_cli::{address, origin};
use sqlflow_job_store::Secret;
use sqlflow_os::inherited_variables::{PassedVariables, VariableNames};
use sqlflow_units::{duration, whole_number};

pub use access::{AccessArgs, TokenArgs};
use kubernetes::KUBERNETES_ONLY;
pub use kubernetes::KubernetesArgs;
pub use secrets_key::SecretsArgs;
use values::{bytes, client_address, web_url};

use crate::doctor;

/// Address of a listener that a server may do without. For clap, `Option` itself is an option without a default.
pub type OptionalAddress = Option<SocketAddr>;

/// Accepts SQL programs over gRPC, and executes their steps outside of its own process.
///
/// Every option may also be set in the environment (see [env: …]) or, under its long name, in the TOML file that
/// --config names, such as `listen = "0.0.0.0:50051"`. A flag wins over the environment, the environment over the
/// file.
#[derive(Debug, Clone, Parser)]
#[command(name = "sqlflow-server", version, args_override_self = true)]
pub struct Options {
    /// What to do; without it a server runs.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Check the configuration, print its problems, and exit; nothing is opened or created
    #[arg(long)]
    pub check: bool,

    /// TOML file with options
    #[arg(long, env = "SQLFLOW_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Address for clients (gRPC), such as localhost:50051; :50051 is all addresses of this machine. Port 0 takes a free
    /// one, which the log then names. Empty: none, and clients have --socket only
    #[arg(long, env = "SQLFLOW_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:50051", value_parser = client_address)]
    pub listen: OptionalAddress,

    /// Address for browsers and probes (HTTP): job pages, /healthz, /readyz, /metrics. Port 0 takes a free one
    #[arg(long, env = "SQLFLOW_HTTP_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:50080", value_parser = address::http_listen)]
    pub http_listen: SocketAddr,

    /// Where browsers find that address, for the links that clients get, such as https://sqlflow.example.com
    /// [default: http:// and the address]
    #[arg(long, env = "SQLFLOW_PUBLIC_URL", value_name = "URL", value_parser = web_url)]
    pub public_url: Option<String>,

    /// Where a job's trace is shown, with {trace} for its id, such as http://jaeger:16686/trace/{trace}
    #[arg(long, env = "SQLFLOW_TRACE_URL", value_name = "URL", value_parser = web_url)]
    pub trace_url: Option<String>,

    /// Let user code send spans: programs get the collector's address and headers of OTEL_EXPORTER_OTLP_*, which may hold
    /// a key
    #[arg(long, env = "SQLFLOW_TRACE_USER_CODE")]
    pub trace_user_code: bool,

    /// Folder for everything that the server keeps: jobs, logs, secrets. Created if missing, for this user only
    #[arg(
        long,
        env = "SQLFLOW_STATE_DIR",
        value_name = "DIR",
        default_value = "sqlflow-state",
        global = true
    )]
    pub state_dir: PathBuf,

    /// Where models are: file:///path, hdfs://host:port/path, webhdfs://host:port/path, s3://bucket/path, oss://, gs://
    /// or azblob:// [default: file://<state-dir>/models; with --launcher kubernetes it must be given]
    #[arg(long, env = "SQLFLOW_MODELS", value_name = "URI")]
    pub models: Option<String>,

    /// Data source of sessions that name none, such as sqlite:////home/ana/iris.db (the path of a file is absolute, with
    /// three slashes or four), mysql://user:password@tcp(host:3306)/db or postgresql://user:password@host:5432/db
    #[arg(
        long,
        env = "SQLFLOW_SERVER_DATASOURCE",
        value_name = "DSN",
        default_value = "",
        hide_env_values = true
    )]
    pub datasource: Secret,

    /// Python that runs submitters; it must be able to import sqlflow_submitter [default: the first that can, of the
    /// active virtual environment (VIRTUAL_ENV), ../lib/sqlflow/venv beside this program's folder, and python3 on PATH; in
    /// Pods python3]
    #[arg(long, env = "SQLFLOW_PYTHON", value_name = "PROGRAM")]
    pub python: Option<String>,

    /// The sqlflow-agent program [default: the one beside this program]
    #[arg(long, env = "SQLFLOW_AGENT", value_name = "FILE")]
    pub agent: Option<PathBuf>,

    /// How many attempts run at a time as processes of this machine; the others wait, those of older jobs first. 0: no
    /// limit [default: the number of cores]
    #[arg(long, env = "SQLFLOW_MAX_RUNNING", value_name = "NUMBER", value_parser = |text: &str| whole_number::<usize>(text, 0..=u64::MAX))]
    pub max_running: Option<usize>,

    /// Whether the Python of submitters, which runs code of users, is kept by Landlock from other processes and, on this
    /// machine, from the state folder and the job's SQLite file; in a Pod, from the files with the agent's credentials
    #[arg(long, env = "SQLFLOW_CONFINE", value_name = "WHEN", default_value = "auto")]
    pub confine: ConfineOption,

    /// User, by name or number, as whom the Python of jobs runs on this machine, which runs code of users; the server must be
    /// root [default: the server's own user]
    #[arg(long, env = "SQLFLOW_RUN_AS", value_name = "USER")]
    pub run_as: Option<String>,

    /// Variables of the server's environment that programs of local jobs inherit, besides those that say how to run on this
    /// machine, such as PATH and LANG: NAME or BEGINNING*. Credentials of model storages are never inherited
    #[arg(long, env = "SQLFLOW_PASS_ENV", value_name = "NAME", value_delimiter = ',')]
    pub pass_env: Vec<VariableNames>,

    /// Time without a fetch after which a job is cancelled, unless its session sets another; 0: never
    #[arg(long, env = "SQLFLOW_FETCH_TIMEOUT", value_name = "TIME", default_value = "0", value_parser = duration)]
    pub fetch_timeout: Duration,

    /// Grace period between SIGTERM and SIGKILL when a job is cancelled
    #[arg(long, env = "SQLFLOW_GRACE", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub grace: Duration,

    /// Timeout for attaching, from an agent's launch [default: 30s; in Pods 2m]
    #[arg(long, env = "SQLFLOW_ATTACH_TIMEOUT", value_name = "TIME", value_parser = duration)]
    pub attach_timeout: Option<Duration>,

    /// Time that a finished agent waits for a server, from its last acknowledged record, before it leaves its outcome on disk
    #[arg(long, env = "SQLFLOW_LINGER", value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub linger: Duration,

    /// Time after which a server that nobody uses ends: no call of a client, no web page, no job that has not ended; 0:
    /// never
    #[arg(long, env = "SQLFLOW_EXIT_WHEN_IDLE", value_name = "TIME", default_value = "0", value_parser = duration)]
    pub exit_when_idle: Duration,

    /// What becomes of jobs that have not ended when the server ends by SIGTERM or Ctrl+C
    #[arg(long, env = "SQLFLOW_ON_EXIT", value_name = "WHAT", default_value = "leave")]
    pub on_exit: OnExitOption,

    /// Time without a heartbeat after which other servers claim a server's jobs
    #[arg(long, env = "SQLFLOW_LEASE", value_name = "TIME", default_value = "15s", value_parser = duration)]
    pub lease: Duration,

    /// Retention time of ended jobs and their logs
    #[arg(long, env = "SQLFLOW_RETAIN_JOBS", value_name = "TIME", default_value = "7d", value_parser = duration)]
    pub retain_jobs: Duration,

    /// Output (stdout and stderr) kept for each job; beyond it the oldest is dropped, with a notice in the log
    #[arg(long, env = "SQLFLOW_RETAIN_OUTPUT", value_name = "SIZE", default_value = "1GiB", value_parser = bytes)]
    pub retain_output: u64,

    /// Maximum size of a log in the state's database; a larger one gets its own folder
    #[arg(long, env = "SQLFLOW_SMALL_LOG", value_name = "SIZE", default_value = "64KiB", value_parser = bytes)]
    pub small_log: u64,

    /// Maximum size of a job's log, with rows; a job that exceeds it fails
    #[arg(long, env = "SQLFLOW_MAX_LOG", value_name = "SIZE", default_value = "16GiB", value_parser = bytes)]
    pub max_log: u64,

    /// Where submitters run
    #[arg(long, env = "SQLFLOW_LAUNCHER", value_name = "LAUNCHER", default_value = "local")]
    pub launcher: LauncherOption,

    /// Form of the server's own log, on standard error. Levels are set by RUST_LOG
    #[arg(long, env = "SQLFLOW_LOG_FORMAT", value_name = "FORM", default_value = "text")]
    pub log_format: LogFormat,

    /// Origins of values.
    #[arg(skip)]
    origins: Origins,

    /// Options for access.
    #[command(flatten)]
    pub access: AccessArgs,

    /// Options for the key of secrets.
    #[command(flatten)]
    pub secrets: SecretsArgs,

    /// Options of the kubernetes launcher. Last, since what follows would have their heading.
    #[command(flatten)]
    pub kubernetes: KubernetesArgs,
}

/// Origin of each option's value, as text.
#[derive(Debug, Clone, Default)]
struct Origins(BTreeMap<String, String>);

impl Origins {
    fn of(matches: &ArgMatches, file: Option<&Path>) -> Self {
        let command = Options::command();
        let named = command.get_arguments().filter_map(|arg| Some((arg.get_long()?.to_owned(), arg)));
        Self(named.map(|(name, arg)| (name, origin::of(matches, arg, file))).collect())
    }
}

/// Subcommands; without one, a server runs.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// List what is wrong with a state folder, and repair it with --repair
    ///
    /// It works beside running servers and without any. Without --repair nothing is changed. Each finding is one line:
    /// its kind, the job, since when, what is wrong, and what can be done.
    Doctor(doctor::Args),
    /// Make an access token, and print it once
    ///
    /// The token file gets only its hash. A running server knows the new token within a second.
    Token(TokenArgs),
}

/// Where submitters run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LauncherOption {
    /// As processes of this machine
    Local,
    /// In Pods
    Kubernetes,
}

/// Whether submitters are confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConfineOption {
    /// As far as the kernel can
    Auto,
    /// Always; without Linux 6.12 and Landlock the server does not start, or the attempt in its Pod
    Require,
    /// Never
    Off,
}

/// What becomes of jobs when the server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnExitOption {
    /// They continue, and the next server of the state folder takes them up
    Leave,
    /// They are cancelled, and the server ends when nothing of them is left, at most 12 seconds after --grace
    Cancel,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Options {
    /// Reads the command line, the environment and the file. Ends the process for `--help` and usage errors, as
    /// clap does.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or has an unknown option; or the launcher does not read a given flag.
    pub fn read() -> anyhow::Result<Self> {
        let args: Vec<OsString> = std::env::args_os().collect();
        let first = matches(&args, None);
        let read = Self::of(args, &first);
        match read {
            // Without a subcommand the caller reports the error.
            Err(error) if first.subcommand().is_some() => {
                Self::command().error(ErrorKind::InvalidValue, format!("{error:#}")).exit()
            }
            read => read,
        }
    }

    fn of(args: Vec<OsString>, first: &ArgMatches) -> anyhow::Result<Self> {
        let file = first.get_one::<PathBuf>("config");
        let mut options = match file {
            Some(file) => Self::with_file(args, file, first)?,
            None => Self::from_arg_matches(first)?,
        };
        options.origins = Origins::of(first, file.map(PathBuf::as_path));
        match options.command {
            Some(_) => Self::refuse_server_flags(first)?,
            None => options.refuse_unread(first)?,
        }
        Ok(options)
    }

    /// Origin of the value of the option with this long name: the flag, the variable, or the key in the file.
    #[must_use]
    pub fn origin(&self, option: &str) -> String {
        self.origins.0.get(option).cloned().unwrap_or_else(|| format!("--{option}"))
    }

    /// What programs of local jobs inherit of the server's environment.
    pub(crate) fn passed_variables(&self) -> PassedVariables {
        PassedVariables::new(self.pass_env.clone())
    }

    /// Implements `--check`. Nothing is opened or created.
    pub async fn check(&self) -> ExitCode {
        check::run(self).await
    }

    /// Refuses a server's flags with a subcommand.
    fn refuse_server_flags(flags: &ArgMatches) -> anyhow::Result<()> {
        let command = Self::command();
        let mut arguments = command.get_arguments().filter(|arg| !arg.is_global_set());
        match arguments.find(|arg| is_given(flags, arg)).and_then(Arg::get_long) {
            Some(flag) => bail!("--{flag} is for a server; leave it out"),
            None => Ok(()),
        }
    }

    fn with_file(args: Vec<OsString>, file: &Path, first: &ArgMatches) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| {
            let origin = Origins::of(first, None).0.remove("config");
            let origin = origin.unwrap_or_default();
            format!("cannot read the configuration file {} (from {origin})", file.display())
        })?;
        let from_file = toml_file::args(&text).with_context(|| format!("in {}", file.display()))?;
        // Flags come later and override what the file says.
        Ok(Self::from_arg_matches(&matches(&args, Some((file, &from_file))))?)
    }

    /// Refuses a flag that the launcher does not read. The file and the environment may be shared by several servers.
    fn refuse_unread(&self, flags: &ArgMatches) -> anyhow::Result<()> {
        let command = Self::command();
        let mut unread = command
            .get_arguments()
            .filter(|arg| arg.get_help_heading() == Some(KUBERNETES_ONLY))
            .filter(|arg| is_given(flags, arg))
            .filter_map(Arg::get_long);
        match (self.launcher, unread.next()) {
            (LauncherOption::Local, Some(flag)) => {
                bail!("--{flag} is for --launcher kubernetes, and the launcher is local")
            }
            (LauncherOption::Kubernetes, _)
                if flags.value_source("run_as") == Some(ValueSource::CommandLine) =>
            {
                bail!("--run-as is for --launcher local; in Pods set runAsUser in the file of --pod-template")
            }
            _ => Ok(()),
        }
    }
}

/// Whether the flag is on the command line.
fn is_given(flags: &ArgMatches, arg: &Arg) -> bool {
    let id = arg.get_id().as_str();
    flags.try_contains_id(id).is_ok() && flags.value_source(id) == Some(ValueSource::CommandLine)
}

/// Parses a command line, with the file's options as flags before it. Ends the process for `--help` and for errors, which
/// name the origin of a wrong value.
fn matches(args: &[OsString], file: Option<(&Path, &[String])>) -> ArgMatches {
    let command = Options::command();
    let from_file = file.map(|(_, flags)| flags).unwrap_or_default();
    let (program, flags) = args.split_at(args.len().min(1));
    let all =
        program.iter().cloned().chain(from_file.iter().map(OsString::from)).chain(flags.iter().cloned());
    match command.clone().try_get_matches_from(all) {
        Ok(matches) => matches,
        Err(error) if error.use_stderr() => {
            // The reader may be gone.
            let _ = write!(std::io::stderr(), "{}", origin::named(&error, &command, args, file));
            std::process::exit(error.exit_code())
        }
        Err(error) => error.exit(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_well_formed() {
        Options::command().debug_assert();
    }

    #[test]
    fn flag_overrides_the_file() {
        let from_file = toml_file::args("listen = \"127.0.0.1:1\"\ngrace = \"3s\"\n").unwrap();
        let args =
            ["sqlflow-server".to_owned()].into_iter().chain(from_file).chain(["--grace=5s".to_owned()]);
        let options = Options::parse_from(args);
        assert_eq!(options.grace, Duration::from_secs(5));
        assert_eq!(options.listen.unwrap().port(), 1);
    }

    #[test]
    fn flag_of_another_launcher_is_refused() {
        let read = |launcher: &str, flag: &str| {
            let flags = Options::command().get_matches_from(["sqlflow-server", launcher, flag]);
            let options = Options::from_arg_matches(&flags).unwrap();
            options.refuse_unread(&flags).map_err(|error| error.to_string())
        };
        assert!(read("--launcher=local", "--pod-image=x").unwrap_err().contains("--pod-image"));
        assert_eq!(read("--launcher=kubernetes", "--pod-image=x"), Ok(()));
        assert!(read("--launcher=kubernetes", "--run-as=x").unwrap_err().contains("--pod-template"));
        assert_eq!(read("--launcher=local", "--log-format=json"), Ok(()));
    }

    #[test]
    fn doctor_accepts_the_state_folder_and_no_server_flags() {
        let read = |args: &[&str]| {
            let args: Vec<OsString> = ["sqlflow-server"].iter().chain(args).map(Into::into).collect();
            let first = Options::command().get_matches_from(&args);
            Options::of(args, &first).map_err(|error| error.to_string())
        };
        for args in [["doctor", "--state-dir=/s"], ["--state-dir=/s", "doctor"]] {
            let options = read(&args).unwrap();
            assert!(matches!(options.command, Some(Command::Doctor(_))), "{args:?}");
            assert_eq!(options.state_dir, Path::new("/s"), "{args:?}");
        }
        assert!(read(&["--grace=3s", "doctor"]).unwrap_err().contains("--grace is for a server"));
        assert!(read(&["--state-dir=/s"]).unwrap().command.is_none());

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server.toml");
        std::fs::write(&file, "state-dir = '/in-file'\nlisten = '127.0.0.1:1'").unwrap();
        let config = format!("--config={}", file.display());
        assert_eq!(read(&["doctor", &config]).unwrap().state_dir, Path::new("/in-file"));
        assert_eq!(read(&["doctor", &config, "--state-dir=/s"]).unwrap().state_dir, Path::new("/s"));
    }
}
