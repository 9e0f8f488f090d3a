//! A program arrives at its database byte for byte, whatever stands in it.

use sqlflow_proto::v1::{GetJobRequest, get_job_request::By};
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;

const ODD: &str = "quotes \" and `backticks`, ${a.b} $(id) $HOME %s {0} \\n \\ ;\r\nnew\nlines\ttabs \
    -- no comment /* nor this */ # nor this, emoji 🦀 عربى \u{202e}rtl\u{202c} e\u{301} \u{1}\u{7f}";

/// What the table holds, as hexadecimal digits.
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
async fn odd_texts_and_ten_megabytes_arrive_as_they_were_sent() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("texts.db");
    let file = file.to_str().unwrap();
    let setup = Setup::new(dir.path(), format!("sqlite://{file}"));
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();

    let long: String = ODD.chars().cycle().take(10_000_000).collect();
    assert!(long.len() >= 10 << 20);
    let program = format!(
        "CREATE TABLE texts (text TEXT); INSERT INTO texts VALUES ('{ODD}'), ('it''s'); INSERT INTO texts VALUES ('{long}');"
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
    assert!(job.sql == program, "the program itself is kept as it was");
}
