//! The termination message of an agent. Pure. The text is from outside: anything may be in it.

use sqlflow_termination_message::TerminationMessage;

use crate::{AgentArtifacts, End};

/// The outcome, and the terminal records that a success carries. `None`: no agent wrote this.
pub(super) fn read(message: &str) -> Option<AgentArtifacts> {
    let message = TerminationMessage::decode(message)?;
    Some(AgentArtifacts {
        end: End::Reported(message.outcome()),
        terminal_records: message.terminal_records(),
        ..AgentArtifacts::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sqlflow_proto::record::record::Payload;

    use super::*;

    #[test]
    fn success_carries_terminal_records() {
        let message = json!({ "reason": "succeeded", "records": 9, "last_result": 4, "marks": [
            { "seq": 7, "time": 11, "statement": 0, "model": { "name": "m", "uri": "file:///m", "bytes": 5, "sha256": "00ff" } },
            { "seq": 9, "time": 12, "statement": 0, "ended": { "micros": 3, "rows": null } },
        ] });
        let artifacts = read(&message.to_string()).unwrap();
        let terminal_records = artifacts.terminal_records.unwrap();
        assert_eq!((terminal_records.last_result, terminal_records.records.len()), (4, 2));
        assert!(
            matches!(&terminal_records.records[0].payload, Some(Payload::Model(it)) if it.sha256 == [0, 255][..])
        );
        assert_eq!(terminal_records.records[1].seq, 9);
    }

    #[test]
    fn whose_fault_a_failure_was_is_read() {
        let outcome = |more: Value| {
            let mut message = json!({ "reason": "input_failed", "message": "model m does not exist" });
            message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            match read(&message.to_string()).unwrap().end {
                End::Reported(outcome) => outcome.user_error,
                other => panic!("{other:?}"),
            }
        };
        assert!(outcome(json!({ "user_error": true })) && !outcome(json!({})));
    }

    #[test]
    fn unreadable_terminal_record_invalidates_all() {
        let message =
            json!({ "reason": "succeeded", "records": 9, "last_result": 4, "marks": [{ "seq": 7 }] });
        assert_eq!(read(&message.to_string()).unwrap().terminal_records, None);
    }

    #[test]
    fn foreign_message_is_ignored() {
        for message in ["", "killed", "{}", "[1]", r#"{"reason":"SUCCEEDED!"}"#] {
            assert!(read(message).is_none(), "{message}");
        }
    }
}
