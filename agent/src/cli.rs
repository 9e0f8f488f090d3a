//! Flags and environment.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sqlflow_proto::agent::AttemptRef;
use tonic::transport::Endpoint;
use tracing_subscriber::EnvFilter;

use crate::ship::mirror::Mirror;

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
  65                 a fault that the command's code does not tell of: no server, refused, no input, not published
  0                  also when another agent runs this attempt already
Every flag can also be given in the environment, as SQLFLOW_AGENT_ and its name."
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
    Attach(AttachOptions),
}

/// Flags of `attach`.
#[derive(Debug, Clone, Args)]
pub struct AttachOptions {
    /// Server to attach to: unix:///path/to/agent.sock
    #[arg(long, env = "SQLFLOW_AGENT_SERVER", value_name = "URL", value_parser = parse_server)]
    pub server: Endpoint,
    /// Job of the attempt
    #[arg(long, env = "SQLFLOW_AGENT_JOB", value_name = "JOBID", value_parser = parse_job)]
    pub job: String,
    /// Step of the attempt, from 0
    #[arg(long, env = "SQLFLOW_AGENT_STEP", value_name = "N")]
    pub step: u32,
    /// Number of the attempt, from 1
    #[arg(long, env = "SQLFLOW_AGENT_ATTEMPT", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: u32,
    /// Run folder of the attempt; it must exist
    #[arg(long, env = "SQLFLOW_AGENT_DIR", value_name = "RUN_DIR", value_parser = parse_folder)]
    pub dir: PathBuf,
    /// How long to wait for a server before the command starts, for a commit grant, and for the end to be acknowledged
    #[arg(long, env = "SQLFLOW_AGENT_LINGER", value_name = "SECS", default_value = "600", value_parser = parse_seconds)]
    pub linger: Duration,
    /// How long to try again when the storage fails while a model is published
    #[arg(long, env = "SQLFLOW_AGENT_PUBLISH_RETRY", value_name = "SECS", default_value = "60", value_parser = parse_seconds)]
    pub publish_retry: Duration,
    /// Do not repeat the command's output on the agent's own stdout and stderr
    #[arg(long, env = "SQLFLOW_AGENT_NO_MIRROR")]
    pub no_mirror: bool,
    /// How log lines on stderr look
    #[arg(long, env = "SQLFLOW_AGENT_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
}

impl AttachOptions {
    /// The attempt that the flags name.
    pub fn attempt_ref(&self) -> AttemptRef {
        AttemptRef { job_id: self.job.clone(), step: self.step, attempt: self.attempt }
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
        _ => Err("the server must be given as unix:///path/to/agent.sock".to_owned()),
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
        Err(error) => Err(format!("{error}; the launcher makes it before it starts the agent")),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "a number of seconds is needed, such as 600 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Prints help or what is wrong, and gives the exit code.
pub fn usage_error(error: &clap::Error) -> ExitCode {
    // Nobody is there to be told that stderr is closed.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
}

/// Log lines go to stderr; SQLFLOW_AGENT_LOG holds the filter (`info` by default).
pub fn init_logging(format: LogFormat, stderr: Mirror) {
    let filter = EnvFilter::try_from_env("SQLFLOW_AGENT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || stderr.clone());
    match format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.with_ansi(false).init(),
    }
}

#[cfg(test)]
mod tests {
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
    fn what_cannot_work_is_refused_before_anything_is_done() {
        assert!(parse("unix:///tmp/agent.sock", "01jx-a", "/tmp").is_ok());
        assert!(parse("http://example.com", "j", "/tmp").is_err());
        assert!(parse("unix:///tmp/agent.sock", "../j", "/tmp").is_err());
        let error = parse("unix:///tmp/agent.sock", "j", "/no/such/folder").unwrap_err().to_string();
        assert!(error.contains("/no/such/folder") && error.contains("launcher"), "{error}");
    }
}
