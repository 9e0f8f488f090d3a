//! The link to the submitter: what it can ask, and what becomes of the result table at each end.

use nix::sys::signal::Signal;
use rusqlite::Connection;
use serde_json::{Value, json};
use sqlflow_proto::agent::submitter_frame::Frame;
use tempfile::TempDir;

use crate::agent::{Agent, Submitter};

const ROWS: i64 = 150_000;
const STAGING: &str = "outcome__j_1_1";

/// The folder of a step, with its database.
struct Files(TempDir);

impl Files {
    fn database(&self) -> Connection {
        Connection::open(self.0.path().join("x.db")).unwrap()
    }

    fn tables(&self) -> Vec<String> {
        let connection = self.database();
        let sql = "SELECT name FROM sqlite_master WHERE name LIKE 'outcome%' ORDER BY name";
        let mut statement = connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn text(&self, sql: &str) -> String {
        self.database().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// The old table is there, and no other.
    fn are_unchanged(&self) -> bool {
        self.tables() == ["outcome"] && self.text("SELECT group_concat(a) FROM outcome") == "7"
    }
}

/// A PREDICT of a table with two columns, in a new folder. Its result table exists.
struct Prediction {
    files: Files,
    agent: Agent,
    submitter: Submitter,
}

impl Prediction {
    fn start() -> Self {
        Self::start_of("SELECT a, b FROM source")
    }

    fn start_of(select: &str) -> Self {
        let files = Files(tempfile::tempdir().unwrap());
        let setup = format!(
            "CREATE TABLE source (a INTEGER, b TEXT);
             INSERT INTO source WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
             SELECT i, 'text ' || i FROM n;
             CREATE TABLE outcome (/* SQLFlow result table outcome */ a INTEGER);
             INSERT INTO outcome VALUES (7);"
        );
        files.database().execute_batch(&setup).unwrap();
        let document = json!({
            "version": 1,
            "scratch_suffix": "j_1_1",
            "statements": [{
                "index": 0,
                "kind": "predict",
                "select": select,
                "result_table": "outcome",
                "repeatable": true,
            }],
            "ahead": [{ "index": 1, "kind": "standard", "sql": "SELECT bb FROM source" }],
        });
        let (mut agent, submitter) = Agent::start_serving(files.0.path(), &document);
        assert!(matches!(agent.receive(), Some(Frame::Started(_))));
        Self { files, agent, submitter }
    }

    fn create_staging(&mut self) {
        let write = json!({ "write": {
            "passthrough": [[1, "kept"]],
            "computed": [{ "name": "class", "kind": "text", "values": ["x", "y"] }, { "name": "p", "kind": "float" }],
            "copies": 1,
        } });
        assert_eq!(self.submitter.ask(&write), "done");
        assert_eq!(self.files.tables(), ["outcome", STAGING]);
    }

    /// Begins the stream, and writes this number of its batches.
    fn write_batches(&mut self, count: usize) {
        let columns = self.submitter.ask(&json!({ "stream": { "max_rows": 65_536 } }));
        assert_eq!(columns["columns"][1]["name"], "b");
        for _ in 0..count {
            let rows = self.submitter.answer()["batch"].as_u64().unwrap();
            self.write_rows(rows);
        }
    }

    fn write_rows(&mut self, rows: u64) {
        let classes = (0..rows).flat_map(|row| u32::try_from(row % 2).unwrap().to_le_bytes());
        let mut bytes: Vec<u8> = classes.collect();
        bytes.extend((0..rows).flat_map(|_| 0.25_f64.to_le_bytes()));
        self.submitter.send(&json!({ "rows": { "rows": rows, "bytes": bytes.len() } }), &bytes);
        self.submitter.send(&json!("taken"), b"");
    }

    fn write_all(&mut self) {
        self.create_staging();
        self.write_batches(0);
        loop {
            let answer = self.submitter.answer();
            match answer["batch"].as_u64() {
                Some(rows) => self.write_rows(rows),
                None => break assert_eq!(answer, json!({ "end": ROWS })),
            }
        }
        assert_eq!(self.submitter.ask(&json!({ "publish": { "line": "written" } })), "done");
    }

    /// The submitter ends.
    fn end_submitter(self) -> (Agent, Files) {
        drop(self.submitter);
        (self.agent, self.files)
    }
}

#[test]
fn table_is_replaced_after_the_submitters_success_and_the_grant() {
    let mut prediction = Prediction::start();
    prediction.write_all();
    assert_eq!(prediction.files.tables(), ["outcome", STAGING]);
    let (mut agent, ended) = prediction.end_submitter();
    agent.report_success();
    assert_eq!(agent.receive(), Some(Frame::Commit(sqlflow_proto::agent::Commit {})));
    agent.grant();
    assert!(matches!(agent.receive(), Some(Frame::Ended(_))));
    assert_eq!(agent.exit_code(), Some(0));
    assert_eq!(ended.tables(), ["outcome"]);
    let summary =
        "SELECT count(*) || ' ' || min(kept) || ' ' || sum(class = 'x') || ' ' || max(p) FROM outcome";
    assert_eq!(ended.text(summary), format!("{ROWS} text 1 {} 0.25", ROWS / 2));
    // Each class is in the row that it was computed for.
    assert_eq!(ended.text("SELECT class FROM outcome WHERE kept = 'text 2'"), "y");
}

#[test]
fn refused_grant_leaves_the_old_table() {
    let mut prediction = Prediction::start();
    prediction.write_all();
    let (mut agent, ended) = prediction.end_submitter();
    agent.report_success();
    assert!(matches!(agent.receive(), Some(Frame::Commit(_))));
    agent.refuse("another attempt has started");
    let Some(Frame::Failure(failure)) = agent.receive() else { panic!("it fails") };
    assert_eq!(failure.message, "cannot commit: the agent refused the grant: another attempt has started");
    assert!(failure.not_executed && !failure.unclear);
    assert_eq!(agent.exit_code(), Some(1));
    assert!(ended.are_unchanged());
}

/// What the program reports when a signal ends it and nothing remains: the submitter's own end is the cause.
fn expect_nothing_left(agent: &mut Agent, signal: Signal, phase: &str) {
    let Some(Frame::Failure(failure)) = agent.receive() else {
        panic!("{phase}: it reports that nothing remains")
    };
    assert!(failure.peer_lost && failure.not_executed && !failure.unclear, "{failure:?}");
    assert_eq!(agent.receive(), None);
    assert_eq!(agent.ending_signal(), Some(signal));
}

#[test]
fn submitter_that_fails_leaves_no_staging_table() {
    for phase in ["nothing", "created", "filled in part", "complete"] {
        let mut prediction = Prediction::start();
        match phase {
            "nothing" => {}
            "complete" => prediction.write_all(),
            _ => prediction.create_staging(),
        }
        if phase == "filled in part" {
            prediction.write_batches(1);
        }
        let (mut agent, ended) = prediction.end_submitter();
        // As an agent does when the command has failed.
        agent.signal_and_await_receipt(Signal::SIGTERM);
        expect_nothing_left(&mut agent, Signal::SIGTERM, phase);
        assert!(ended.are_unchanged(), "{phase}");
    }
}

/// By then the server may have recorded the grant. The cleanup takes a staging table that is left as a sign that the old
/// table was not replaced.
#[test]
fn signal_after_the_request_for_the_grant_leaves_the_staging_table() {
    let mut prediction = Prediction::start();
    prediction.write_all();
    let (mut agent, ended) = prediction.end_submitter();
    agent.report_success();
    assert!(matches!(agent.receive(), Some(Frame::Commit(_))));
    agent.signal_and_await_receipt(Signal::SIGTERM);
    assert_eq!(agent.receive(), None);
    assert_eq!(agent.ending_signal(), Some(Signal::SIGTERM));
    assert_eq!(ended.tables(), ["outcome", STAGING]);
}

#[test]
fn submitter_that_succeeds_without_a_table_is_a_failure() {
    let mut prediction = Prediction::start();
    prediction.create_staging();
    prediction.write_batches(1);
    let (mut agent, ended) = prediction.end_submitter();
    agent.report_success();
    let Some(Frame::Failure(failure)) = agent.receive() else { panic!("it fails") };
    assert_eq!(failure.message, "the submitter ended with 0, and did not complete its table");
    assert!(failure.not_executed && !failure.unclear);
    assert_eq!(agent.exit_code(), Some(1));
    assert!(ended.are_unchanged());
}

#[test]
fn signal_drops_the_staging_table_while_the_submitter_runs() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut prediction = Prediction::start();
        prediction.create_staging();
        prediction.write_batches(1);
        prediction.agent.signal_and_await_receipt(signal);
        expect_nothing_left(&mut prediction.agent, signal, "filled in part");
        assert!(prediction.files.are_unchanged());
    }
}

