//! The step document beside user code, which owns the file.

use serde_json::json;
use sqlflow_proto::agent::submitter_frame::Frame;

use crate::agent::Agent;

#[test]
fn document_that_a_program_has_changed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let step = |sql| json!({ "version": 1, "statements": [{ "index": 0, "kind": "standard", "sql": sql }] });
    let (assigned, changed) = (step("SELECT 1"), step("CREATE TABLE planted (a)"));
    let mut agent = Agent::start_changed(dir.path(), &assigned, &changed);
    let Some(Frame::Failure(failure)) = agent.receive() else { panic!("it runs") };
    let expected =
        "cannot read the step document step.json: a program has changed it since the server assigned it";
    assert_eq!((failure.message.as_str(), agent.exit_code()), (expected, Some(1)));
    assert!(!dir.path().join("x.db").exists(), "nothing is connected");
}
