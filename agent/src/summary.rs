//! An outcome as JSON, small enough for a Pod's termination message.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::{Value, json};
use sqlflow_os::durable;
use sqlflow_proto::agent::{Outcome, outcome::Reason};
use sqlflow_proto::record::{Record, record::Payload};

use crate::output::terminal_records::TerminalRecords;

/// What Kubernetes keeps of a termination message.
const LIMIT: usize = 4096;

/// One line of at most 4,096 bytes.
pub(crate) fn json(outcome: &Outcome) -> String {
    cut(outcome, |_| {})
}

/// The same, with what a server needs to call it a success when everything else is lost.
pub(crate) fn with_marks(outcome: &Outcome, terminal_records: &TerminalRecords) -> String {
    if outcome.reason() != Reason::Succeeded {
        return json(outcome);
    }
    let text = cut(outcome, |value| {
        value["last_result"] = json!(terminal_records.last_result);
        value["marks"] = terminal_records.records.iter().filter_map(mark).collect();
    });
    // Without them it is not a success that nobody has seen, and that is the truth too.
    if text.len() <= LIMIT { text } else { json(outcome) }
}

/// Writes it so that a kill of this process at any moment leaves a whole outcome, or none.
///
/// # Errors
/// Those of the file system.
pub(crate) fn write(path: &Path, json: &str) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            durable::replace_unsynced(path, |file| file.write_all(json.as_bytes()))
        }
        // A Pod's termination log cannot be replaced, and a file that is there has an owner and a mode.
        _ => write_over(path, json),
    }
}

fn write_over(path: &Path, json: &str) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(false).open(path)?;
    let kind = file.metadata()?;
    // One write covers what stood there: JSON may end with blanks. It is of one page, and the kernel writes a page
    // whole before it looks at signals.
    let old = usize::try_from(kind.len()).unwrap_or(usize::MAX).min(LIMIT);
    file.write_all(format!("{json:old$}").as_bytes())?;
    if kind.is_file() { file.set_len(json.len() as u64) } else { Ok(()) }
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
            "removed": model.removed,
            "replaced": model.replaced.as_ref().map(|it| json!({ "ms": it.made_ms, "by": it.trained_by })),
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
    if outcome.user_error {
        value["user_error"] = json!(true);
    }
    if outcome.unexplained {
        value["unexplained"] = json!(true);
    }
    if outcome.not_executed {
        value["not_executed"] = json!(true);
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
    use std::sync::atomic::{AtomicBool, Ordering};

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
        let mut terminal_records = TerminalRecords { last_result: 3, records: [ended(4)].into() };
        let value: Value = serde_json::from_str(&with_marks(&outcome, &terminal_records)).unwrap();
        assert_eq!((&value["last_result"], &value["marks"][0]["ended"]["rows"]), (&json!(3), &json!(2)));

        let model = ModelPublished { uri: "x".repeat(4000), ..ModelPublished::default() };
        terminal_records.note(&Record { seq: 5, payload: Some(Payload::Model(model)), ..Record::default() });
        let text = with_marks(&outcome, &terminal_records);
        assert!(text.len() <= LIMIT && !text.contains("marks"), "{text}");
    }

    #[test]
    fn a_reader_of_a_new_file_finds_a_whole_outcome() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outcome.json");
        let text = json(&Outcome { message: "x".repeat(3000), ..Outcome::default() });
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut reads = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(found) = fs::read_to_string(&path) else { continue };
                    if found != text {
                        return Err(found);
                    }
                    reads += 1;
                }
                Ok(reads)
            });
            for _ in 0..3000 {
                write(&path, &text).unwrap();
                fs::remove_file(&path).unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
            assert!(reader.join().unwrap().unwrap() > 0, "nothing was read");
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left beside it");
    }

    #[test]
    fn nothing_is_left_of_what_stood_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outcome.json");
        for old in [0, 10, LIMIT, 20 * LIMIT] {
            fs::write(&path, "x".repeat(old)).unwrap();
            let text = json(&Outcome::default());
            write(&path, &text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
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
