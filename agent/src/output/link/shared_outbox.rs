use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlflow_os::clock::now_micros;
use sqlflow_proto::record::output::Stream;
use sqlflow_proto::record::{Notice, Record, StatementEnded, notice, record::Payload};
use sqlflow_sync::lock;
use tokio::sync::{Notify, watch};

use crate::output::ack_rate::Speed;
use crate::output::outbox::Outbox;
use crate::output::overflow_queue::{DiskWork, Reading};
use crate::output::terminal_records::TerminalRecords;

/// Bytes kept of the end of stderr before the first statement.
const STDERR_TAIL_BYTES: usize = 512;

/// The outbox, with the signals between those who fill it, send from it and serve its overflow file.
#[derive(Debug)]
pub struct SharedOutbox {
    state: Mutex<State>,
    /// There may be something to send.
    changed: Arc<Notify>,
    /// There may be room. One waiter: the reader.
    room: Notify,
    /// There may be work with the overflow file. One waiter: the task that serves it.
    disk: Notify,
    acked: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    outbox: Outbox,
    speed: Speed,
    /// End of stderr before the first statement: the error of an interpreter that cannot start. Later output is only in
    /// the log, since the user's code may print anything.
    stderr_tail: Vec<u8>,
    /// Ends of statements that end with an output, such as TRAIN with its model: reported once it is committed. An
    /// attempt that only publishes gets none from a submitter.
    held_ends: BTreeMap<u32, Option<StatementEnded>>,
    held_since: Instant,
}

/// Records that no server has acknowledged.
#[derive(Debug)]
pub struct Unacked {
    /// Those in memory.
    pub records: Vec<Record>,
    /// Length-delimited, in the overflow file.
    pub on_disk: std::ops::Range<u64>,
    /// Length-delimited, after those.
    pub encoded: bytes::Bytes,
}

impl Unacked {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.on_disk.is_empty() && self.encoded.is_empty()
    }
}

/// Result of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// More records are durable than before.
    New,
    /// Nothing new.
    Known,
}

/// Result of waiting for acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All records are durable.
    All,
    /// The server acknowledged nothing for the whole timeout.
    Stalled,
}

impl SharedOutbox {
    pub(super) fn new(limit: usize, changed: Arc<Notify>) -> Self {
        let outbox = Outbox::new(limit);
        Self {
            state: Mutex::new(State {
                outbox,
                speed: Speed::default(),
                stderr_tail: Vec::new(),
                held_ends: BTreeMap::new(),
                held_since: Instant::now(),
            }),
            changed,
            room: Notify::new(),
            disk: Notify::new(),
            acked: watch::Sender::new(0),
        }
    }

    /// Changes the number of bytes that the outbox may hold.
    pub fn set_limit(&self, limit: usize) {
        lock(&self.state).outbox.set_limit(limit);
        self.room.notify_one();
    }

    /// Whether the reader may read on.
    pub fn has_room(&self) -> bool {
        lock(&self.state).outbox.has_room()
    }

    /// Ends when there may be room; check again then.
    pub async fn room(&self) {
        self.room.notified().await;
    }

    /// Appends output of the command, under the statement that was started last.
    pub fn push_output(&self, payload: Payload) -> u64 {
        let mut state = lock(&self.state);
        let statement = state.outbox.statement();
        if let (None, Payload::Output(output)) = (statement, &payload)
            && output.stream() == Stream::Stderr
        {
            let tail = &mut state.stderr_tail;
            tail.extend(&output.data[output.data.len().saturating_sub(STDERR_TAIL_BYTES)..]);
            tail.drain(..tail.len().saturating_sub(STDERR_TAIL_BYTES));
        }
        let seq = state.outbox.push(now_micros(), statement, payload);
        self.notify_pushed();
        seq
    }

    /// Warns in the agent's log and in a record.
    pub fn warn(&self, text: String) {
        tracing::warn!("{text}");
        self.push_output(Payload::Notice(Notice { kind: notice::Kind::Warning.into(), text }));
    }

    /// Holds back the ends of these statements until [`Self::push_held_ends`].
    pub fn hold_ends(&self, statements: impl IntoIterator<Item = u32>) {
        let mut state = lock(&self.state);
        state.held_ends = statements.into_iter().map(|statement| (statement, None)).collect();
        state.held_since = Instant::now();
    }

    /// Appends the ends that were held back: their outputs are committed.
    pub fn push_held_ends(&self) {
        let mut state = lock(&self.state);
        let took = u64::try_from(state.held_since.elapsed().as_micros()).unwrap_or(u64::MAX);
        for (statement, ended) in std::mem::take(&mut state.held_ends) {
            let ended = ended.unwrap_or(StatementEnded { duration_micros: took, rows_affected: None });
            state.outbox.push(now_micros(), Some(statement), Payload::Ended(ended));
        }
        self.notify_pushed();
    }

    /// Appends a record about a statement, or about the attempt. An end that is held back is not appended yet.
    pub fn push(&self, statement: Option<u32>, payload: Payload) -> u64 {
        let mut state = lock(&self.state);
        if let Payload::Ended(ended) = &payload
            && let Some(held) = statement.and_then(|it| state.held_ends.get_mut(&it))
        {
            *held = Some(*ended);
            return state.outbox.last_seq();
        }
        if matches!(payload, Payload::Started(_)) {
            state.outbox.set_statement(statement);
        }
        let seq = state.outbox.push(now_micros(), statement, payload);
        self.notify_pushed();
        seq
    }

