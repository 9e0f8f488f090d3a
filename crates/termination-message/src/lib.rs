//! The termination message of an agent: its outcome as one line of JSON that fits into a Pod's status. The agent writes
//! it, the Kubernetes launcher reads it. `exec --outcome` and log folders hold the same line.

mod terminal;

use serde::{Deserialize, Deserializer, Serialize};
use sqlflow_proto::agent::{LargestProcess, Outcome, PhaseTime, Usage, outcome::Reason};
use sqlflow_proto::record::Record;

use terminal::TerminalRecord;

/// What Kubernetes keeps of a termination message.
pub const MAX_BYTES: usize = 4096;

/// A termination message. Readers ignore unknown fields, and take defaults for missing ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TerminationMessage {
    #[serde(with = "reason")]
    reason: Reason,
    #[serde(default)]
    exit_code: Option<i32>,
    #[serde(default)]
    signal: Option<i32>,
    #[serde(default)]
    message: String,
    #[serde(default)]
    retryable: bool,
    /// Sequence number of the last record.
    #[serde(default, rename = "records")]
    last_seq: u64,
    #[serde(default)]
    usage: UsageJson,
    #[serde(default, skip_serializing_if = "is_false")]
    output_kept: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    user_error: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    unexplained: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    not_executed: bool,
    /// Who terminated the attempt.
    #[serde(default, rename = "ended_by", skip_serializing_if = "String::is_empty")]
    terminated_by: String,
    #[serde(default)]
    phases: Vec<PhaseJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_result: Option<u64>,
    #[serde(
        default,
        rename = "marks",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "all_or_none"
    )]
    terminal_records: Option<Vec<TerminalRecord>>,
}

