//! `sqlflow-data`: the data process of an attempt. It runs the statements of a step in the user's database, and reports
//! to the agent over the submitter channel. For an extended statement it
//! stands beside the submitter, reads its select and writes its result table.
//!
//! ```text
//! agent ─ fd ─▶ channel ─▶ runner ─▶ Database (crate sqlflow-database)
//!                  ▲         │
//!                  └─ rows ◀─┘
//! ```

mod channel;
mod column_file;
mod console;
#[expect(unsafe_code)]
mod descriptor;
mod failure;
mod link;
mod panics;
mod redact;
mod requests;
mod rows;
mod runner;
mod select_columns;
mod serve;
mod shutdown;
mod span;
mod step;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [flag] if flag == "--version" => {
            print_line(concat!("sqlflow-data ", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
        [path] if !path.as_encoded_bytes().starts_with(b"-") => runner::run(path.as_ref()),
        _ => {
            print_line(
                "Usage: sqlflow-data STEP\n\nRuns the standard statements of the step document STEP (step.json). Agents \
                 start it. By hand, the data source is taken from SQLFLOW_DATASOURCE, and rows are printed.",
            );
            ExitCode::from(2)
        }
    }
}

/// Prints a line. Nobody may be reading it.
fn print_line(line: &str) {
    use std::io::Write as _;

    let _ = writeln!(std::io::stdout(), "{line}");
}
