//! The agent's command line.

use std::process::ExitCode;

use clap::Parser as _;
use sqlflow_agent::cli::{self, Cli, Command};
use sqlflow_agent::output::WhenFull;
use sqlflow_agent::output::tee::{Role, Tee};
use sqlflow_agent::{commands, exhaustion, install, process};

fn main() -> ExitCode {
    // First, since threads inherit the signal mask.
    if let Err(error) = process::signals::block() {
        return cli::fault(&format!("cannot block signals: {error}"));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::usage_error(&error),
    };
    let role = match &cli.command {
        // The output itself: nothing is dropped for a slow reader, unless the options say so.
        Command::Exec(options) => Role::Output { waits: options.common.when_full == WhenFull::Block },
        // A copy: a stuck reader does not block the agent.
        Command::Attach(_) | Command::Install(_) => Role::Copy,
    };
    let timeout = cli.command.launch_timeout();
    let spawned =
        exhaustion::retry_exhaustion(timeout, || Ok(Tee::spawn(std::io::stdout(), "stdout", role)?))
            .and_then(|stdout| {
                let spawn = || Ok(Tee::spawn(std::io::stderr(), "stderr", role)?);
                Ok([stdout, exhaustion::retry_exhaustion(timeout, spawn)?])
            });
    let tees = match spawned {
        Ok(tees) => tees,
        Err(error) => return cli::fault(&format!("cannot start a thread: {error}")),
    };
    // Log lines and the command's stderr share one writer.
    let stderr = tees[1].clone();
    cli::init_logging(cli.command.logging(), stderr.clone());
    let code = match cli.command {
        Command::Attach(options) => commands::attach(*options, tees),
        Command::Exec(options) => commands::exec(*options, tees),
        Command::Install(options) => install::install(&options.dir),
    };
    stderr.flush_log();
    // Not by return: a thread that hangs in a file operation must not delay the exit.
    std::process::exit(code.into())
}