/// As EXPLAIN with many classes writes it.
#[test]
fn long_texts_are_repeated_in_bounded_memory() {
    let select = "SELECT 1 AS a, printf('%.*c', 8000000, 'x') AS b UNION ALL SELECT 2, 'short' UNION ALL SELECT 3, NULL";
    let mut prediction = Prediction::start_of(select);
    let write = json!({ "write": {
        "passthrough": [[0, "a"], [1, "b"]],
        "computed": [{ "name": "class", "kind": "int" }],
        "copies": 40,
    } });
    assert_eq!(prediction.submitter.ask(&write), "done");
    prediction.submitter.ask(&json!({ "stream": { "max_rows": 4096 } }));
    let mut class = 0_i64;
    while let Some(rows) = prediction.submitter.answer()["batch"].as_u64() {
        let count = i64::try_from(rows * 40).unwrap();
        let bytes: Vec<u8> = (class..class + count).flat_map(i64::to_le_bytes).collect();
        class += count;
        prediction.submitter.send(&json!({ "rows": { "rows": rows, "bytes": bytes.len() } }), &bytes);
        prediction.submitter.send(&json!("taken"), b"");
    }
    assert_eq!(prediction.submitter.ask(&json!({ "publish": { "line": "" } })), "done");
    let (mut agent, ended) = prediction.end_submitter();
    assert!(agent.peak_memory() < 250 << 20, "{} bytes", agent.peak_memory());
    agent.report_success();
    assert!(matches!(agent.receive(), Some(Frame::Commit(_))));
    agent.grant();
    assert!(matches!(agent.receive(), Some(Frame::Ended(_))));
    let sql = "SELECT group_concat(a || ':' || n || ':' || l || ':' || classes) FROM (SELECT a, count(*) AS n,
        coalesce(max(length(b)), 0) AS l, min(class) || '-' || max(class) AS classes FROM outcome GROUP BY a)";
    assert_eq!(ended.text(sql), "1:40:8000000:0-39,2:40:5:40-79,3:40:0:80-119");
}

