//! What the attempt wants a server to know, shared with the connection. Level-triggered: a new connection looks at
//! what is there and sends what the server does not have, so nothing depends on which stream carried what.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use sqlflow_os::clock::now_micros;
use sqlflow_proto::agent::{
    AttachRequest, CommitRequest, Heartbeat, Outcome, Phase, RecordBatch, attach_request::Message,
};
use sqlflow_proto::record::output::Stream;
use sqlflow_proto::record::{Gap, Notice, Record, gap, notice, record::Payload};
use tokio::sync::{Notify, watch};

use super::outbox::Outbox;
use super::sent::Sent;
use super::speed::Speed;
use super::tail::{DiskWork, Reading};
use super::terminal_records::TerminalRecords;

/// Bytes kept of what the child says last before its first statement.
const STDERR_TAIL_BYTES: usize = 512;

/// Shared between the reader, the supervisor and the connection; all three run on one thread, so locks are free.
#[derive(Debug)]
pub struct Link {
    pending: Mutex<Pending>,
    /// Something may be there to send. One waiter: the connection.
    changed: Notify,
    /// Room may be there again. One waiter: the reader.
    room: Notify,
    /// There may be something to do with the overflow file. One waiter: who serves it.
    disk: Notify,
    acked: watch::Sender<u64>,
}

#[derive(Debug)]
struct Pending {
    outbox: Outbox,
    commit: Option<CommitRequest>,
    /// How many commits were asked for: a stream sends each once.
    commits: u64,
    outcome: Option<Outcome>,
    phase: Phase,
    memory: Memory,
    speed: Speed,
    /// The end of stderr before the first statement: what an interpreter says that cannot even begin. Of what comes
    /// later only the log tells, for a user's code may print anything.
    stderr_tail: Vec<u8>,
    /// Why records are not taken just now.
    stalled: Option<String>,
    first_attached: Option<Instant>,
}

/// Resident memory of the attempt's processes, in bytes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Memory {
    /// At the last look.
    pub now: u64,
    /// The largest seen.
    pub peak: u64,
}

/// What no server has acknowledged.
#[derive(Debug)]
pub struct Unacked {
    /// Those in memory.
    pub records: Vec<Record>,
    /// Length-delimited, in the overflow file.
    pub on_disk: std::ops::Range<u64>,
    /// Length-delimited.
    pub encoded: bytes::Bytes,
}

impl Unacked {
    /// Nothing is left.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.on_disk.is_empty() && self.encoded.is_empty()
    }
}

/// What an acknowledgement said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// Records are durable that were not known to be.
    New,
    /// Nothing new.
    Known,
}