    fn notify_pushed(&self) {
        self.changed.notify_one();
        self.disk.notify_one();
    }

    /// Records from `from` on, at most `max_bytes` of them, but at least one if there is one.
    pub(super) fn batch(&self, from: u64, max_bytes: usize) -> Vec<Record> {
        lock(&self.state).outbox.batch(from, max_bytes)
    }

    /// Drops records: a server holds everything up to `seq`.
    pub fn ack(&self, seq: u64) -> Acked {
        let mut state = lock(&self.state);
        let acked_before = state.outbox.acked();
        let before = state.outbox.bytes();
        state.outbox.ack(seq);
        let (acked, left) = (before - state.outbox.bytes(), state.outbox.bytes());
        state.speed.acked(Instant::now(), acked as u64, left > 0);
        self.acked.send_replace(state.outbox.acked());
        self.disk.notify_one();
        self.room.notify_one();
        // The window may be open again.
        self.changed.notify_one();
        if state.outbox.acked() > acked_before { Acked::New } else { Acked::Known }
    }

    /// Follows the sequence number up to which everything is durable.
    pub fn acked(&self) -> watch::Receiver<u64> {
        self.acked.subscribe()
    }

    /// Sequence number up to which everything is durable.
    pub fn acked_seq(&self) -> u64 {
        lock(&self.state).outbox.acked()
    }

    /// Sequence number of the last record.
    pub fn last_seq(&self) -> u64 {
        lock(&self.state).outbox.last_seq()
    }

    /// Waits until all present records are acknowledged. The timeout begins again with each acknowledgement.
    pub async fn drained(&self, timeout: Duration) -> Drained {
        let (last, mut acked) = (self.last_seq(), self.acked());
        while *acked.borrow_and_update() < last {
            if tokio::time::timeout(timeout, acked.changed()).await.is_err() {
                return Drained::Stalled;
            }
        }
        Drained::All
    }

    /// The terminal records that no server has acknowledged.
    pub fn terminal_records(&self) -> TerminalRecords {
        lock(&self.state).outbox.terminal_records().clone()
    }

    /// Whether records may go to the overflow file.
    pub(super) fn set_spills(&self, spills: bool) {
        lock(&self.state).outbox.set_spills(spills);
        self.room.notify_one();
    }

    /// Adds an overflow file of at most `limit` bytes; see [`crate::output::overflow`].
    pub fn set_disk_limit(&self, limit: u64) {
        lock(&self.state).outbox.set_disk_limit(limit);
    }

    /// Waits for the next work with the overflow file. Safe to cancel.
    pub async fn disk_work(&self) -> DiskWork {
        loop {
            let work = lock(&self.state).disk_work();
            // Records may have come back without a read.
            self.changed.notify_one();
            self.room.notify_one();
            match work {
                Some(work) => return work,
                None => self.disk.notified().await,
            }
        }
    }

    /// Takes the result of a write.
    pub fn wrote_to_disk(&self, succeeded: bool) {
        lock(&self.state).outbox.tail.wrote(succeeded);
        self.room.notify_one();
    }

    /// Allows a retry of a write that failed.
    pub fn retry_disk(&self) {
        lock(&self.state).outbox.tail.retry();
        self.room.notify_one();
    }

    /// Takes the result of a read.
    pub fn read_from_disk(&self, reading: Reading) {
        let mut state = lock(&self.state);
        let records = state.outbox.tail.read(reading);
        state.outbox.refill(records);
        self.changed.notify_one();
        self.room.notify_one();
    }

    /// The last line of stderr, if no statement was started.
    pub fn stderr_tail(&self) -> Option<String> {
        let state = lock(&self.state);
        if state.outbox.statement().is_some() {
            return None;
        }
        let text = String::from_utf8_lossy(&state.stderr_tail);
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        Some(line.chars().filter(|it| !it.is_control()).collect())
    }

    /// Bytes that no server has acknowledged.
    pub fn unacked_bytes(&self) -> u64 {
        lock(&self.state).outbox.unacked_bytes()
    }

    /// Acknowledged bytes per second while there was always something to send; 0: not known.
    pub fn speed(&self) -> u64 {
        lock(&self.state).speed.bytes_per_second()
    }

    /// Everything that no server has acknowledged, in order: the records in memory, then a part of the overflow file,
    /// then more encoded records.
    pub fn unacked(&self) -> Unacked {
        let state = lock(&self.state);
        let (on_disk, encoded) = state.outbox.tail.rest();
        let lost = state.outbox.tail.gap_for_lost();
        Unacked { records: state.outbox.records().cloned().chain(lost).collect(), on_disk, encoded }
    }
}

impl State {
    fn disk_work(&mut self) -> Option<DiskWork> {
        let wants = self.outbox.wants_records();
        let work = self.outbox.tail.work(wants);
        if work.is_none() && wants {
            let records = self.outbox.tail.take_unwritten();
            self.outbox.refill(records);
        }
        work
    }
}
