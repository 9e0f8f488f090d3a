//! The command line's arguments.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use sqlflow_cli::origin;
use sqlflow_proto::v1::job_status::Code;
use sqlflow_units::{duration, whole_seconds};

use crate::connection::ConnectionArgs;
use crate::render::result_set::Expand;

/// Run SQL programs as jobs of a SQLFlow server, and read their results.
#[derive(Debug, Parser)]
#[command(
    name = "sqlflowctl",
    version,
    arg_required_else_help = true,
    after_help = "\
A JOB is a token, a token with a cursor (sqlflow….42), the id of a job that was started on this machine or the first
characters of one (at least 4), such an id with a cursor, or `last` for the newest of these jobs.

Exit status: 0 the job succeeded; 1 it failed, with the cause on standard error; 2 wrong usage, a program that the
server refuses, or an unknown job; 3 the server cannot be reached or is at fault; 4 the job was cancelled; 130
interrupted; 141 standard output was closed.

On a terminal, list, describe, logs, parse and models use $PAGER (default: less).

Examples:
  sqlflowctl run -f iris.sql
  sqlflowctl run -e 'SELECT * FROM iris LIMIT 3' --output csv > iris.csv
  TOKEN=$(sqlflowctl run --detach -f train.sql); sqlflowctl fetch $TOKEN
  sqlflowctl logs -f last"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Reads the command line and the environment. The error has the message and the exit status.
    pub(crate) fn read() -> Result<Self, (String, i32)> {
        let args: Vec<OsString> = std::env::args_os().collect();
        let command = Self::command();
        let read = command.clone().try_get_matches_from(&args).and_then(|matches| {
            let mut cli = Self::from_arg_matches(&matches)?;
            if let Some(arg) = command.get_arguments().find(|arg| arg.get_id() == "datasource") {
                cli.global.datasource_origin = origin::of(&matches, arg, None);
            }
            Ok(cli)
        });
        match read {
            Ok(cli) => Ok(cli),
            Err(error) if error.use_stderr() => {
                Err((origin::named(&error, &command, &args, None), error.exit_code()))
            }
            Err(error) => error.exit(),
        }
    }
}

