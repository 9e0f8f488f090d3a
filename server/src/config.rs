//! The server's options: by flag, by environment, or in a TOML file, in this order of precedence.

mod check;
mod file;
pub(crate) mod files;

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
use sqlflow_units::duration;

use crate::doctor;

/// Takes SQL programs over gRPC and runs each statement's program outside of itself.
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

    /// Read the configuration, say what is wrong with it, and end; nothing is opened or made
    #[arg(long)]
    pub check: bool,

    /// TOML file with options
    #[arg(long, env = "SQLFLOW_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Address for clients (gRPC), such as localhost:50051; :50051 is all addresses of this machine. Port 0 takes a free
    /// one, which the log then names
    #[arg(long, env = "SQLFLOW_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:50051", value_parser = address::listen)]
    pub listen: SocketAddr,

    /// Address for browsers and probes (HTTP): job pages, /healthz, /readyz, /metrics. Port 0 takes a free one
    #[arg(long, env = "SQLFLOW_HTTP_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:50080", value_parser = address::listen)]
    pub http_listen: SocketAddr,

    /// Where browsers find that address, for the links that clients get, such as https://sqlflow.example.com
    /// [default: http:// and the address]
    #[arg(long, env = "SQLFLOW_PUBLIC_URL", value_name = "URL", value_parser = web_url)]
    pub public_url: Option<String>,

    /// Where a job's trace is shown, with {trace} for its id, such as http://jaeger:16686/trace/{trace}
    #[arg(long, env = "SQLFLOW_TRACE_URL", value_name = "URL", value_parser = web_url)]
    pub trace_url: Option<String>,

    /// Folder for everything that the server keeps: jobs, logs, secrets. Made if it is not there, for this user only
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
    #[arg(long, env = "SQLFLOW_MAX_RUNNING", value_name = "NUMBER")]
    pub max_running: Option<usize>,

    /// A job is cancelled when nobody fetches it for so long, unless its session says otherwise; 0: never
    #[arg(long, env = "SQLFLOW_FETCH_TIMEOUT", value_name = "TIME", default_value = "0", value_parser = duration)]
    pub fetch_timeout: Duration,

    /// Time between TERM and KILL when a job is cancelled
    #[arg(long, env = "SQLFLOW_GRACE", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub grace: Duration,

    /// How long an agent that was started may take until it attaches [default: 30s; in Pods 2m]
    #[arg(long, env = "SQLFLOW_ATTACH_TIMEOUT", value_name = "TIME", value_parser = duration)]
    pub attach_timeout: Option<Duration>,

    /// How long an agent that is done waits for a server, from the last record that one took, before it leaves its outcome on disk
    #[arg(long, env = "SQLFLOW_LINGER", value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub linger: Duration,

    /// How long a server may be silent before another takes its jobs
    #[arg(long, env = "SQLFLOW_LEASE", value_name = "TIME", default_value = "15s", value_parser = duration)]
    pub lease: Duration,

    /// How long jobs that ended, and their logs, are kept
    #[arg(long, env = "SQLFLOW_RETAIN_JOBS", value_name = "TIME", default_value = "7d", value_parser = duration)]
    pub retain_jobs: Duration,

    /// Output (stdout and stderr) kept for each job; beyond it the oldest is dropped, and the log says so
    #[arg(long, env = "SQLFLOW_RETAIN_OUTPUT", value_name = "SIZE", default_value = "1GiB", value_parser = bytes)]
    pub retain_output: u64,

    /// A job's log of up to so many bytes is kept in the state's database, a longer one in a folder of its own
    #[arg(long, env = "SQLFLOW_SMALL_LOG", value_name = "SIZE", default_value = "64KiB", value_parser = bytes)]
    pub small_log: u64,

    /// All that a job's log may hold, rows included; a job that says more fails
    #[arg(long, env = "SQLFLOW_MAX_LOG", value_name = "SIZE", default_value = "16GiB", value_parser = bytes)]
    pub max_log: u64,

    /// Where submitters run
    #[arg(long, env = "SQLFLOW_LAUNCHER", value_name = "LAUNCHER", default_value = "local")]
    pub launcher: LauncherKind,

    /// Form of the server's own log, on standard error. Levels are set by RUST_LOG
    #[arg(long, env = "SQLFLOW_LOG_FORMAT", value_name = "FORM", default_value = "text")]
    pub log_format: LogFormat,

    /// Where values came from.
    #[arg(skip)]
    origins: Origins,

    /// Options of the kubernetes launcher. Last, since what follows would have their heading.
    #[command(flatten)]
    pub kubernetes: KubernetesArgs,
}

