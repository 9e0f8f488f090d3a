//! A program reaches its database byte for byte.

use std::process::Command;

use sqlflow_proto::v1::{GetJobRequest, get_job_request::By, job_status::Code};
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;

const ODD: &str = "quotes \" and `backticks`, ${a.b} $(id) $HOME %s {0} \\n \\ ;\r\nnew\nlines\ttabs \
    -- no comment /* nor this */ # nor this, emoji 🦀 عربى \u{202e}rtl\u{202c} e\u{301} \u{1}\u{7f}";

/// The table's texts in hexadecimal.
fn texts(file: &str) -> String {
    python::run(
        "import sqlite3, sys
for (text,) in sqlite3.connect(sys.argv[1]).execute('SELECT text FROM texts ORDER BY rowid'): print(text.encode().hex())",
        &[file],
    )
    .unwrap()
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn special_characters_and_ten_megabytes_reach_the_database_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("texts.db");
    let file = file.to_str().unwrap();
    let setup = Setup::new(dir.path(), format!("sqlite://{file}"));
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();

    let long: String = ODD.chars().cycle().take(10_000_000).collect();
    assert!(long.len() >= 10 << 20);
    let program = format!(
        " \r\n\tCREATE TABLE texts (text TEXT); INSERT INTO texts VALUES ('{ODD}'), ('it''s'); INSERT INTO texts VALUES ('{long}');\r\n "
    );
    let token = client.run(program.clone()).await.unwrap();
    client.follow(&token).await.unwrap().expect_success();

    let found = texts(file);
    let found: Vec<_> = found.lines().collect();
    assert_eq!(found.len(), 3);
    assert_eq!(found[0], hex(ODD));
    assert_eq!(found[1], hex("it's"));
    assert!(found[2] == hex(&long), "ten megabytes differ");
    let job =
        client.api.get_job(GetJobRequest { by: Some(By::Token(token.token)) }).await.unwrap().into_inner();
    assert!(job.sql == program, "the stored program is unchanged");
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlflowctl_sends_files_unchanged_and_returns_long_values() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("texts.db");
    let file = file.to_str().unwrap();
    let setup = Setup::new(dir.path(), format!("sqlite://{file}"));
    let server = setup.start().unwrap();
    let run = |sql: &str| {
        let program = dir.path().join("program.sql");
        std::fs::write(&program, sql).unwrap();
        let mut command = Command::new(sqlflow_tests::server::program("sqlflowctl"));
        command.args(["run", "--output", "json", "--no-remember", "-f"]).arg(program);
        let output = command.args(["--server", &server.address]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let long: String = ODD.chars().cycle().take(10_000_000).collect();
    run(&format!(
        "\u{feff}CREATE TABLE texts (text TEXT);\r\nINSERT INTO texts VALUES ('{long}'), ('{ODD}')"
    ));
    assert!(texts(file) == format!("{}\n{}\n", hex(&long), hex(ODD)), "the texts differ");
    let said = run("SELECT text FROM texts");
    let lines = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let rows: Vec<_> = lines.filter_map(|line| line.get("rows")?.as_array().cloned()).flatten().collect();
    let rows: Vec<_> = rows.iter().map(|row| row[0].as_str().unwrap()).collect();
    assert!(rows == [&long, ODD], "the rows differ from the texts");
}

#[tokio::test(flavor = "multi_thread")]
async fn value_too_large_for_a_row_fails_with_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path(), "sqlite:///:memory:").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT hex(zeroblob(9000000))").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert_eq!(ended.status.code(), Code::Failed, "{:?}", ended.status);
    assert!(ended.status.message.contains("16777216"), "{:?}", ended.status);
}
