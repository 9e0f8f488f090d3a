//! Results that are too large are one clear error.

use sqlflow_proto::agent::submitter_frame::Frame;

use crate::agent::Agent;

/// The kinds of frames before the failure, and its message. The statement may have changed something.
fn refusal(sql: &str) -> (Vec<&'static str>, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(dir.path(), &[(sql, true)]);
    let mut kinds = Vec::new();
    loop {
        kinds.push(match agent.receive().expect("there is a failure") {
            Frame::Started(_) => "started",
            Frame::Head(_) => "head",
            Frame::Rows(_) => "rows",
            Frame::Failure(failure) => {
                assert!(failure.unclear && failure.user_error && !failure.transient, "{failure:?}");
                assert_eq!(agent.exit_code(), Some(1));
                return (kinds, failure.message);
            }
            other => panic!("{other:?}"),
        });
    }
}

#[test]
fn names_of_columns() {
    let (kinds, message) = refusal(&format!("SELECT 1 AS \"{}\"", "x".repeat(17 << 20)));
    assert_eq!(kinds, ["started"]);
    assert!(message.starts_with("cannot send the names of 1 columns: they have 1782"), "{message}");
}

#[test]
fn row_that_cannot_be_shown() {
    let (kinds, message) = refusal("SELECT zeroblob(17 << 20)");
    assert_eq!(kinds, ["started", "head"]);
    assert!(message.starts_with("cannot send rows: a batch of 17825792 bytes is too large"), "{message}");
}

#[test]
fn row_that_cannot_be_read() {
    let (kinds, message) = refusal("SELECT zeroblob(40 << 20), zeroblob(40 << 20), zeroblob(900 << 20)");
    assert_eq!(kinds, ["started"]);
    assert_eq!(
        message,
        "cannot read the result: a row is larger than the limit of 64 MiB; select fewer or smaller columns"
    );
}