/// Where the value of each option came from, for a person.
#[derive(Debug, Clone, Default)]
struct Origins(BTreeMap<String, String>);

impl Origins {
    fn of(matches: &ArgMatches, file: Option<&Path>) -> Self {
        let command = Options::command();
        let named = command.get_arguments().filter_map(|arg| Some((arg.get_long()?.to_owned(), arg)));
        Self(named.map(|(name, arg)| (name, origin::of(matches, arg, file))).collect())
    }
}

/// What to do besides running a server.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// List what is wrong with a state folder, and repair it with --repair
    ///
    /// It works beside running servers and without any. Without --repair nothing is changed. Each finding is one line:
    /// its kind, the job, since when, what is wrong, and what can be done.
    Doctor(doctor::Args),
}

/// Where submitters run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LauncherKind {
    /// As processes of this machine
    Local,
    /// In Pods
    Kubernetes,
}

/// The heading of options that no other launcher reads.
const KUBERNETES_ONLY: &str = "With --launcher kubernetes";

/// Options of the kubernetes launcher.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = KUBERNETES_ONLY)]
pub struct KubernetesArgs {
    /// Address that agents in Pods attach to, always with TLS
    #[arg(long, env = "SQLFLOW_AGENT_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:7443", value_parser = address::listen)]
    pub agent_listen: SocketAddr,

    /// Certificate chain of that address (PEM), taken anew when it is renewed; it must be valid for the host of --agent-url
    #[arg(long, env = "SQLFLOW_AGENT_CERT", value_name = "FILE")]
    pub agent_cert: Option<PathBuf>,

    /// Its key (PEM)
    #[arg(long, env = "SQLFLOW_AGENT_KEY", value_name = "FILE")]
    pub agent_key: Option<PathBuf>,

    /// Where Pods reach that address, such as https://sqlflow-server.sqlflow.svc:7443
    #[arg(long, env = "SQLFLOW_AGENT_URL", value_name = "URL")]
    pub agent_url: Option<String>,

    /// ConfigMap in the Pods' namespace whose key ca.crt holds what the certificate is signed by
    #[arg(long, env = "SQLFLOW_AGENT_CA", value_name = "NAME", default_value = "sqlflow-ca")]
    pub agent_ca: String,

    /// Namespace of the Pods [default: the server's own]
    #[arg(long, env = "SQLFLOW_POD_NAMESPACE", value_name = "NAME")]
    pub pod_namespace: Option<String>,

    /// Image of submitters
    #[arg(long, env = "SQLFLOW_POD_IMAGE", value_name = "IMAGE")]
    pub pod_image: Option<String>,

    /// Image that brings the agent to an image of submitters that has none
    #[arg(long, env = "SQLFLOW_POD_AGENT_IMAGE", value_name = "IMAGE")]
    pub pod_agent_image: Option<String>,

    /// YAML file that is laid over every Pod: resources, node selector, volumes, labels. Its container is `submitter`
    #[arg(long, env = "SQLFLOW_POD_TEMPLATE", value_name = "FILE")]
    pub pod_template: Option<PathBuf>,

    /// YAML file with the spec of a PersistentVolumeClaim. Steps that train work on a volume of their own by it: a model
    /// that cannot be published outlives its Pod, and is published by another [default: work goes with the Pod]
    #[arg(long, env = "SQLFLOW_WORKSPACE_CLAIM", value_name = "FILE")]
    pub workspace_claim: Option<PathBuf>,

    /// What statements may set for their Pods by attributes pod.cpu, pod.memory, pod.gpu and pod.image
    #[arg(
        long,
        env = "SQLFLOW_POD_ATTRIBUTES",
        value_name = "NAMES",
        default_value = "cpu,memory,gpu",
        value_delimiter = ','
    )]
    pub pod_attributes: Vec<String>,

    /// A Pod that runs longer is ended; 0: none is
    #[arg(long, env = "SQLFLOW_POD_DEADLINE", value_name = "TIME", default_value = "0", value_parser = duration)]
    pub pod_deadline: Duration,

    /// Pods stay until their outcome is stored, whoever deletes them
    #[arg(long, env = "SQLFLOW_POD_FINALIZER", value_name = "BOOL", default_value = "true", action = clap::ArgAction::Set)]
    pub pod_finalizer: bool,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl KubernetesArgs {
    /// The options that this launcher cannot do without and that are not set.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let needed = [
            ("--agent-cert: agents are not served without TLS", self.agent_cert.is_none()),
            ("--agent-key", self.agent_key.is_none()),
            ("--agent-url", self.agent_url.is_none()),
            ("--pod-image", self.pod_image.is_none()),
        ];
        needed.into_iter().filter(|(_, is_missing)| *is_missing).map(|(name, _)| name).collect()
    }
}

