//! Steps that are run without an agent.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

fn run(data_source: Option<&str>) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let step = r#"{"version": 1, "statements": [{"index": 0, "kind": "standard", "sql": "SELECT 1 AS a, 'x' AS b"}]}"#;
    fs::write(dir.path().join("step.json"), step).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sqlflow-data"));
    command
        .arg("step.json")
        .current_dir(&dir)
        .env_remove("SQLFLOW_DATASOURCE")
        .env_remove("SQLFLOW_CHANNEL_FD");
    command.envs(data_source.map(|it| ("SQLFLOW_DATASOURCE", it))).output().unwrap()
}

#[test]
fn rows_are_printed() {
    let output = run(Some("sqlite:///:memory:"));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "a\tb\n1\tx\n");
    assert_eq!((output.stderr, output.status.code()), (Vec::new(), Some(0)));
}

#[test]
fn missing_data_source_is_an_error_with_a_fix() {
    let output = run(None);
    let expected = "cannot start: there is no agent, and no data source; set SQLFLOW_DATASOURCE, such as \
                    sqlite:////data/iris.db\n";
    assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
    assert_eq!(output.status.code(), Some(1));
}

/// The kernel shows it by the owner of the files about the process: root, if it is not dumpable.
#[test]
fn memory_is_closed_to_other_processes_of_the_user() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("data");
    // By another process: a program that a test of another thread starts would inherit the open file, and the kernel
    // starts no file that is open for writing.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_sqlflow-data")).arg(&program).status().unwrap();
    assert!(copied.success());
    for path in [dir.path(), &program] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    let [first, second] =
        ["SELECT 1", endless].map(|sql| format!(r#"{{"index": 0, "kind": "standard", "sql": "{sql}"}}"#));
    let step = format!(r#"{{"version": 1, "statements": [{first}, {second}]}}"#);
    fs::write(dir.path().join("step.json"), step).unwrap();
    let mut command = Command::new(&program);
    command.arg("step.json").current_dir(&dir).env("SQLFLOW_DATASOURCE", "sqlite:///:memory:");
    if nix::unistd::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut head = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut head).unwrap();
    let owner = fs::metadata(format!("/proc/{}/environ", process.id())).map(|it| it.uid());
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!((head.as_str(), owner.unwrap()), ("1\n", 0));
}
