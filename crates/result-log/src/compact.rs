//! Compaction of records: pure. Output and progress are removed. One gap record stands for consecutive output of one
//! agent, at the position of the last removed record. All other records keep their positions.

use sqlflow_proto::record::{Gap, Record, StoredRecord, gap, record::Payload};

use super::Producer;
use super::summary::is_removable;

/// Takes records in order; returns those that are kept. Gaps of earlier compactions are joined.
#[derive(Default)]
pub(super) struct Compactor {
    kept: Vec<StoredRecord>,
    run: Option<Run>,
}

/// Consecutive removed records of one producer.
struct Run {
    producer: Producer,
    /// Their statement, if all have the same.
    statement: Option<u32>,
    last_position: u64,
    shift: u64,
    time_unix_micros: i64,
    /// Size of the output; `None`: only progress was removed, which needs no gap record.
    bytes: Option<u64>,
}

impl Compactor {
    pub(super) fn take(&mut self, stored: StoredRecord) {
        let Some(record) = stored.record.as_ref().filter(|record| is_removable(record)) else {
            self.end_run();
            self.kept.push(stored);
            return;
        };
        if self.run.as_ref().is_some_and(|run| run.producer != Producer::of(&stored)) {
            self.end_run();
        }
        let run = self.run.get_or_insert(Run {
            producer: Producer::of(&stored),
            statement: record.statement,
            last_position: 0,
            shift: 0,
            time_unix_micros: 0,
            bytes: None,
        });
        run.last_position = stored.position;
        run.shift = stored.shift;
        run.time_unix_micros = record.time_unix_micros;
        if run.statement != record.statement {
            run.statement = None;
        }
        if let Some(bytes) = output_bytes(record) {
            run.bytes = Some(run.bytes.unwrap_or(0) + bytes);
        }
    }

    /// The records that are kept.
    pub(super) fn finish(mut self) -> Vec<StoredRecord> {
        self.end_run();
        self.kept
    }

    fn end_run(&mut self) {
        let Some(run) = self.run.take() else { return };
        let Some(bytes) = run.bytes else { return };
        let gap = Gap { reason: gap::Reason::Retention.into(), bytes: Some(bytes) };
        let record = Record {
            seq: 0,
            time_unix_micros: run.time_unix_micros,
            statement: run.statement,
            payload: Some(Payload::Gap(gap)),
        };
        self.kept.push(StoredRecord {
            position: run.last_position,
            step: run.producer.step,
            attempt: run.producer.attempt,
            rank: run.producer.rank,
            record: Some(record),
            shift: run.shift,
        });
    }
}

/// Size of the output that is missing without the record.
fn output_bytes(record: &Record) -> Option<u64> {
    match &record.payload {
        Some(Payload::Output(output)) => Some(output.data.len() as u64),
        Some(Payload::Gap(gap)) => gap.bytes,
        _ => None,
    }
}
