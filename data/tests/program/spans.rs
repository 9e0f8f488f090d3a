//! The spans of statements.

use sqlflow_proto::agent::submitter_frame::Frame;

use crate::agent::Agent;

#[test]
fn each_statement_has_a_span_with_the_kind_of_its_error() {
    let dir = tempfile::tempdir().unwrap();
    let statements = [("SELECT 1", true), ("SELECT * FROM secret_table", true)];
    let mut agent = Agent::start_with(dir.path(), &statements, &[("TRACEPARENT", "00-1-1-01")]);
    let mut spans = Vec::new();
    while let Some(frame) = agent.receive() {
        if let Frame::Span(span) = frame {
            assert!(span.begin_unix_micros <= span.end_unix_micros);
            assert_eq!(span.attributes[0].key, "process.pid");
            spans.push((span.name, span.error));
        }
    }
    let name = || "statement standard".to_owned();
    assert_eq!(spans, [(name(), String::new()), (name(), "UserError".to_owned())]);
}