impl Options {
    /// Reads the command line, the environment and the file. Ends the process for `--help` and usage errors, as
    /// clap does.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, or names an option that there is not; a flag was given that the launcher does
    /// not read.
    pub fn read() -> anyhow::Result<Self> {
        let args: Vec<OsString> = std::env::args_os().collect();
        let first = matches(&args, None);
        let read = Self::of(args, &first);
        match read {
            // A server that cannot start ends as it always did.
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

    /// The place that the option with this long name has its value from: the flag, the variable, or the key in the file.
    #[must_use]
    pub fn origin(&self, option: &str) -> String {
        self.origins.0.get(option).cloned().unwrap_or_else(|| format!("--{option}"))
    }

    /// Says what is wrong with the configuration, for `--check`. Nothing is opened or made.
    pub async fn check(&self) -> ExitCode {
        check::run(self).await
    }

    /// Refuses flags of a server beside a subcommand.
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
        let from_file = file::args(&text).with_context(|| format!("in {}", file.display()))?;
        // Flags come later and override what the file says.
        Ok(Self::from_arg_matches(&matches(&args, Some((file, &from_file))))?)
    }

    /// Refuses a flag that the launcher does not read. The file and the environment may serve several.
    fn refuse_unread(&self, flags: &ArgMatches) -> anyhow::Result<()> {
        let command = Self::command();
        let mut unread = command
            .get_arguments()
            .filter(|arg| arg.get_help_heading() == Some(KUBERNETES_ONLY))
            .filter(|arg| is_given(flags, arg))
            .filter_map(Arg::get_long);
        match (self.launcher, unread.next()) {
            (LauncherKind::Local, Some(flag)) => {
                bail!("--{flag} is for --launcher kubernetes, and the launcher is local")
            }
            _ => Ok(()),
        }
    }

    /// Checks the form of `--datasource`, if it is given.
    ///
    /// # Errors
    /// It is of no form that submitters know.
    pub fn check_data_source(&self) -> anyhow::Result<()> {
        if self.datasource.expose().is_empty() {
            return Ok(());
        }
        let checked = sqlflow_data_source::dialect(self.datasource.expose()).map(drop);
        checked.with_context(|| format!("cannot use the data source (from {})", self.origin("datasource")))
    }

    /// Why every job that names no data source of its own would fail on this machine; `None`: nothing speaks for it.
    #[must_use]
    pub fn missing_data_source(&self) -> Option<String> {
        let is_local = self.launcher == LauncherKind::Local;
        let why = sqlflow_data_source::missing_sqlite_file(self.datasource.expose()).filter(|_| is_local)?;
        Some(format!("cannot use the data source (from {}): {why}", self.origin("datasource")))
    }

    /// What is strange about the data source, and no error.
    #[must_use]
    pub fn doubtful_data_source(&self) -> Option<String> {
        let is_local = self.launcher == LauncherKind::Local;
        let path = sqlflow_data_source::new_sqlite_file(self.datasource.expose()).filter(|_| is_local)?;
        let from = self.origin("datasource");
        Some(format!(
            "SQLite file {} (from {from}) does not exist; the first program that makes a table makes it",
            path.display()
        ))
    }

    /// Where models are.
    ///
    /// # Errors
    /// The URI is not of a form that the agent can publish to; there is none, and agents do not share this machine's files.
    pub fn models_uri(&self, state_dir: &Path) -> anyhow::Result<String> {
        let uri = match (&self.models, self.launcher) {
            (Some(uri), _) => uri.trim_end_matches('/').to_owned(),
            (None, LauncherKind::Local) => format!("file://{}/models", state_dir.display()),
            // It would be found out when a model is trained and cannot be saved.
            (None, LauncherKind::Kubernetes) => bail!(
                "--launcher kubernetes needs --models (SQLFLOW_MODELS): Pods do not see the server's files; name a storage \
                 such as s3://bucket/models, or file:///path of a shared volume that --pod-template mounts"
            ),
        };
        let from = self.origin("models");
        let (scheme, rest) = uri.split_once("://").unwrap_or(("", &uri));
        if rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
            bail!("{from} holds no credentials; agents have them from their environment");
        }
        if !MODEL_STORAGES.contains(&scheme) {
            let known = MODEL_STORAGES.map(|scheme| format!("{scheme}://")).join(", ");
            bail!("{from} {uri} is not supported: it begins with one of {known}");
        }
        if scheme == "file" && !rest.starts_with('/') {
            bail!("{from} {uri}: file:// needs an absolute path");
        }
        Ok(uri)
    }
}

