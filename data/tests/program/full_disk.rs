//! A full disk: of the workspace, where the rows of TRAIN are stored, and of the user's database. Each test runs itself in
//! a mount namespace with a small disk.

use nix::sys::signal::Signal;
use serde_json::json;
use sqlflow_os::small_disk;
use sqlflow_proto::agent::submitter_frame::Frame;

use crate::agent::Agent;

/// Some megabytes.
const LARGE: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
    SELECT i, printf('%0100d', i) AS t FROM n";

#[test]
fn on_a_small_disk_of_the_workspace() {
    let Some(disk) = small_disk::here() else { return };
    let document = json!({ "version": 1, "statements": [{ "index": 0, "kind": "train", "select": LARGE, "repeatable": true }] });
    let (mut agent, mut submitter) = Agent::start_serving(&disk, &document);
    assert!(matches!(agent.receive(), Some(Frame::Started(_))));
    submitter.send(&json!({ "read": "statement" }), b"");
    let error = loop {
        let answer = submitter.answer();
        if !answer["error"].is_null() {
            break answer["error"].clone();
        }
    };
    let message = error["message"].as_str().unwrap();
    let expected = "cannot store the rows of the select in the workspace: No space left on device";
    assert!(message.starts_with(expected), "{message}");
    // The file has gone, and a smaller select can be read.
    std::fs::write(disk.join("free"), vec![1; small_disk::MIB / 2]).unwrap();
    small_disk::done();
}

#[test]
fn rows_that_the_workspace_has_no_space_for_are_an_error() {
    small_disk::run("full_disk::on_a_small_disk_of_the_workspace");
}

#[test]
fn on_a_small_disk_of_the_database() {
    let Some(disk) = small_disk::here() else { return };
    let database = disk.join("x.db");
    rusqlite::Connection::open(&database).unwrap().execute_batch("CREATE TABLE source (a)").unwrap();
    let document = json!({
        "version": 1,
        "scratch_suffix": "j_1_1",
        "statements": [
            { "index": 0, "kind": "predict", "select": LARGE, "result_table": "outcome", "repeatable": true },
        ],
    });
    let (mut agent, mut submitter) = Agent::start_serving(&disk, &document);
    assert!(matches!(agent.receive(), Some(Frame::Started(_))));
    let write = json!({ "write": { "passthrough": [[0, "i"], [1, "t"]], "computed": [], "copies": 1 } });
    assert_eq!(submitter.ask(&write), "done");
    submitter.ask(&json!({ "stream": { "max_rows": 65_536 } }));
    let message = loop {
        let answer = submitter.answer();
        let Some(rows) = answer["batch"].as_u64() else { break answer["error"]["message"].clone() };
        submitter.send(&json!({ "rows": { "rows": rows, "bytes": 0 } }), b"");
        submitter.send(&json!("taken"), b"");
    };
    let message = message.as_str().unwrap();
    assert!(message.contains("database or disk is full"), "{message}");
    drop(submitter);
    agent.signal_and_await_receipt(Signal::SIGTERM);
    let Some(Frame::Failure(failure)) = agent.receive() else { panic!("it reports that nothing remains") };
    assert!(failure.peer_lost && failure.not_executed, "the submitter reports the error");
    assert_eq!(agent.ending_signal(), Some(Signal::SIGTERM));
    let connection = rusqlite::Connection::open(&database).unwrap();
    let left: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_master WHERE name LIKE 'outcome%'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0);
    small_disk::done();
}

#[test]
fn rows_that_the_database_has_no_space_for_leave_no_staging_table() {
    small_disk::run("full_disk::on_a_small_disk_of_the_database");
}
