//! The part of the outbox that does not fit into memory: encoded records in a file, first in first out. Pure: it
//! returns the work with the file, and takes the results.
//!
//! ```text
//! memory ←─ [ file: read_at … written ][ being written ][ buffer ] ←─ push
//! ```

use bytes::{Buf as _, Bytes, BytesMut};
use prost::Message as _;
use sqlflow_proto::record::{Gap, Record, gap, record::Payload};

use super::frame::{self, Front, MAX_FRAME};
use super::resync_points::{Start, Starts};

/// Size of the buffer before the file.
const BUFFER: usize = 1 << 20;
/// Size of one read, unless a record is larger.
const READ: usize = 1 << 20;
/// Maximum number of gaps in one result, since the file may have held millions of records.
const MAX_GAPS: u64 = 1000;

/// Work with the file; one at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskWork {
    /// Write these bytes at this offset.
    Write(u64, Bytes),
    /// Read this number of bytes at this offset.
    Read(u64, usize),
}

/// Result of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// All bytes.
    Whole(Bytes),
    /// Some bytes are unreadable for good.
    Damaged {
        /// Bytes before the first unreadable one.
        before: Bytes,
        /// Offset from which on the file may be readable again.
        until: u64,
    },
    /// Retryable.
    Failed,
}

/// Records that are not in memory.
#[derive(Debug)]
pub(super) struct Tail {
    /// Maximum length of the file; 0: there is no file.
    limit: u64,
    /// Number of records, in file and buffers.
    count: u64,
    read_at: u64,
    written: u64,
    in_flight: Option<Bytes>,
    buffer: BytesMut,
    is_busy: bool,
    next_read: usize,
    /// The last write failed. No records are accepted until its retry.
    is_broken: bool,
    /// The record before the first one of the tail, without its payload.
    previous: Record,
    /// Number of lost records before all others. A gap will stand for each.
    lost: u64,
    /// Where reading resumes after a lost part of the file.
    starts: Starts,
}

/// Start of the next record.
enum Next {
    /// At the front of the remaining bytes.
    Here,
    Unknown,
}

