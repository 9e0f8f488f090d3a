//! An outcome as JSON, small enough for a Pod's termination message.

use serde_json::{Value, json};
use sqlflow_proto::agent::{Outcome, outcome::Reason};
use sqlflow_proto::record::{Record, record::Payload};

use crate::ship::marks::Marks;

/// What Kubernetes keeps of a termination message.
const LIMIT: usize = 4096;

/// One line of at most 4,096 bytes.
pub(crate) fn json(outcome: &Outcome) -> String {
    cut(outcome, |_| {})
}

/// The same, with what a server needs to call it a success when everything else is lost.
pub(crate) fn with_marks(outcome: &Outcome, marks: &Marks) -> String {
    if outcome.reason() != Reason::Succeeded {
        return json(outcome);
    }
    let text = cut(outcome, |value| {
        value["last_result"] = json!(marks.last_result);
        value["marks"] = marks.records.iter().filter_map(mark).collect();
    });
    // Without them it is not a success that nobody has seen, and that is the truth too.
    if text.len() <= LIMIT { text } else { json(outcome) }
}

fn mark(record: &Record) -> Option<Value> {
    let what = match record.payload.as_ref()? {
        Payload::Started(_) => json!({ "started": {} }),
        Payload::Ended(ended) => {
            json!({ "ended": { "micros": ended.duration_micros, "rows": ended.rows_affected } })
        }
        Payload::Model(model) => json!({ "model": {
            "name": model.name,
            "uri": model.uri,
            "bytes": model.size_bytes,
            "sha256": format!("{:x}", model.sha256),
        } }),
        _ => return None,
    };
    let mut value =
        json!({ "seq": record.seq, "time": record.time_unix_micros, "statement": record.statement });
    value.as_object_mut()?.extend(what.as_object()?.clone());
    Some(value)
}

fn cut(outcome: &Outcome, add: impl Fn(&mut Value)) -> String {
    let mut message = outcome.message.clone();
    loop {
        let mut value = value(outcome, &message);
        add(&mut value);
        let text = value.to_string();
        if text.len() <= LIMIT || message.is_empty() {
            return text;
        }
        // Escapes make it longer than it is, so it is halved until it fits.
        message.truncate(message.floor_char_boundary(message.len() / 2));
    }
}

fn value(outcome: &Outcome, message: &str) -> Value {
    let usage = outcome.usage.clone().unwrap_or_default();
    let reason = outcome.reason().as_str_name().trim_start_matches("REASON_").to_lowercase();
    let mut value = json!({
        "reason": reason,
        "exit_code": outcome.exit_code,
        "signal": outcome.signal,
        "message": message,
        "retryable": outcome.retryable,
        "records": outcome.last_seq,
        "usage": {
            "cpu_micros": usage.cpu_micros,
            "read_bytes": usage.read_bytes,
            "written_bytes": usage.written_bytes,
            "memory_peak_bytes": usage.memory_peak_bytes,
            "cgroup_limit_bytes": usage.memory_limit_bytes,
            "cgroup_peak_bytes": usage.cgroup_peak_bytes,
            "oom_kills": usage.oom_kills,
        },
    });
    if let Some(largest) = usage.largest {
        value["usage"]["largest"] =
            json!({ "pid": largest.pid, "name": largest.name, "memory_bytes": largest.memory_bytes });
    }
    if outcome.output_kept {
        value["output_kept"] = json!(true);
    }
    if outcome.unexplained {
        value["unexplained"] = json!(true);
    }
    if !outcome.ended_by.is_empty() {
        value["ended_by"] = json!(outcome.ended_by);
    }
    let phase = |phase: &sqlflow_proto::agent::PhaseTime| {
        let name = phase.phase().as_str_name().trim_start_matches("PHASE_").to_lowercase();
        json!({ "phase": name, "micros": phase.duration_micros })
    };
    value["phases"] = outcome.phases.iter().map(phase).collect();
    value
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::record::{ModelPublished, StatementEnded};

    use super::*;

    #[test]
    fn a_success_has_its_marks_with_it_as_long_as_they_fit() {
        let outcome = Outcome { reason: Reason::Succeeded.into(), last_seq: 40, ..Outcome::default() };
        let ended = |seq| Record {
            seq,
            payload: Some(Payload::Ended(StatementEnded { duration_micros: 5, rows_affected: Some(2) })),
            ..Record::default()
        };
        let mut marks = Marks { last_result: 3, records: [ended(4)].into() };
        let value: Value = serde_json::from_str(&with_marks(&outcome, &marks)).unwrap();
        assert_eq!((&value["last_result"], &value["marks"][0]["ended"]["rows"]), (&json!(3), &json!(2)));

        let model = ModelPublished { uri: "x".repeat(4000), ..ModelPublished::default() };
        marks.note(&Record { seq: 5, payload: Some(Payload::Model(model)), ..Record::default() });
        let text = with_marks(&outcome, &marks);
        assert!(text.len() <= LIMIT && !text.contains("marks"), "{text}");
    }

    #[test]
    fn it_fits_whatever_the_message_is() {
        for message in ["\u{1}".repeat(5000), "é".repeat(4000), String::new()] {
            let outcome = Outcome { message, exit_code: Some(3), ..Outcome::default() };
            let text = json(&outcome);
            assert!(text.len() <= LIMIT);
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["exit_code"], 3);
        }
    }
}
