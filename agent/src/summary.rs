//! An outcome as JSON, small enough for a Pod's termination message.

use serde_json::{Value, json};
use sqlflow_proto::agent::Outcome;

/// What Kubernetes keeps of a termination message.
const LIMIT: usize = 4096;

/// One line of at most 4,096 bytes.
pub(crate) fn json(outcome: &Outcome) -> String {
    let mut message = outcome.message.clone();
    loop {
        let text = value(outcome, &message).to_string();
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
    use super::*;

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
