//! `sqlflowctl`, the command line of the SQLFlow job runner.
//!
//! - `args`: the command line. `commands`: the commands.
//! - `connection`: the server's address, and who the user is. `listener`: whose server it is. `own_server`: starts one.
//! - `client`, `follow`, `interrupt`: calls to the server, reading a job's log with retries, Ctrl+C.
//! - `render`: records to text or JSON, without I/O. `console`: the output.
//! - `token_store`, `token`: names of jobs. `failure`: errors and exit statuses. `manual`: manual pages and completion.

mod args;
mod client;
mod commands;
mod connection;
mod console;
mod failure;
mod follow;
mod interrupt;
mod listener;
mod manual;
mod own_server;
mod pager;
mod render;
mod terminal_text;
mod token;
mod token_store;
mod trace;

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match args::Cli::read() {
        Ok(cli) => cli,
        Err((text, status)) => {
            // The reader may be gone.
            let _ = write!(std::io::stderr(), "{text}");
            return ExitCode::from(u8::try_from(status).unwrap_or(2));
        }
    };
    let mut console = console::Console::new(cli.global.color);
    // The second thread waits for Ctrl+C, also while the first is blocked writing.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(cli, &mut console)),
        Err(error) => Err(failure::Failure::Other(anyhow::Error::new(error).context("cannot start"))),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            console.fail(&failure);
            ExitCode::from(failure.exit_status())
        }
    }
}
