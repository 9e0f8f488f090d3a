//! The log as its users rely on it. Small segments, so that few records fill many.

mod behaviour;
mod compaction;
mod damage;
mod holes;
mod locks;
mod model;
mod processes;
mod restored;
mod tiered;
mod unreadable;
mod upkeep;

use std::path::Path;

use bytes::Bytes;
use sqlflow_job::{AttemptId, JobId};
use sqlflow_proto::record::{Notice, Output, Record, StatementStarted, StoredRecord, gap, record::Payload};
use sqlflow_proto::v1::{Progress, Rows};

use super::{Entry, LogError, LogOptions, Producer, ResultLog, SegmentLog};

fn options(dir: &Path) -> LogOptions {
    LogOptions {
        dir: dir.to_owned(),
        segment_bytes: 700,
        retain_output_bytes_per_job: u64::MAX,
        max_bytes_per_job: u64::MAX,
        opened_micros: 0,
        fsync: false,
    }
}

fn open(dir: &Path) -> SegmentLog {
    SegmentLog::open(options(dir)).unwrap()
}

/// A job whose positions do not jump after a repair: it was made in the future, so all floors are 0.
fn job_of_the_future() -> JobId {
    let id = JobId::generate();
    format!("7{}", &id.as_str()[1..]).parse().unwrap()
}

fn attempt(job: &JobId, step: u32, number: u32) -> AttemptId {
    AttemptId { job: job.clone(), step, number }
}

fn agent(step: u32, attempt: u32) -> Producer {
    Producer { step, attempt, rank: 0 }
}

fn entry(step: u32, attempt: u32, seq: u64, payload: Payload) -> Entry {
    let time_unix_micros = i64::try_from(seq).unwrap();
    Entry {
        producer: agent(step, attempt),
        record: Record { seq, time_unix_micros, statement: Some(step), payload: Some(payload) },
    }
}

/// Output of so many bytes, which are told by the seq.
fn output(step: u32, attempt: u32, seq: u64, length: usize) -> Entry {
    let data = Bytes::from(vec![seq.to_le_bytes()[0]; length]);
    entry(step, attempt, seq, Payload::Output(Output { data, ..Output::default() }))
}

fn rows(step: u32, attempt: u32, seq: u64) -> Entry {
    entry(step, attempt, seq, Payload::Rows(Rows { count: 3, ..Rows::default() }))
}

fn started(step: u32, attempt: u32, seq: u64) -> Entry {
    entry(step, attempt, seq, Payload::Started(StatementStarted {}))
}

fn progress(step: u32, attempt: u32, seq: u64) -> Entry {
    entry(step, attempt, seq, Payload::Progress(Progress::default()))
}

fn notice(text: &str) -> Entry {
    entry(0, 0, 0, Payload::Notice(Notice { text: text.to_owned(), ..Notice::default() }))
}

/// Bytes of output that a gap of retention speaks of.
fn retained_gap(stored: &StoredRecord) -> Option<u64> {
    match stored.record.as_ref()?.payload.as_ref()? {
        Payload::Gap(gap) if gap.reason() == gap::Reason::Retention => gap.bytes,
        _ => None,
    }
}

/// Everything in the log, read in pages of so many bytes.
async fn read_all(log: &impl ResultLog, job: &JobId, page_bytes: usize) -> Vec<StoredRecord> {
    let mut all: Vec<StoredRecord> = Vec::new();
    loop {
        let after = all.last().map_or(0, |stored| stored.position);
        let page = log.read(job, after, page_bytes).await.unwrap();
        if page.records.is_empty() {
            return all;
        }
        all.extend(page.records);
    }
}

fn positions(records: &[StoredRecord]) -> Vec<u64> {
    records.iter().map(|stored| stored.position).collect()
}

/// Position and seq of each record.
fn seqs(records: &[StoredRecord]) -> Vec<(u64, u64)> {
    records.iter().map(|stored| (stored.position, stored.record.as_ref().unwrap().seq)).collect()
}