/// Options of all commands.
#[derive(Debug, Args)]
pub(crate) struct Global {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// Data source of a program, for `run`: sqlite:////home/ana/iris.db (an absolute path on the server's machine),
    /// mysql://user:password@tcp(host:3306)/db or postgresql://user:password@host:5432/db. Keep passwords in the
    /// environment
    #[arg(long, global = true, value_name = "DSN", env = "SQLFLOW_DATASOURCE", hide_env_values = true)]
    pub(crate) datasource: Option<String>,
    /// When to print colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
    /// Output format. text: tables. json: one JSON object per line, for scripts; integers beyond ±(2^53-1), decimals,
    /// dates and times (ISO 8601) are strings, blobs are strings like \x00ff. csv: rows only, as in RFC 4180; NULL is
    /// an empty field, an empty string is "", and an empty line separates result sets
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
    /// When to print rows as records, one line per value; auto: if the table is wider than the terminal and has more
    /// than two columns
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Expand::Auto)]
    pub(crate) expanded: Expand,
    /// Disable the pager
    #[arg(long, global = true)]
    pub(crate) no_pager: bool,
    /// Source of the data source's value, for errors.
    #[arg(skip)]
    pub(crate) datasource_origin: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
    Csv,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a program and print its output until it ends
    ///
    /// Rows are printed on standard output; the job's own output, progress and messages on standard error. Ctrl+C
    /// cancels the job and waits for its end; a second Ctrl+C exits at once. If standard output is closed, as by `|
    /// head`, the job is cancelled too, except with --detach.
    Run(Run),
    /// Read the results of a job until it ends
    ///
    /// With a plain token or job id, the server stores the cursor: each page is printed once, and a later `fetch`
    /// continues after it. With a cursor, reading begins there. Ctrl+C stops reading; it does not cancel the job.
    Fetch(Fetch),
    /// Print a job's standard output and standard error from the start, byte for byte
    Logs(Logs),
    /// Cancel a job
    Cancel(JobArgument),
    /// List jobs, newest first
    List(List),
    /// Show a job with its steps and attempts
    Describe(JobArgument),
    /// Store the address of a server and an access token, which is read from standard input, for later commands
    ///
    /// The server must accept the token. Both are in $XDG_CONFIG_HOME/sqlflow/login.json, which only the user can read.
    Login,
    /// Remove what login stored
    Logout,
    /// List, show, copy and delete trained models, without a server
    ///
    /// The model storage is accessed directly, with the credentials of this environment; docs/storage.md lists the
    /// variables.
    Models(ModelArguments),
    /// Check a program without a server, and print its statements as JSON
    Parse(Parse),
    /// Print a completion script for a shell
    Completion(Completion),
    /// Write the manual pages of sqlflowctl to a folder
    Man {
        /// Folder; created if it does not exist
        folder: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sqlflowctl run iris.sql --datasource sqlite:////home/ana/iris.db
  echo 'SHOW TABLES' | sqlflowctl run -f -
  sqlflowctl run -e 'SELECT 1; SELECT 2' --quiet")]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) program: Program,
    /// Print the job's token on standard output and exit
    #[arg(long)]
    pub(crate) detach: bool,
    /// User who runs the program; shown in listings [default: $USER]
    #[arg(long, env = "SQLFLOW_USER_ID")]
    pub(crate) user: Option<String>,
    /// Fetch timeout: the server cancels the job if no client fetches from it for this time (30s, 5m); 0: no timeout
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    pub(crate) fetch_timeout: Option<u32>,
    /// Do not store the job's token (by default, ~/.local/state/sqlflow/tokens holds the last 1,000)
    #[arg(long)]
    pub(crate) no_remember: bool,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Program {
    /// File with the program; `-` is standard input
    #[arg(value_name = "FILE")]
    path: Option<PathBuf>,
    /// File with the program, as an option
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Text of the program
    #[arg(short, long, value_name = "SQL", allow_hyphen_values = true)]
    execute: Option<String>,
}

/// Source of a program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ProgramSource<'a> {
    /// The command line.
    Text(&'a str),
    /// A file, or standard input for `-`.
    File(&'a Path),
}

impl Program {
    /// The source of the program. Clap ensures that one of the arguments is set.
    pub(crate) fn source(&self) -> ProgramSource<'_> {
        match (&self.execute, self.file.as_deref().or(self.path.as_deref())) {
            (Some(text), _) => ProgramSource::Text(text),
            (None, file) => ProgramSource::File(file.unwrap_or(Path::new("-"))),
        }
    }
}

/// Options for reading and printing results.
#[derive(Debug, Args)]
pub(crate) struct Reading {
    /// Hide the job's own output, messages and progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Save plots and other displays to files sqlflow-JOB-N.EXT in this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) save_displays: Option<PathBuf>,
    /// On a terminal, print control sequences of the job's own output unchanged, such as colours; by default they are shown
    /// as \x1b…, since they could change what the terminal shows, or type for you
    #[arg(long)]
    pub(crate) raw: bool,
    /// Timeout for retries while the server does not answer
    #[arg(long, alias = "patience", value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) retry_timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Fetch {
    /// Token, token with cursor, job id, or `last`
    pub(crate) job: String,
    /// Fetch one page, and print the token for the next one
    #[arg(long)]
    pub(crate) once: bool,
    /// Begin with the job's first result
    #[arg(long)]
    pub(crate) from_start: bool,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Token, job id, or `last`
    pub(crate) job: String,
    /// Continue until the job ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// On a terminal, print control sequences of the output unchanged, such as colours; by default they are shown as \x1b…
    #[arg(long)]
    pub(crate) raw: bool,
    /// Timeout for retries while the server does not answer
    #[arg(long, alias = "patience", value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) retry_timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct JobArgument {
    /// Token, job id, or `last`
    pub(crate) job: String,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// List jobs of this user only
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) user: String,
    /// List jobs in this state only; may be repeated
    #[arg(long, value_enum)]
    pub(crate) state: Vec<State>,
    /// Maximum number of jobs
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum State {
    Pending,
    Running,
    Succeeded,
    Failed,
    Cancelled,
    Unknown,
}

impl From<State> for Code {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Running => Self::Running,
            State::Succeeded => Self::Succeeded,
            // The job's cause distinguishes the two.
            State::Failed | State::Cancelled => Self::Failed,
            State::Unknown => Self::Unknown,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sqlflowctl models --at hdfs://namenode:9000/models list
  SQLFLOW_MODELS=s3://bucket/models sqlflowctl models get team/flowers ./flowers")]
pub(crate) struct ModelArguments {
    /// Model storage, in the form of the server's --models
    #[arg(long, value_name = "URI", env = "SQLFLOW_MODELS")]
    pub(crate) at: Option<String>,
    #[command(subcommand)]
    pub(crate) command: ModelCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// List models by name
    List,
    /// Show a model's program, metrics and files; this reads and checks the whole model
    Show {
        /// Name of the model
        name: String,
    },
    /// Copy a model to a folder, as NAME.tar.gz and sqlflow.gob
    Get {
        /// Name of the model
        name: String,
        /// Folder; created if it does not exist
        folder: PathBuf,
    },
    /// Delete a model permanently
    Delete {
        /// Name of the model
        name: String,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sqlflowctl completion bash > ~/.local/share/bash-completion/completions/sqlflowctl
  sqlflowctl completion zsh > ~/.zfunc/_sqlflowctl
  sqlflowctl completion fish > ~/.config/fish/completions/sqlflowctl.fish")]
pub(crate) struct Completion {
    /// Shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Parse {
    #[command(flatten)]
    pub(crate) program: Program,
    /// SQL dialect of the database: mysql, postgresql or sqlite
    #[arg(long, default_value = "mysql")]
    pub(crate) dialect: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_of_arguments_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_may_precede_or_follow_the_command() {
        for line in [
            ["sqlflowctl", "--datasource", "d", "run", "-e", "SELECT 1"],
            ["sqlflowctl", "run", "-e", "SELECT 1", "--datasource", "d"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.global.datasource.as_deref(), Some("d"));
        }
    }

    #[test]
    fn program_may_begin_with_a_comment() {
        let cli =
            Cli::try_parse_from(["sqlflowctl", "run", "-e", "-- a comment\nSELECT 1", "--quiet"]).unwrap();
        let Command::Run(run) = cli.command else { panic!("expected run") };
        assert_eq!(run.program.source(), ProgramSource::Text("-- a comment\nSELECT 1"));
        assert!(run.reading.quiet);
    }

    #[test]
    fn times_accept_units() {
        for (retry, fetch) in [("90", "300"), ("90s", "5m"), ("1m30s", "300s")] {
            let times = ["--retry-timeout", retry, "--fetch-timeout", fetch];
            let line = [&["sqlflowctl", "run", "-e", "SELECT 1"], &times[..]].concat();
            let Command::Run(run) = Cli::try_parse_from(line).unwrap().command else { unreachable!() };
            assert_eq!((run.reading.retry_timeout, run.fetch_timeout), (Duration::from_secs(90), Some(300)));
        }
        let soon = Cli::try_parse_from(["sqlflowctl", "logs", "last", "--retry-timeout", "soon"]);
        assert!(soon.unwrap_err().to_string().contains("is not a duration; write 20s"));
    }

    #[test]
    fn old_name_of_retry_timeout_is_a_hidden_alias() {
        for command in ["run", "fetch", "logs"] {
            let line = ["sqlflowctl", command, "last", "--patience", "5s"];
            let timeout = match Cli::try_parse_from(line).unwrap().command {
                Command::Run(Run { reading, .. }) | Command::Fetch(Fetch { reading, .. }) => {
                    reading.retry_timeout
                }
                Command::Logs(logs) => logs.retry_timeout,
                other => panic!("{other:?}"),
            };
            assert_eq!(timeout, Duration::from_secs(5));
            let help = Cli::command().find_subcommand_mut(command).unwrap().render_long_help().to_string();
            assert!(help.contains("--retry-timeout") && !help.contains("patience"), "{help}");
        }
    }

    #[test]
    fn run_and_parse_accept_exactly_one_program() {
        for command in ["run", "parse"] {
            let read = |arguments: &[&str]| {
                Cli::try_parse_from([&["sqlflowctl", command], arguments].concat()).map(|cli| cli.command)
            };
            for (arguments, expected) in [
                (&["x.sql"][..], ProgramSource::File(Path::new("x.sql"))),
                (&["-f", "x.sql"], ProgramSource::File(Path::new("x.sql"))),
                (&["-"], ProgramSource::File(Path::new("-"))),
                (&["-e", "SELECT 1"], ProgramSource::Text("SELECT 1")),
            ] {
                let (Command::Run(Run { program, .. }) | Command::Parse(Parse { program, .. })) =
                    read(arguments).unwrap()
                else {
                    panic!("{command} {arguments:?}")
                };
                assert_eq!(program.source(), expected);
            }
            for wrong in [&[][..], &["-e", "SELECT 1", "-f", "x.sql"], &["x.sql", "-f", "x.sql"], &["a", "b"]]
            {
                assert!(read(wrong).is_err(), "{command} {wrong:?}");
            }
        }
    }
}
