//! The clients that are published on PyPI, unchanged, each in a Python of its own.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Their names on PyPI.
pub const CLIENTS: [&str; 2] = ["sqlflow", "sqlflowcli"];

/// Runs a program, or reads the job of a token, and prints the tables as JSON to standard error. The client itself prints
/// messages to standard output.
pub const SCRIPT: &str = r#"
import json, sys
import sqlflow.proto.sqlflow_pb2 as pb
from sqlflow._version import VERSION
from sqlflow.client import Client

address, how, what = sys.argv[1:]
client = Client(server_url=address)
if how == "run":
    result = client.execute(what)
else:
    result = client.read_fetch_response(what if VERSION < (0, 15, 2) else pb.Job(id=what))
tables = [[table.column_names(), list(table.rows())] for table, _, _ in result._messages] if result else []
print(json.dumps(tables, default=str), file=sys.stderr)
"#;

/// A client's Python with these arguments.
///
/// # Panics
/// No variable names the clients.
pub fn client(name: &str, arguments: &[&str]) -> Command {
    let folder = std::env::var("SQLFLOW_TEST_PUBLISHED").expect("`make test` names the published clients");
    let mut command = Command::new(format!("{folder}-{name}/bin/python"));
    command.args(arguments).stdin(Stdio::null()).env("SQLFLOW_USER_ID", "ana").env("COLUMNS", "200");
    command
}

/// Runs a program (`run`), or reads the job of a token (`fetch`), by a client.
///
/// # Panics
/// It cannot be started.
pub fn run(name: &str, address: &str, how: &str, what: &str) -> Output {
    client(name, &["-c", SCRIPT, address, how, what]).output().expect("`make venv` has made it")
}

/// The tables, and what was printed.
///
/// # Panics
/// The client failed.
pub fn shown(output: &Output) -> (Value, String) {
    let [out, error] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
    assert!(output.status.success(), "{out}\n{error}");
    let tables = error.lines().last().unwrap_or_default();
    (serde_json::from_str(tables).unwrap_or_else(|_| panic!("{error}")), out)
}