impl Tail {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            count: 0,
            read_at: 0,
            written: 0,
            in_flight: None,
            buffer: BytesMut::new(),
            is_busy: false,
            next_read: READ,
            is_broken: false,
            previous: Record::default(),
            lost: 0,
            starts: Starts::new(limit),
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Its bytes in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.buffer.len() + self.in_flight.as_ref().map_or(0, Bytes::len)
    }

    /// All its bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.written - self.read_at + self.memory_bytes() as u64
    }

    /// Whether another record may be pushed. One that must not be lost may be pushed anyway.
    pub(super) fn has_room(&self) -> bool {
        let end = self.written + self.memory_bytes() as u64;
        !self.is_broken && self.memory_bytes() < BUFFER && end < self.limit
    }

    pub(super) fn push(&mut self, record: &Record) {
        if self.count == 0 {
            self.previous = Record { seq: record.seq - 1, ..without_payload(record) };
        }
        let at = self.written + self.memory_bytes() as u64;
        self.starts.note(Start { at, seq: record.seq });
        record.encode_length_delimited(&mut self.buffer).expect("a BytesMut grows");
        self.count += 1;
    }

    /// The next work with the file. `wants_records`: memory has room.
    pub(super) fn work(&mut self, wants_records: bool) -> Option<DiskWork> {
        if self.is_busy || self.limit == 0 || (wants_records && self.lost > 0) {
            return None;
        }
        if wants_records && self.read_at < self.written {
            self.is_busy = true;
            let left = usize::try_from(self.written - self.read_at).unwrap_or(usize::MAX);
            return Some(DiskWork::Read(self.read_at, self.next_read.min(left)));
        }
        // Records that memory takes at once do not go through the file.
        if self.in_flight.is_none() && !self.buffer.is_empty() && !wants_records {
            self.in_flight = Some(self.buffer.split().freeze());
        }
        let bytes = self.in_flight.clone()?;
        if self.is_broken || (wants_records && self.read_at == self.written) {
            return None;
        }
        self.is_busy = true;
        Some(DiskWork::Write(self.written, bytes))
    }

    /// Takes the result of a write. After a failure, memory keeps the records.
    pub(super) fn wrote(&mut self, succeeded: bool) {
        self.is_busy = false;
        self.is_broken = !succeeded;
        if succeeded {
            self.written += self.in_flight.take().map_or(0, |bytes| bytes.len() as u64);
        }
    }

    /// Allows a retry of the failed write.
    pub(super) fn retry(&mut self) {
        self.is_broken = false;
    }

    /// Takes the result of a read. Returns complete records in order, with a gap for each damaged one. Gaps for records
    /// that are unreadable or whose start is unknown come from [`Self::take_unwritten`].
    pub(super) fn read(&mut self, reading: Reading) -> Vec<Record> {
        self.is_busy = false;
        let (mut bytes, unreadable_until) = match reading {
            Reading::Whole(bytes) => (bytes, None),
            Reading::Damaged { before, until } => (before, Some(until)),
            Reading::Failed => return Vec::new(),
        };
        let before = bytes.len();
        let is_rest = before as u64 == self.written - self.read_at;
        let in_file = self.count - self.count_in_memory();
        let (records, next) = self.decode(&mut bytes, in_file);
        let taken = before - bytes.len();
        // A record that is larger than one read needs a larger read.
        self.next_read = if taken == 0 { (self.next_read * 2).min(MAX_FRAME) } else { READ };
        self.read_at += taken as u64;
        let is_lost = matches!(next, Next::Unknown) || (is_rest && !bytes.is_empty());
        match unreadable_until {
            Some(until) => self.lose_up_to(until),
            None if is_lost => self.lose_up_to(self.read_at + 1),
            None => {}
        }
        if self.read_at == self.written {
            self.lost = self.count - self.count_in_memory();
            self.begin_file_again();
        }
        records
    }

    /// Skips the file up to `at`. Reading resumes at the first known start after it.
    fn lose_up_to(&mut self, at: u64) {
        self.next_read = READ;
        let next = self.starts.from(at).filter(|it| it.at < self.written && it.seq > self.previous.seq);
        self.read_at = next.map_or(self.written, |it| it.at);
        self.lost = next.map_or(0, |it| it.seq - self.previous.seq - 1);
    }

    /// Takes records that are not in the file, if none in the file precedes them.
    pub(super) fn take_unwritten(&mut self) -> Vec<Record> {
        if self.is_busy {
            return Vec::new();
        }
        if self.lost > 0 {
            let gaps = self.lost.min(MAX_GAPS);
            self.lost -= gaps;
            return (0..gaps).map(|_| self.take_gap()).collect();
        }
        if self.read_at < self.written {
            return Vec::new();
        }
        let mut bytes = self.in_flight.take().unwrap_or_default();
        let (mut records, _) = self.decode(&mut bytes, self.count);
        let mut bytes = self.buffer.split().freeze();
        records.extend(self.decode(&mut bytes, self.count).0);
        self.starts.clear();
        self.is_broken = false;
        self.begin_file_again();
        records
    }

    /// Decodes at most `left` records from the front of `bytes`, with gaps for damaged ones between them.
    fn decode(&mut self, bytes: &mut Bytes, mut left: u64) -> (Vec<Record>, Next) {
        let mut records = Vec::new();
        while bytes.has_remaining() {
            let mut ahead = bytes.clone();
            match Front::take(&mut ahead) {
                Front::Record(record) => {
                    let missing = record.seq.checked_sub(self.previous.seq + 1);
                    let Some(missing) = missing.filter(|it| *it < left.min(MAX_GAPS)) else {
                        return (records, Next::Unknown);
                    };
                    records.extend((0..missing).map(|_| self.take_gap()));
                    records.push(self.take(record));
                    left -= missing + 1;
                }
                // The sequence number of the next one shows how many are missing.
                Front::Damaged => {}
                Front::Incomplete => return (records, Next::Here),
                Front::Unframed => return (records, Next::Unknown),
            }
            *bytes = ahead;
        }
        (records, Next::Here)
    }

    fn take(&mut self, record: Record) -> Record {
        self.count -= 1;
        self.previous = without_payload(&record);
        record
    }

    /// A gap instead of the next record.
    fn take_gap(&mut self) -> Record {
        self.take(self.gap(1))
    }

    /// A gap instead of the next records.
    fn gap(&self, records: u64) -> Record {
        let gap = Gap { reason: gap::Reason::Damaged.into(), bytes: None };
        let seq = self.previous.seq + records;
        Record { seq, payload: Some(Payload::Gap(gap)), ..self.previous.clone() }
    }

    /// One gap instead of all lost records, which precede all others.
    pub(super) fn gap_for_lost(&self) -> Option<Record> {
        (self.lost > 0).then(|| self.gap(self.lost))
    }

    fn count_in_memory(&self) -> u64 {
        frame::count(self.in_flight.as_deref().unwrap_or_default()) + frame::count(&self.buffer)
    }

    /// Writes from the beginning of the file again once it is empty, so that it stays within its limit.
    fn begin_file_again(&mut self) {
        if self.read_at == self.written {
            self.starts.rebase(self.written);
            (self.read_at, self.written) = (0, 0);
        }
    }

    /// The remaining records: a part of the file, and the bytes after it.
    pub(super) fn rest(&self) -> (std::ops::Range<u64>, Bytes) {
        let mut after = BytesMut::new();
        after.extend_from_slice(self.in_flight.as_deref().unwrap_or_default());
        after.extend_from_slice(&self.buffer);
        (self.read_at..self.written, after.freeze())
    }
}

fn without_payload(record: &Record) -> Record {
    let Record { seq, time_unix_micros, statement, payload: _ } = *record;
    Record { seq, time_unix_micros, statement, payload: None }
}

#[cfg(test)]
mod tests;
