//! Steps that are run without an agent.

use std::process::{Command, Output};

fn run(data_source: Option<&str>) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let step = r#"{"version": 1, "statements": [{"index": 0, "kind": "standard", "sql": "SELECT 1 AS a, 'x' AS b"}]}"#;
    std::fs::write(dir.path().join("step.json"), step).unwrap();
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
