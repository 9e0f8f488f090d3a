//! The real binary of the command line against a stand-in for the server.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod faults;
mod interrupts;
mod naming;
mod results;
mod stand_in;
mod terminal;
mod usage;

use std::process::{Child, Command, Output, Stdio};

use sqlflow_proto::v1::log_chunk::Stream;
use sqlflow_proto::v1::response::Response as Kind;
use sqlflow_proto::v1::{Column, Head, Int64s, LogChunk, Rows, column::Values};
use stand_in::StandIn;
use tempfile::TempDir;

/// A server, and a home folder for the command.
struct World {
    server: StandIn,
    home: TempDir,
}

impl World {
    fn new() -> Self {
        Self { server: StandIn::start(), home: tempfile::tempdir().unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sqlflowctl"));
        self.with(&mut command);
        command.args(arguments);
        command
    }

    /// Starts it with SIGINT ignored, as a script starts background processes.
    fn background(&self, arguments: &[&str]) -> Child {
        self.spawn_by_env("--ignore-signal=INT", arguments)
    }

    /// Starts it with the default for SIGINT, which the test runner may ignore.
    fn spawn(&self, arguments: &[&str]) -> Child {
        self.spawn_by_env("--default-signal=INT", arguments)
    }

    fn spawn_by_env(&self, signal: &str, arguments: &[&str]) -> Child {
        let mut command = Command::new("/usr/bin/env");
        self.with(&mut command);
        command.args([signal, env!("CARGO_BIN_EXE_sqlflowctl")]).args(arguments).spawn().unwrap()
    }

    fn with(&self, command: &mut Command) {
        command
            .env_clear()
            .env("SQLFLOW_SERVER", self.server.address.to_string())
            .env("XDG_STATE_HOME", self.home.path())
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn head() -> Kind {
    Kind::Head(Head { column_names: vec!["n".into()], column_types: vec![] })
}

fn rows(values: impl IntoIterator<Item = i64>) -> Kind {
    let values: Vec<i64> = values.into_iter().collect();
    let count = values.len() as u32;
    let column = Column { values: Some(Values::Int64s(Int64s { values })), ..Column::default() };
    Kind::Rows(Rows { count, columns: vec![column] }.into())
}

fn log(bytes: &'static [u8]) -> Kind {
    log_of(Stream::Stdout, bytes)
}

fn log_of(stream: Stream, bytes: &'static [u8]) -> Kind {
    Kind::Log(LogChunk { data: bytes.into(), stream: stream.into(), ..LogChunk::default() })
}

/// The numbers in the rows of a printed table with one column.
fn numbers(table: &str) -> Vec<i64> {
    table.lines().filter_map(|line| line.trim().parse().ok()).collect()
}
