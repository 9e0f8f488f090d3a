//! The command line's arguments.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use sqlflow_cli::{address, origin};
use sqlflow_proto::v1::job_status::Code;
use sqlflow_units::{duration, whole_seconds};

use crate::render::result_set::Expand;

/// Run SQL programs as jobs of a SQLFlow server, and read what they say.
#[derive(Debug, Parser)]
#[command(
    name = "sqlflowctl",
    version,
    arg_required_else_help = true,
    after_help = "\
A JOB is a token, a token with a cursor (sqlflow….42), the id of a job that was started on this machine or the first
characters of one (at least 4), such an id with a cursor, or `last` for the newest of them.

Exit status: 0 the job succeeded; 1 it failed, with the cause on standard error; 2 wrong usage, a program that the
server refuses, or an unknown job; 3 the server cannot be reached or is at fault; 4 the job was cancelled; 130
interrupted; 141 standard output was closed.

On a terminal, list, describe, logs, parse and models are shown by $PAGER (less, if it is not set).

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
    /// Reads the command line and the environment. The error is what the person reads, and the exit status.
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

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The server's address: HOST:PORT, :PORT for this machine, or http://HOST:PORT
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS",
        env = "SQLFLOW_SERVER",
        default_value = "http://127.0.0.1:50051",
        value_parser = address::server_url
    )]
    pub(crate) server: String,
    /// The data source of a program, such as sqlite:////home/ana/iris.db (the path is absolute, and the server's) or
    /// mysql://user:password@tcp(host:3306)/db; for `run`. Keep passwords in the environment
    #[arg(long, global = true, value_name = "DSN", env = "SQLFLOW_DATASOURCE", hide_env_values = true)]
    pub(crate) datasource: Option<String>,
    /// When to colour what is printed; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
    /// text: tables for people. json: one JSON object per line for scripts; integers beyond ±(2^53-1), decimals,
    /// dates and times (ISO 8601) are strings, blobs are strings of the form \x00ff. csv: rows alone, as RFC 4180 says;
    /// NULL is an empty field, an empty text is "", and an empty line parts result sets
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
    /// When to show rows as records, one line for each value; auto: when a table is wider than the terminal, and has more
    /// than two columns
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Expand::Auto)]
    pub(crate) expanded: Expand,
    /// Do not start a pager
    #[arg(long, global = true)]
    pub(crate) no_pager: bool,
    /// Where the data source came from.
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
    /// Run a program and print what it says until it ends
    ///
    /// Rows go to standard output; the job's own output, progress and messages go to standard error. Ctrl+C asks the
    /// server to cancel the job and waits for its end; a second Ctrl+C leaves at once. When standard output is
    /// closed, as by `| head`, the job is cancelled too; with --detach it never is.
    Run(Run),
    /// Go on reading a job's results until it ends
    ///
    /// With a plain token or job id the server keeps the place: each page is shown once, and a later `fetch` goes on
    /// after it. With a cursor it begins there. Ctrl+C ends the reading, never the job.
    Fetch(Fetch),
    /// Print what a job wrote to its standard output and error, byte for byte, from the start
    Logs(Logs),
    /// Ask for the end of a job
    Cancel(JobArgument),
    /// List jobs, newest first
    List(List),
    /// Show a job with its steps and attempts
    Describe(JobArgument),
    /// List, show, copy and delete trained models, without a server
    ///
    /// The storage is asked directly, with the credentials of this environment: docs/storage.md names the variables.
    Models(ModelArguments),
    /// Check a program as `run` does, and print its statements as JSON, without a server
    Parse(Parse),
    /// Print the commands that teach a shell to complete this command line
    Completion(Completion),
    /// Write the manual pages of sqlflowctl into a folder
    Man {
        /// The folder; it is made
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
    /// Print the job's token on standard output and leave the job to itself
    #[arg(long)]
    pub(crate) detach: bool,
    /// Who runs the program; shown in listings [default: $USER]
    #[arg(long, env = "SQLFLOW_USER_ID")]
    pub(crate) user: Option<String>,
    /// Let the server cancel the job when nobody has fetched it for so long (30s, 5m); 0: never
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    pub(crate) fetch_timeout: Option<u32>,
    /// Keep no record of the job's token (else ~/.local/state/sqlflow/tokens holds the last 1,000)
    #[arg(long)]
    pub(crate) no_remember: bool,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Program {
    /// The file of the program; `-` is standard input
    #[arg(value_name = "FILE")]
    path: Option<PathBuf>,
    /// The same, as an option
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The program itself
    #[arg(short, long, value_name = "SQL", allow_hyphen_values = true)]
    execute: Option<String>,
}

/// Where a program is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ProgramSource<'a> {
    /// Here.
    Text(&'a str),
    /// In this file, or in standard input for `-`.
    File(&'a Path),
}

impl Program {
    /// Where the program is. One of the arguments is always there.
    pub(crate) fn source(&self) -> ProgramSource<'_> {
        match (&self.execute, self.file.as_deref().or(self.path.as_deref())) {
            (Some(text), _) => ProgramSource::Text(text),
            (None, file) => ProgramSource::File(file.unwrap_or(Path::new("-"))),
        }
    }
}

/// How results are read and shown.
#[derive(Debug, Args)]
pub(crate) struct Reading {
    /// Hide the job's own output, its messages and its progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Save plots and other displays as files sqlflow-JOB-N.EXT in this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) save_displays: Option<PathBuf>,
    /// Timeout for retries while the server does not answer
    #[arg(long, alias = "patience", value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) retry_timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Fetch {
    /// Token, token with cursor, job id, or `last`
    pub(crate) job: String,
    /// Fetch one page, and say with which token to go on
    #[arg(long)]
    pub(crate) once: bool,
    /// Begin at the start of the job's results
    #[arg(long)]
    pub(crate) from_start: bool,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Token, job id, or `last`
    pub(crate) job: String,
    /// Go on until the job ends
    #[arg(short, long)]
    pub(crate) follow: bool,
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
    /// Only jobs of this user
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) user: String,
    /// Only jobs in this state; may be repeated
    #[arg(long, value_enum)]
    pub(crate) state: Vec<State>,
    /// At most so many jobs
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
            // See its cause.
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
    /// Where the models are, as the server's --models says
    #[arg(long, value_name = "URI", env = "SQLFLOW_MODELS")]
    pub(crate) at: Option<String>,
    #[command(subcommand)]
    pub(crate) command: ModelCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// List models by name
    List,
    /// Show the program that made a model, its measurements and its files; it is read whole, and so checked
    Show {
        /// The model's name
        name: String,
    },
    /// Copy a model into a folder, as SQLFlow's own tools read it: NAME.tar.gz and sqlflow.gob
    Get {
        /// The model's name
        name: String,
        /// The folder; it is made
        folder: PathBuf,
    },
    /// Delete a model for good
    Delete {
        /// The model's name
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
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Parse {
    #[command(flatten)]
    pub(crate) program: Program,
    /// How the database reads SQL: mysql, postgresql or sqlite
    #[arg(long, default_value = "mysql")]
    pub(crate) dialect: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_arguments_go_before_or_after_the_command() {
        for line in [
            ["sqlflowctl", "--datasource", "d", "run", "-e", "SELECT 1"],
            ["sqlflowctl", "run", "-e", "SELECT 1", "--datasource", "d"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.global.datasource.as_deref(), Some("d"));
        }
    }

    #[test]
    fn a_program_may_begin_with_a_comment() {
        let cli =
            Cli::try_parse_from(["sqlflowctl", "run", "-e", "-- a comment\nSELECT 1", "--quiet"]).unwrap();
        let Command::Run(run) = cli.command else { panic!("it is run") };
        assert_eq!(run.program.source(), ProgramSource::Text("-- a comment\nSELECT 1"));
        assert!(run.reading.quiet);
    }

    #[test]
    fn times_are_written_as_everywhere() {
        for (retry, fetch) in [("90", "300"), ("90s", "5m"), ("1m30s", "300s")] {
            let times = ["--retry-timeout", retry, "--fetch-timeout", fetch];
            let line = [&["sqlflowctl", "run", "-e", "SELECT 1"], &times[..]].concat();
            let Command::Run(run) = Cli::try_parse_from(line).unwrap().command else { unreachable!() };
            assert_eq!((run.reading.retry_timeout, run.fetch_timeout), (Duration::from_secs(90), Some(300)));
        }
        let soon = Cli::try_parse_from(["sqlflowctl", "logs", "last", "--retry-timeout", "soon"]);
        assert!(soon.unwrap_err().to_string().contains("is no time; write 20s"));
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
    fn run_and_parse_take_one_program_in_the_same_forms() {
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
