//! Configuration of the server: wrong values, their origins, and `--check`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// The server in its own folder, without options in its environment.
fn server(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sqlflow-server"));
    command.current_dir(dir);
    for (name, _) in std::env::vars() {
        if name.starts_with("SQLFLOW_") || name.starts_with("OTEL_") || name == "VIRTUAL_ENV" {
            command.env_remove(name);
        }
    }
    command
}

fn error(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn error_for_a_wrong_value_names_its_origin() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.toml");
    fs::write(&file, "grace = 'soon'\n").unwrap();

    let on_command_line = error(&server(dir.path()).arg("--grace=soon").output().unwrap());
    assert!(
        on_command_line.starts_with("error: invalid value 'soon' for '--grace <TIME>': "),
        "{on_command_line}"
    );
    let in_environment = error(&server(dir.path()).env("SQLFLOW_GRACE", "soon").output().unwrap());
    let expected =
        "invalid value 'soon' for '--grace <TIME>' (from the environment variable SQLFLOW_GRACE): ";
    assert!(in_environment.contains(expected), "{in_environment}");
    let in_file = error(&server(dir.path()).arg("--config").arg(&file).output().unwrap());
    let expected = format!("for '--grace <TIME>' (from grace in {}): ", file.display());
    assert!(in_file.contains(&expected), "{in_file}");

    for (name, value, part) in [
        (
            "SQLFLOW_LISTEN",
            "localhost",
            "(from the environment variable SQLFLOW_LISTEN): the port is missing",
        ),
        ("SQLFLOW_LAUNCHER", "slurm", "(from the environment variable SQLFLOW_LAUNCHER)"),
        ("SQLFLOW_SERVER_DATASOURCE", "oracle://u:hunter2@h/d", "(from SQLFLOW_SERVER_DATASOURCE)"),
        ("SQLFLOW_MODELS", "ftp://x/y", "SQLFLOW_MODELS ftp://x/y is not supported"),
        ("SQLFLOW_CONFIG", "/no/file.toml", "/no/file.toml (from SQLFLOW_CONFIG): No such file"),
    ] {
        let said = error(&server(dir.path()).env(name, value).output().unwrap());
        assert!(said.contains(part) && !said.contains("hunter2"), "{name}: {said}");
    }
}

#[test]
fn unknown_option_in_the_file_gets_a_suggestion() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.toml");
    fs::write(&file, "http_listen = 'localhost:0'\n").unwrap();
    let said = error(&server(dir.path()).arg("--config").arg(&file).output().unwrap());
    let expected =
        format!("error: in {}: there is no option \"http_listen\"; write http-listen\n", file.display());
    assert_eq!(said, expected);
}

/// An agent with its data process, and a Python, that pass `--check`.
fn programs(dir: &Path) -> [String; 2] {
    use std::os::unix::fs::PermissionsExt as _;
    let [agent, data, python] = ["agent", "sqlflow-data", "python"].map(|name| dir.join(name));
    fs::write(&agent, "").unwrap();
    let answer = r#"sqlflow {"version": "3.11.0", "package": "/x", "missing": []}"#;
    fs::write(&python, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
    fs::write(&data, "").unwrap();
    for program in [&python, &data] {
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    [agent, python].map(|file| file.to_str().unwrap().to_owned())
}

#[test]
fn check_of_a_valid_configuration_creates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let [agent, python] = programs(dir.path());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let output = server(dir.path())
        .args([
            "--check",
            "--agent",
            &agent,
            "--python",
            &python,
            "--listen",
            &listen,
            "--state-dir=new/state",
        ])
        .arg(format!("--datasource=sqlite:///{}/irs.db?mode=rwc", dir.path().display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let doubts = format!(
        "warning: SQLite file {}/irs.db (from --datasource) does not exist; it is created by the first program that creates a table\n",
        dir.path().display()
    );
    assert_eq!(String::from_utf8(output.stderr).unwrap(), doubts);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with(&format!("ok: listens on {listen} and ")), "{said}");
    assert!(!dir.path().join("new").exists(), "a check creates nothing");
}

#[test]
fn check_finds_an_agent_without_its_data_process() {
    let dir = tempfile::tempdir().unwrap();
    let [agent, python] = programs(dir.path());
    fs::remove_file(dir.path().join("sqlflow-data")).unwrap();
    let output =
        server(dir.path()).args(["--check", "--agent", &agent, "--python", &python]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = error(&output);
    assert!(said.contains("sqlflow-data is neither beside the agent, in "), "{said}");
}

#[test]
fn check_reports_all_problems() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let output = server(dir.path())
        .args([
            "--check",
            "--state-dir=file/state",
            "--models=ftp://x",
            "--agent=/no/agent",
            "--python=/no/python",
        ])
        .args(["--datasource=oracle://h/d"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = error(&output);
    let lines: Vec<&str> = said.lines().collect();
    for (line, part) in lines.iter().zip([
        "the state folder file/state (from --state-dir): file is not a folder",
        "--models ftp://x is not supported",
        "(from --datasource): the data source's scheme",
        "cannot use the agent /no/agent",
        "/no/python (--python) cannot be started",
    ]) {
        assert!(line.starts_with("error: ") && line.contains(part), "{part}: {line}");
    }
    assert_eq!(lines.len(), 5, "{said}");

    let source =
        server(dir.path()).args(["--check", "--datasource=sqlite:///no-such-iris.db"]).output().unwrap();
    let expected = "cannot use the data source (from --datasource): /no-such-iris.db does not exist";
    assert!(error(&source).contains(expected), "{source:?}");
    let file = dir.path().join("irs.db");
    let absent = format!("--datasource=sqlite:///{}", file.display());
    let absent = server(dir.path()).args(["--check", &absent]).output().unwrap();
    let expected = format!("{} does not exist; correct the path, or add ?mode=rwc", file.display());
    assert!(error(&absent).contains(&expected), "{absent:?}");

    let pods = error(&server(dir.path()).args(["--check", "--launcher=kubernetes"]).output().unwrap());
    for flag in ["--models", "--agent-url", "--pod-image"] {
        assert!(pods.contains(&format!("needs {flag}")), "{flag}: {pods}");
    }
}
