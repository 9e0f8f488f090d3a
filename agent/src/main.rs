//! The agent's command line.

use std::process::ExitCode;

use clap::Parser as _;
use sqlflow_agent::cli::{self, Cli, Command};
use sqlflow_agent::run;
use sqlflow_agent::ship::mirror::Mirror;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::usage_error(&error),
    };
    let Command::Attach(options) = cli.command;
    // Log lines and the child's stderr share one writer, so that no stuck reader can stop the agent.
    let stderr = Mirror::spawn(std::io::stderr());
    cli::init_logging(options.log_format, stderr.clone());
    let code = run::attach(options, stderr.clone());
    stderr.flush();
    // Not by return: a thread that is stuck in a disk must not hold the process.
    std::process::exit(code.into())
}