/// The unacknowledged records that a success carries, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct TerminalRecords {
    /// Sequence number of the last record that is a result; 0: there is none.
    pub last_result: u64,
    /// Starts and ends of statements, and models; other records may be missing between them.
    pub records: Vec<Record>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct UsageJson {
    cpu_micros: u64,
    read_bytes: u64,
    written_bytes: u64,
    memory_peak_bytes: u64,
    cgroup_limit_bytes: u64,
    cgroup_peak_bytes: u64,
    oom_kills: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    largest: Option<LargestJson>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct LargestJson {
    pid: i32,
    name: String,
    memory_bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct PhaseJson {
    phase: String,
    micros: u64,
}

impl TerminationMessage {
    /// From an outcome alone.
    pub fn new(outcome: &Outcome) -> Self {
        Self {
            reason: outcome.reason(),
            exit_code: outcome.exit_code,
            signal: outcome.signal,
            message: outcome.message.clone(),
            retryable: outcome.retryable,
            last_seq: outcome.last_seq,
            usage: outcome.usage.clone().unwrap_or_default().into(),
            output_kept: outcome.output_kept,
            user_error: outcome.user_error,
            unexplained: outcome.unexplained,
            not_executed: outcome.not_executed,
            terminated_by: outcome.ended_by.clone(),
            phases: outcome.phases.iter().map(PhaseJson::from).collect(),
            last_result: None,
            terminal_records: None,
        }
    }

    /// Adds what a server needs to accept a success when all other records are lost. Other outcomes do not need it.
    #[must_use]
    pub fn with_terminal_records<'a>(
        mut self,
        last_result: u64,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Self {
        if self.reason == Reason::Succeeded {
            self.last_result = Some(last_result);
            self.terminal_records = Some(records.into_iter().filter_map(TerminalRecord::of).collect());
        }
        self
    }

    /// One line of at most [`MAX_BYTES`]. The message is cut to fit. Terminal records that do not fit are left out
    /// together: the server then has no success that it could prove.
    pub fn encode(&self) -> String {
        let text = self.encode_cut();
        if text.len() <= MAX_BYTES || self.terminal_records.is_none() {
            return text;
        }
        Self { last_result: None, terminal_records: None, ..self.clone() }.encode_cut()
    }

    fn encode_cut(&self) -> String {
        let mut cut = self.clone();
        loop {
            let text = serde_json::to_value(&cut).expect("no map has other keys than texts").to_string();
            if text.len() <= MAX_BYTES || cut.message.is_empty() {
                return text;
            }
            // Escapes make it longer than it is, so it is halved until it fits.
            cut.message.truncate(cut.message.floor_char_boundary(cut.message.len() / 2));
        }
    }

    /// `None`: no agent wrote this. Text of a Pod's status may be anything.
    pub fn decode(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The outcome, without usage and phases.
    pub fn outcome(&self) -> Outcome {
        Outcome {
            reason: self.reason.into(),
            message: self.message.clone(),
            exit_code: self.exit_code,
            signal: self.signal,
            retryable: self.retryable,
            user_error: self.user_error,
            output_kept: self.output_kept,
            unexplained: self.unexplained,
            not_executed: self.not_executed,
            last_seq: self.last_seq,
            ..Outcome::default()
        }
    }

    /// All of them, or none if one cannot be read: it may be the one that matters.
    pub fn terminal_records(&self) -> Option<TerminalRecords> {
        let records =
            self.terminal_records.as_ref()?.iter().map(TerminalRecord::record).collect::<Option<_>>()?;
        Some(TerminalRecords { last_result: self.last_result?, records })
    }
}

impl From<Usage> for UsageJson {
    fn from(usage: Usage) -> Self {
        Self {
            cpu_micros: usage.cpu_micros,
            read_bytes: usage.read_bytes,
            written_bytes: usage.written_bytes,
            memory_peak_bytes: usage.memory_peak_bytes,
            cgroup_limit_bytes: usage.memory_limit_bytes,
            cgroup_peak_bytes: usage.cgroup_peak_bytes,
            oom_kills: usage.oom_kills,
            largest: usage.largest.map(|LargestProcess { pid, name, memory_bytes }| LargestJson {
                pid,
                name,
                memory_bytes,
            }),
        }
    }
}

impl From<&PhaseTime> for PhaseJson {
    fn from(phase: &PhaseTime) -> Self {
        let name = phase.phase().as_str_name().trim_start_matches("PHASE_").to_lowercase();
        Self { phase: name, micros: phase.duration_micros }
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The outcome counts even if its terminal records cannot be read.
fn all_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<TerminalRecord>>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(Vec::deserialize(value).ok())
}

/// `succeeded` for `REASON_SUCCEEDED`.
mod reason {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use sqlflow_proto::agent::outcome::Reason;

    const PREFIX: &str = "REASON_";

    pub(super) fn serialize<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
        reason.as_str_name().trim_start_matches(PREFIX).to_lowercase().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Reason, D::Error> {
        let name = String::deserialize(deserializer)?;
        Reason::from_str_name(&format!("{PREFIX}{}", name.to_uppercase()))
            .ok_or_else(|| D::Error::custom(format!("unknown reason {name}")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sqlflow_proto::agent::Phase;
    use sqlflow_proto::record::{
        EarlierModel, ModelPublished, StatementEnded, StatementStarted, record::Payload,
    };

    use super::*;

    fn record(seq: u64, payload: Payload) -> Record {
        Record { seq, time_unix_micros: 11, statement: Some(0), payload: Some(payload) }
    }

    fn success() -> Outcome {
        Outcome { reason: Reason::Succeeded.into(), last_seq: 9, ..Outcome::default() }
    }

    #[test]
    fn reader_gets_what_the_writer_wrote() {
        let model = ModelPublished {
            name: "m".into(),
            uri: "file:///m".into(),
            size_bytes: 5,
            sha256: vec![0, 255].into(),
            removed: true,
            replaced: Some(EarlierModel { made_ms: 7, trained_by: "ann".into() }),
        };
        let records = [
            record(6, Payload::Started(StatementStarted {})),
            record(7, Payload::Model(model)),
            record(9, Payload::Ended(StatementEnded { duration_micros: 3, rows_affected: None })),
        ];
        let outcome = Outcome { exit_code: Some(0), message: "done".into(), output_kept: true, ..success() };
        let text = TerminationMessage::new(&outcome).with_terminal_records(4, &records).encode();
        let read = TerminationMessage::decode(&text).unwrap();
        assert_eq!(read.outcome(), outcome);
        let expected = TerminalRecords { last_result: 4, records: records.to_vec() };
        assert_eq!(read.terminal_records(), Some(expected));
    }

    /// The format on the wire: other programs read it too.
    #[test]
    fn fields_keep_their_names() {
        let usage = Usage {
            memory_limit_bytes: 6,
            largest: Some(LargestProcess { pid: 3, name: "sh".into(), memory_bytes: 8 }),
            ..Usage::default()
        };
        let phases = vec![PhaseTime { phase: Phase::Running.into(), duration_micros: 5 }];
        let outcome = Outcome {
            signal: Some(9),
            usage: Some(usage),
            phases,
            user_error: true,
            ended_by: "pid 1".into(),
            ..success()
        };
        let records =
            [record(9, Payload::Ended(StatementEnded { duration_micros: 3, rows_affected: Some(2) }))];
        let text = TerminationMessage::new(&outcome).with_terminal_records(4, &records).encode();
        let expected = json!({
            "reason": "succeeded", "exit_code": null, "signal": 9, "message": "", "retryable": false, "records": 9,
            "user_error": true, "ended_by": "pid 1", "last_result": 4,
            "usage": {
                "cpu_micros": 0, "read_bytes": 0, "written_bytes": 0, "memory_peak_bytes": 0,
                "cgroup_limit_bytes": 6, "cgroup_peak_bytes": 0, "oom_kills": 0,
                "largest": { "pid": 3, "name": "sh", "memory_bytes": 8 },
            },
            "phases": [{ "phase": "running", "micros": 5 }],
            "marks": [{ "seq": 9, "time": 11, "statement": 0, "ended": { "micros": 3, "rows": 2 } }],
        });
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    }

    #[test]
    fn only_a_success_has_terminal_records_and_only_if_they_fit() {
        let ended = record(4, Payload::Ended(StatementEnded::default()));
        let failed = Outcome { reason: Reason::Exited.into(), ..Outcome::default() };
        let message = TerminationMessage::new(&failed).with_terminal_records(3, [&ended]);
        assert_eq!(message.terminal_records(), None);

        let model = ModelPublished { uri: "x".repeat(4000), ..ModelPublished::default() };
        let model = record(5, Payload::Model(model));
        let text = TerminationMessage::new(&success()).with_terminal_records(3, [&ended, &model]).encode();
        assert!(text.len() <= MAX_BYTES && !text.contains("marks"), "{text}");
        assert_eq!(TerminationMessage::decode(&text).unwrap().outcome(), success());
    }

    #[test]
    fn message_is_cut_to_fit() {
        for message in ["\u{1}".repeat(5000), "é".repeat(4000), String::new()] {
            let outcome = Outcome { message, exit_code: Some(3), ..Outcome::default() };
            let text = TerminationMessage::new(&outcome).encode();
            assert!(text.len() <= MAX_BYTES);
            assert_eq!(TerminationMessage::decode(&text).unwrap().outcome().exit_code, Some(3));
        }
    }

    #[test]
    fn missing_fields_have_defaults_and_unreadable_records_leave_the_outcome() {
        let read = |value: Value| TerminationMessage::decode(&value.to_string()).unwrap();
        let short = read(json!({ "reason": "input_failed", "new_field": 1 }));
        assert_eq!(short.outcome().reason(), Reason::InputFailed);
        for marks in [json!([{ "seq": 7 }]), json!("x"), json!([{ "seq": 7, "time": 1, "later": {} }])] {
            let message =
                read(json!({ "reason": "succeeded", "records": 9, "last_result": 4, "marks": marks }));
            assert_eq!((message.terminal_records(), message.outcome()), (None, success()));
        }
    }

    #[test]
    fn foreign_text_is_rejected() {
        for text in ["", "killed", "{}", "[1]", r#"{"reason":"SUCCEEDED!"}"#, r#"{"reason":5}"#] {
            assert_eq!(TerminationMessage::decode(text), None, "{text}");
        }
    }
}