impl Link {
    /// With an empty outbox that holds `limit` bytes.
    pub fn new(limit: usize) -> Self {
        let pending = Pending {
            outbox: Outbox::new(limit),
            commit: None,
            first_attached: None,
            commits: 0,
            outcome: None,
            phase: Phase::Fetching,
            memory: Memory::default(),
            speed: Speed::default(),
            stderr_tail: Vec::new(),
            stalled: None,
        };
        Self {
            pending: Mutex::new(pending),
            changed: Notify::new(),
            room: Notify::new(),
            disk: Notify::new(),
            acked: watch::Sender::new(0),
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().expect("nobody panics while holding the lock")
    }

    /// Changes how many bytes the outbox may hold.
    pub fn set_limit(&self, limit: usize) {
        self.pending().outbox.set_limit(limit);
        self.room.notify_one();
    }

    /// Whether the reader may read on.
    pub fn has_room(&self) -> bool {
        self.pending().outbox.has_room()
    }

    /// Ends when there may be room; look again then.
    pub async fn room(&self) {
        self.room.notified().await;
    }

    /// Appends what the child wrote, under the statement that was started last.
    pub fn push_output(&self, payload: Payload) -> u64 {
        let mut pending = self.pending();
        let statement = pending.outbox.statement();
        if let (None, Payload::Output(output)) = (statement, &payload)
            && output.stream() == Stream::Stderr
        {
            let kept = &mut pending.stderr_tail;
            kept.extend(&output.data[output.data.len().saturating_sub(STDERR_TAIL_BYTES)..]);
            kept.drain(..kept.len().saturating_sub(STDERR_TAIL_BYTES));
        }
        let seq = pending.outbox.push(now_micros(), statement, payload);
        self.pushed();
        seq
    }

    /// Tells of something in the agent's log and among the records.
    pub fn warn(&self, text: String) {
        tracing::warn!("{text}");
        self.push_output(Payload::Notice(Notice { kind: notice::Kind::Warning.into(), text }));
    }

    fn pushed(&self) {
        self.changed.notify_one();
        self.disk.notify_one();
    }

    /// Appends a record about a statement, or about the attempt.
    pub fn push(&self, statement: Option<u32>, payload: Payload) -> u64 {
        let mut pending = self.pending();
        if matches!(payload, Payload::Started(_)) {
            pending.outbox.set_statement(statement);
        }
        let seq = pending.outbox.push(now_micros(), statement, payload);
        self.pushed();
        seq
    }

    /// Begins a stream to a server that holds everything up to `acked_seq`.
    pub fn resume(&self, acked_seq: u64) -> (Sent, Acked) {
        let sent = Sent::resume(acked_seq, self.pending().outbox.acked());
        (sent, self.ack(acked_seq))
    }

    /// A server holds everything up to `seq`.
    pub fn ack(&self, seq: u64) -> Acked {
        let mut pending = self.pending();
        let acked_before = pending.outbox.acked();
        let before = pending.outbox.bytes();
        pending.outbox.ack(seq);
        let (acked, left) = (before - pending.outbox.bytes(), pending.outbox.bytes());
        pending.speed.acked(Instant::now(), acked as u64, left > 0);
        self.acked.send_replace(pending.outbox.acked());
        self.disk.notify_one();
        self.room.notify_one();
        // The window may be open again.
        self.changed.notify_one();
        if pending.outbox.acked() > acked_before { Acked::New } else { Acked::Known }
    }

    /// Follows the number up to which everything is durable.
    pub fn acked(&self) -> watch::Receiver<u64> {
        self.acked.subscribe()
    }

    /// Number up to which everything is durable.
    pub fn acked_seq(&self) -> u64 {
        self.pending().outbox.acked()
    }

    /// Number of the last record.
    pub fn last_seq(&self) -> u64 {
        self.pending().outbox.last_seq()
    }

    /// Waits until everything that is there now is acknowledged, as long as something is within `patience`. False: it
    /// is not.
    pub async fn drained(&self, timeout: Duration) -> bool {
        let (last, mut acked) = (self.last_seq(), self.acked());
        while *acked.borrow_and_update() < last {
            if tokio::time::timeout(timeout, acked.changed()).await.is_err() {
                return false;
            }
        }
        true
    }

    /// What an exit report needs of what no server has acknowledged.
    pub fn terminal_records(&self) -> TerminalRecords {
        self.pending().outbox.terminal_records().clone()
    }

    /// Asks for the commit grant, on every stream until it is answered.
    pub fn ask_commit(&self, request: CommitRequest) {
        let mut pending = self.pending();
        pending.commit = Some(request);
        pending.commits += 1;
        self.changed.notify_one();
    }

    /// The commit was answered, or is not wanted any more. False: it was not asked for.
    pub fn settle_commit(&self) -> bool {
        self.pending().commit.take().is_some()
    }

    /// Reports the outcome, behind all records.
    pub fn report(&self, outcome: Outcome) {
        self.pending().outcome = Some(outcome);
        self.changed.notify_one();
    }

    /// Whether somebody takes records now.
    pub fn set_attached(&self, attached: bool) {
        let mut pending = self.pending();
        pending.outbox.set_spills(!attached);
        if attached {
            pending.first_attached.get_or_insert_with(Instant::now);
        }
        drop(pending);
        self.room.notify_one();
    }

    /// When somebody took records for the first time.
    pub fn first_attached(&self) -> Option<Instant> {
        self.pending().first_attached
    }

    /// From now on there is an overflow file of at most so many bytes; see [`super::overflow`].
    pub fn set_disk_limit(&self, limit: u64) {
        self.pending().outbox.set_disk_limit(limit);
    }

    /// Waits for the next thing to do with the overflow file. Safe to cancel.
    pub async fn disk_work(&self) -> DiskWork {
        loop {
            let work = self.pending().disk_work();
            // Records may have come back without any reading.
            self.changed.notify_one();
            self.room.notify_one();
            match work {
                Some(work) => return work,
                None => self.disk.notified().await,
            }
        }
    }

    /// What became of a write.
    pub fn wrote_to_disk(&self, succeeded: bool) {
        self.pending().outbox.tail.wrote(succeeded);
        self.room.notify_one();
    }

    /// A write that failed may be tried again.
    pub fn retry_disk(&self) {
        self.pending().outbox.tail.retry();
        self.room.notify_one();
    }

    /// What was read.
    pub fn read_from_disk(&self, reading: Reading) {
        let mut pending = self.pending();
        let records = pending.outbox.tail.read(reading);
        pending.outbox.refill(records);
        self.changed.notify_one();
        self.room.notify_one();
    }

    /// What the next heartbeats say.
    pub fn set_phase(&self, phase: Phase) {
        self.pending().phase = phase;
    }

    /// What the next heartbeats say.
    pub fn observe_memory(&self, now: u64) {
        let memory = &mut self.pending().memory;
        *memory = Memory { now, peak: memory.peak.max(now) };
    }

    /// Memory seen so far.
    pub fn memory(&self) -> Memory {
        self.pending().memory
    }

    /// The last line of stderr, if no statement was started.
    pub fn stderr_tail(&self) -> Option<String> {
        let pending = self.pending();
        if pending.outbox.statement().is_some() {
            return None;
        }
        let text = String::from_utf8_lossy(&pending.stderr_tail);
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        Some(line.chars().filter(|it| !it.is_control()).collect())
    }

    /// Bytes that no server has acknowledged.
    pub fn unacked_bytes(&self) -> u64 {
        self.pending().outbox.unacked_bytes()
    }

    /// Bytes a second that were acknowledged while there was always something to send; 0: not known.
    pub fn speed(&self) -> u64 {
        self.pending().speed.bytes_per_second()
    }

    /// Why records are not taken just now, or that they are taken again.
    pub fn set_stalled(&self, why: Option<String>) {
        self.pending().stalled = why;
    }

    /// Why records are not taken just now.
    pub fn stalled(&self) -> Option<String> {
        self.pending().stalled.clone()
    }

    /// Everything that no server has acknowledged, in order: the records in memory, then a part of the overflow file,
    /// then more encoded records.
    pub fn unacked(&self) -> Unacked {
        let pending = self.pending();
        let (on_disk, encoded) = pending.outbox.tail.rest();
        let lost = pending.outbox.tail.gap_for_lost();
        Unacked { records: pending.outbox.records().cloned().chain(lost).collect(), on_disk, encoded }
    }

    /// Waits for the next message that this stream should carry. Safe to cancel.
    pub async fn next_message(&self, sent: &mut Sent) -> AttachRequest {
        loop {
            let message = self.pending().next_message(sent);
            match message {
                Some(message) => return AttachRequest { message: Some(message) },
                None => self.changed.notified().await,
            }
        }
    }
}

impl Pending {
    fn disk_work(&mut self) -> Option<DiskWork> {
        let wants = self.outbox.wants_records();
        let work = self.outbox.tail.work(wants);
        if work.is_none() && wants {
            let records = self.outbox.tail.take_unwritten();
            self.outbox.refill(records);
        }
        work
    }

