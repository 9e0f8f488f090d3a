//! The clients that are published on PyPI, unchanged, each in a Python of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
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

/// Executes cells in an IPython kernel, and prints what each showed as a line of JSON.
const NOTEBOOK: &str = r#"
import json, sys
from jupyter_client.manager import KernelManager

manager = KernelManager()
manager.start_kernel()
client = manager.client()
client.start_channels()
try:
    client.wait_for_ready(timeout=60)
    for cell in sys.argv[1:]:
        outputs = []
        reply = client.execute_interactive(cell, allow_stdin=False, timeout=120, output_hook=outputs.append)
        contents = [output["content"] for output in outputs]
        data = [content.get("data", {}) for content in contents]
        texts = [content.get("text", "") for content in contents] + [it.get("text/plain", "") for it in data]
        texts += [line for content in contents for line in content.get("traceback", [])]
        html = [it["text/html"] for it in data if "text/html" in it]
        print(json.dumps({"status": reply["content"]["status"], "text": "\n".join(texts), "html": "\n".join(html)}))
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
"#;

/// Each client by each of its ways to read results: what runs a program, and what reads the job of a token.
#[must_use]
pub fn ways<'a>(program: &'a str, token: &'a str) -> [(&'static str, &'static str, &'a str); 4] {
    let [first, second] = CLIENTS;
    [(first, "run", program), (first, "fetch", token), (second, "run", program), (second, "fetch", token)]
}

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

/// Starts a client, and kills it as soon as it has printed a line with this text.
///
/// # Panics
/// It ends before.
pub fn kill_once_printed(name: &str, address: &str, how: &str, what: &str, text: &str) {
    let mut command = client(name, &["-c", SCRIPT, address, how, what]);
    let started = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut running = started.expect("`make venv` has made it");
    let lines = BufReader::new(running.stdout.take().expect("it is piped")).lines();
    let is_printed = lines.map_while(Result::ok).any(|line| line.contains(text));
    running.kill().expect("it is a child");
    running.wait().expect("it is a child");
    assert!(is_printed, "{name} has not printed {text:?}");
}

/// Executes cells in an IPython kernel of a client, with its files in `home`. Returns the `status`, `text` and `html`
/// of each.
///
/// # Panics
/// The kernel does not start, or does not answer.
#[must_use]
pub fn notebook(name: &str, home: &Path, address: &str, source: &str, cells: &[&str]) -> Vec<Value> {
    let mut command = client(name, &["-c", NOTEBOOK]);
    command.args(cells).env("SQLFLOW_SERVER", address).env("SQLFLOW_DATASOURCE", source);
    command.env("HOME", home).env("IPYTHONDIR", home.join(name));
    let output = command.output().expect("`make venv` has made it");
    assert!(output.status.success(), "{name}: {output:?}");
    let out = String::from_utf8_lossy(&output.stdout);
    let lines = out.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).expect("it is JSON")).collect()
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
