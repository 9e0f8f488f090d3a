//! `sqlflow-manual DIR` writes the manual pages of `sqlflow-server` and `sqlflow-agent`; `make install` runs it. It is a
//! program of its own, so that neither of them has to carry the code, nor the command line to link them.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory as _;
use sqlflow_cli::manual::write_pages;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        let _ = writeln!(std::io::stderr(), "usage: sqlflow-manual DIR");
        return ExitCode::from(2);
    };
    for program in [sqlflow_server::config::Options::command(), sqlflow_agent::cli::Cli::command()] {
        let name = program.get_name().to_owned();
        if let Err(error) = write_pages(program, &folder) {
            let folder = folder.display();
            let _ =
                writeln!(std::io::stderr(), "cannot write the manual pages of {name} into {folder}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