#[test]
fn error_of_the_select_reaches_the_submitter_between_its_columns() {
    let select = format!("SELECT a, CASE WHEN a = {ROWS} THEN json('wrong') ELSE b END AS b FROM source");
    let mut prediction = Prediction::start_of(&select);
    prediction.create_staging();
    prediction.write_batches(0);
    loop {
        let answer = prediction.submitter.answer();
        let Some(rows) = answer["batch"].as_u64() else {
            assert_eq!(answer["error"]["message"], "malformed JSON");
            break;
        };
        prediction.write_rows(rows);
    }
    // It was sent before the error was read, and nothing is published.
    prediction.submitter.send(&json!({ "publish": { "line": "" } }), b"");
    let (mut agent, ended) = prediction.end_submitter();
    agent.report_success();
    let Some(Frame::Failure(failure)) = agent.receive() else { panic!("it fails") };
    assert_eq!(failure.message, "the submitter ended with 0, and did not complete its table");
    assert!(ended.are_unchanged());
}

#[test]
fn requests_that_no_submitter_sends_end_the_step() {
    let wrong: [(Value, &[u8]); 9] = [
        (json!("SELECT 1"), b""),
        (json!({ "sql": "DROP TABLE source" }), b""),
        (json!({ "describe": { "statement": 7, "select": "statement" } }), b""),
        (json!({ "describe": { "statement": 0, "select": "DROP TABLE source" } }), b""),
        (json!({ "write": { "passthrough": [[2, "a"]], "computed": [], "copies": 1 } }), b""),
        (json!({ "write": { "passthrough": [], "computed": [], "copies": 0 } }), b""),
        (json!({ "rows": { "rows": 1, "bytes": 1 } }), b"x"),
        (json!("taken"), b""),
        (json!({ "publish": { "line": "" } }), b""),
    ];
    for (request, bytes) in wrong {
        let mut prediction = Prediction::start();
        prediction.submitter.send(&request, bytes);
        let Some(Frame::Failure(failure)) = prediction.agent.receive() else { panic!("{request}: it fails") };
        assert!(failure.message.starts_with("cannot "), "{request}: {}", failure.message);
        assert_eq!(prediction.agent.exit_code(), Some(1));
        assert!(prediction.files.are_unchanged(), "{request}");
    }
}

#[test]
fn columns_of_a_wrong_size_end_the_step() {
    for (rows, bytes) in [(1, 11), (1, 13), (ROWS, 12 * 150_000), (i64::MAX, 12)] {
        let mut prediction = Prediction::start();
        prediction.create_staging();
        prediction.write_batches(0);
        prediction.submitter.send(&json!({ "rows": { "rows": rows, "bytes": bytes } }), &vec![0; bytes]);
        let Some(Frame::Failure(failure)) = prediction.agent.receive() else { panic!("it fails") };
        assert!(failure.message.starts_with("cannot answer a request"), "{}", failure.message);
        assert_eq!(prediction.agent.exit_code(), Some(1));
        assert!(prediction.files.are_unchanged());
    }
}

#[test]
fn later_statement_is_checked_with_similar_names() {
    let mut prediction = Prediction::start();
    let check = json!({ "check": { "statement": 1, "syntax_only": false, "may_drop": false } });
    let answer = prediction.submitter.ask(&check);
    assert_eq!(answer["error"]["message"], "no such column: bb");
    assert_eq!(prediction.submitter.ask(&json!("dialect")), json!({ "dialect": "sqlite" }));
    let sample = json!({ "sample": { "query": { "statement": 0, "select": "statement" }, "column": "b", "of_type": null } });
    let values = prediction.submitter.ask(&sample);
    assert_eq!(
        (values["values"].as_array().map(Vec::len), &values["values"][0]),
        (Some(100), &json!("text 1"))
    );
}
