//! What an agent wrote into its Pod's termination message. Pure. The message is from outside: anything may be in it.

use serde_json::Value;
use sqlflow_proto::agent::{Outcome, outcome::Reason};
use sqlflow_proto::record::{
    EarlierModel, ModelPublished, Record, StatementEnded, StatementStarted, record::Payload,
};

use crate::{AgentArtifacts, End, TerminalRecords};

/// The outcome, and the terminal records that a success has with it. `None`: no agent wrote this.
pub(super) fn read(message: &str) -> Option<AgentArtifacts> {
    let value: Value = serde_json::from_str(message).ok()?;
    let outcome = outcome(&value)?;
    Some(AgentArtifacts {
        end: End::Reported(outcome),
        terminal_records: terminal_records(&value),
        ..AgentArtifacts::default()
    })
}

fn outcome(value: &Value) -> Option<Outcome> {
    let name = format!("REASON_{}", value["reason"].as_str()?.to_uppercase());
    let reason = Reason::from_str_name(&name)?;
    let number = |name: &str| value[name].as_i64().and_then(|it| i32::try_from(it).ok());
    Some(Outcome {
        reason: reason.into(),
        message: value["message"].as_str().unwrap_or_default().to_owned(),
        exit_code: number("exit_code"),
        signal: number("signal"),
        retryable: value["retryable"].as_bool().unwrap_or_default(),
        user_error: value["user_error"].as_bool().unwrap_or_default(),
        output_kept: value["output_kept"].as_bool().unwrap_or_default(),
        unexplained: value["unexplained"].as_bool().unwrap_or_default(),
        not_executed: value["not_executed"].as_bool().unwrap_or_default(),
        last_seq: value["records"].as_u64().unwrap_or_default(),
        ..Outcome::default()
    })
}

/// All or none: a mark that cannot be read may be what matters.
fn terminal_records(value: &Value) -> Option<TerminalRecords> {
    let last_result = value["last_result"].as_u64()?;
    let records = value["terminal_records"].as_array()?.iter().map(mark).collect::<Option<_>>()?;
    Some(TerminalRecords { last_result, records })
}

fn mark(value: &Value) -> Option<Record> {
    let ended = |value: &Value| {
        Some(Payload::Ended(StatementEnded {
            duration_micros: value["micros"].as_u64()?,
            rows_affected: value["rows"].as_u64(),
        }))
    };
    let model = |value: &Value| {
        Some(Payload::Model(ModelPublished {
            name: value["name"].as_str()?.to_owned(),
            uri: value["uri"].as_str()?.to_owned(),
            size_bytes: value["bytes"].as_u64()?,
            sha256: hex::decode(value["sha256"].as_str()?).ok()?.into(),
            removed: value["removed"].as_bool().unwrap_or_default(),
            replaced: value["replaced"]["ms"].as_i64().map(|made_ms| EarlierModel {
                made_ms,
                trained_by: value["replaced"]["by"].as_str().unwrap_or_default().to_owned(),
            }),
        }))
    };
    let payload = if value["started"].is_object() {
        Some(Payload::Started(StatementStarted {}))
    } else {
        ended(&value["ended"]).or_else(|| model(&value["model"]))
    };
    Some(Record {
        seq: value["seq"].as_u64()?,
        time_unix_micros: value["time"].as_i64()?,
        statement: value["statement"].as_u64().and_then(|it| u32::try_from(it).ok()),
        payload: Some(payload?),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_success_has_its_marks_with_it() {
        let message = json!({ "reason": "succeeded", "records": 9, "last_result": 4, "terminal_records": [
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
    fn a_mark_that_cannot_be_read_takes_the_others_along() {
        let message = json!({ "reason": "succeeded", "records": 9, "last_result": 4, "terminal_records": [{ "seq": 7 }] });
        assert_eq!(read(&message.to_string()).unwrap().terminal_records, None);
    }

    #[test]
    fn what_no_agent_wrote_is_nothing() {
        for message in ["", "killed", "{}", "[1]", r#"{"reason":"SUCCEEDED!"}"#] {
            assert!(read(message).is_none(), "{message}");
        }
    }
}