/// Whether the command line has this flag.
fn is_given(flags: &ArgMatches, arg: &Arg) -> bool {
    let id = arg.get_id().as_str();
    flags.try_contains_id(id).is_ok() && flags.value_source(id) == Some(ValueSource::CommandLine)
}

/// What the agent can publish to.
const MODEL_STORAGES: [&str; 7] = ["file", "hdfs", "webhdfs", "s3", "oss", "gs", "azblob"];

/// Reads a command line, with what the file says as flags before it. Ends the process for `--help` and for errors, which name the place that a wrong value came from.
fn matches(args: &[OsString], file: Option<(&Path, &[String])>) -> ArgMatches {
    let command = Options::command();
    let from_file = file.map(|(_, flags)| flags).unwrap_or_default();
    let (program, flags) = args.split_at(args.len().min(1));
    let all =
        program.iter().cloned().chain(from_file.iter().map(OsString::from)).chain(flags.iter().cloned());
    match command.clone().try_get_matches_from(all) {
        Ok(matches) => matches,
        Err(error) if error.use_stderr() => {
            // Who reads it may be gone.
            let _ = write!(std::io::stderr(), "{}", origin::named(&error, &command, args, file));
            std::process::exit(error.exit_code())
        }
        Err(error) => error.exit(),
    }
}

/// It goes into links: nothing but a web page may be behind it.
fn web_url(text: &str) -> Result<String, String> {
    let is_web =
        ["http://", "https://"].iter().any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
    is_web.then(|| text.to_owned()).ok_or_else(|| format!("{text:?} does not begin with http:// or https://"))
}

/// `1048576`, `512KiB`, `64MiB`, `1GiB`.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| format!("{text:?} is no size; write 512KiB, 64MiB or 1GiB"))?;
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        other => return Err(format!("{other:?} is no unit of size; use KiB, MiB, GiB or TiB")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_well_formed() {
        Options::command().debug_assert();
    }

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("soon").is_err() && duration("5y").is_err() && duration("-1s").is_err());
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert!(bytes("1GB").is_err() && bytes("").is_err() && bytes("99999999999TiB").is_err());
    }

    #[test]
    fn a_flag_overrides_the_file() {
        let from_file = file::args("listen = \"127.0.0.1:1\"\ngrace = \"3s\"\n").unwrap();
        let args =
            ["sqlflow-server".to_owned()].into_iter().chain(from_file).chain(["--grace=5s".to_owned()]);
        let options = Options::parse_from(args);
        assert_eq!(options.grace, Duration::from_secs(5));
        assert_eq!(options.listen.port(), 1);
    }

    #[test]
    fn a_flag_that_the_launcher_does_not_read_is_refused() {
        let read = |launcher: &str, flag: &str| {
            let flags = Options::command().get_matches_from(["sqlflow-server", launcher, flag]);
            let options = Options::from_arg_matches(&flags).unwrap();
            options.refuse_unread(&flags).map_err(|error| error.to_string())
        };
        assert!(read("--launcher=local", "--pod-image=x").unwrap_err().contains("--pod-image"));
        assert_eq!(read("--launcher=kubernetes", "--pod-image=x"), Ok(()));
        assert_eq!(read("--launcher=local", "--log-format=json"), Ok(()));
    }

    #[test]
    fn the_doctor_takes_the_state_folder_and_no_flag_of_a_server() {
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

    #[test]
    fn pods_have_their_models_where_somebody_said() {
        let uri = |flags: &[&str]| {
            let options = Options::parse_from([&["sqlflow-server"], flags].concat());
            options.models_uri(Path::new("/state")).map_err(|error| error.to_string())
        };
        assert_eq!(uri(&["--launcher=local"]).as_deref(), Ok("file:///state/models"));
        let error = uri(&["--launcher=kubernetes"]).unwrap_err();
        assert!(error.contains("--models") && error.contains("SQLFLOW_MODELS"), "{error}");
        let shared = uri(&["--launcher=kubernetes", "--models=file:///shared/models"]);
        assert_eq!(shared.as_deref(), Ok("file:///shared/models"));
    }
}