    fn next_message(&self, sent: &mut Sent) -> Option<Message> {
        if std::mem::take(&mut sent.heartbeat_due) {
            return Some(Message::Heartbeat(Heartbeat {
                phase: self.phase.into(),
                memory_bytes: self.memory.now,
                memory_peak_bytes: self.memory.peak,
                spool_bytes: self.outbox.unacked_bytes(),
            }));
        }
        if let Some(commit) = &self.commit
            && sent.commits < self.commits
        {
            sent.commits = self.commits;
            return Some(Message::Commit(commit.clone()));
        }
        if let Some(seq) = sent.lost_until.take() {
            sent.next_seq = seq + 1;
            let gap = Gap { reason: gap::Reason::LogRestored.into(), bytes: None };
            let payload = Some(Payload::Gap(gap));
            let record = Record { seq, time_unix_micros: now_micros(), statement: None, payload };
            return Some(Message::Records(RecordBatch { records: vec![record] }));
        }
        if !sent.window.is_open() {
            return None;
        }
        let records = self.outbox.batch(sent.next_seq, sent.window.batch_bytes());
        if let Some(last) = records.last() {
            sent.next_seq = last.seq + 1;
            return Some(Message::Records(RecordBatch { records }));
        }
        let outcome = self.outcome.as_ref()?;
        // Right behind the records, so that the server can make both durable at once. It takes it only with all of them.
        if sent.outcome || sent.next_seq <= self.outbox.last_seq() {
            return None;
        }
        sent.outcome = true;
        Some(Message::Outcome(outcome.clone()))
    }
}

#[cfg(test)]
mod tests;
