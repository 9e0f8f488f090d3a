//! The outbox: records in one sequence, kept until they are acknowledged. Pure; no clock, no I/O.
//!
//! Records that do not fit into memory go to the [`Tail`], and return when there is room. Memory always holds the
//! front.

use std::collections::VecDeque;

use prost::Message as _;
use sqlflow_proto::record::{Record, record::Payload};

use super::overflow_queue::Tail;
use super::terminal_records::TerminalRecords;

/// Memory overhead of a record besides its payload.
const RECORD_OVERHEAD: usize = size_of::<Record>() + size_of::<usize>() + 64;

/// Default limit of unacknowledged records in memory, in bytes.
pub const DEFAULT_LIMIT: usize = 8 << 20;

/// Records in order of `seq`, from the first that is not acknowledged.
#[derive(Debug)]
pub struct Outbox {
    records: VecDeque<(Record, usize)>,
    /// Sequence number up to which a server holds everything.
    acked: u64,
    bytes: usize,
    limit: usize,
    pub(super) tail: Tail,
    /// Records may spill to the tail: no server takes them now.
    spills: bool,
    /// The statement that the command's output belongs to.
    statement: Option<u32>,
    terminal_records: TerminalRecords,
}

impl Outbox {
    /// An empty outbox that accepts records while it holds less than `limit` bytes. Its bound is `limit` plus the
    /// largest record.
    pub fn new(limit: usize) -> Self {
        Self {
            records: VecDeque::new(),
            acked: 0,
            bytes: 0,
            limit,
            tail: Tail::new(0),
            spills: false,
            statement: None,
            terminal_records: TerminalRecords::default(),
        }
    }

    /// Adds an overflow file of at most `limit` bytes.
    pub fn set_disk_limit(&mut self, limit: u64) {
        self.tail = Tail::new(limit);
    }

    /// Whether records may spill to the tail. Only without a server: a command that is faster than its server waits for
    /// it, and uses no disk.
    pub fn set_spills(&mut self, spills: bool) {
        self.spills = spills;
    }

    /// Changes the limit. Present records stay.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether the next record may be pushed. A caller that must not lose a record may push it anyway.
    pub fn has_room(&self) -> bool {
        let has_memory = self.tail.count() == 0 && self.bytes < self.limit;
        has_memory || ((self.spills || self.tail.count() > 0) && self.tail.has_room())
    }

    /// Whether memory has room for records of the tail.
    pub fn wants_records(&self) -> bool {
        self.tail.count() > 0 && self.bytes < self.limit / 2
    }

    /// Appends records that return from the tail.
    pub fn refill(&mut self, records: Vec<Record>) {
        for record in records {
            self.hold(record);
        }
    }

    /// Output that follows belongs to this statement.
    pub fn set_statement(&mut self, statement: Option<u32>) {
        self.statement = statement;
    }

    /// The statement that was started last.
    pub fn statement(&self) -> Option<u32> {
        self.statement
    }

    /// Appends a record. Returns its sequence number.
    pub fn push(&mut self, time_unix_micros: i64, statement: Option<u32>, payload: Payload) -> u64 {
        let seq = self.last_seq() + 1;
        let record = Record { seq, time_unix_micros, statement, payload: Some(payload) };
        self.terminal_records.note(&record);
        if self.tail.count() > 0 || (self.spills && self.bytes >= self.limit && self.tail.has_room()) {
            self.tail.push(&record);
        } else {
            self.hold(record);
        }
        seq
    }

    fn hold(&mut self, record: Record) {
        let size = record.encoded_len();
        self.bytes += size + RECORD_OVERHEAD;
        self.records.push_back((record, size));
    }

    /// Drops everything up to `seq`. A number beyond the last record in memory, which no server can have seen, counts
    /// as that record's.
    pub fn ack(&mut self, seq: u64) {
        let seq = seq.min(self.acked + self.records.len() as u64);
        while self.acked < seq {
            let (_, size) = self.records.pop_front().expect("acked < last_seq, so a record is held");
            self.bytes -= size + RECORD_OVERHEAD;
            self.acked += 1;
        }
        self.terminal_records.ack(self.acked);
        if self.records.is_empty() {
            // A burst of small records leaves a large buffer.
            self.records.shrink_to(1024);
        }
    }

    /// Records from `from` on, at most `max_bytes` of encoded data together, but at least one if there is one.
    pub fn batch(&self, from: u64, max_bytes: usize) -> Vec<Record> {
        let skip = usize::try_from(from.saturating_sub(self.acked + 1)).unwrap_or(usize::MAX);
        let skip = skip.min(self.records.len());
        let mut room = max_bytes;
        let mut batch = Vec::new();
        for (record, size) in self.records.range(skip..) {
            if !batch.is_empty() && *size > room {
                break;
            }
            room = room.saturating_sub(*size);
            batch.push(record.clone());
        }
        batch
    }

    /// Unacknowledged records in memory.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().map(|(record, _)| record)
    }

    /// Sequence number of the last record; 0: there is none.
    pub fn last_seq(&self) -> u64 {
        self.acked + self.records.len() as u64 + self.tail.count()
    }

    /// Sequence number up to which a server holds everything.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Unacknowledged terminal records.
    pub fn terminal_records(&self) -> &TerminalRecords {
        &self.terminal_records
    }

    /// Memory held for unacknowledged records.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of all unacknowledged records, in memory and on disk.
    pub fn unacked_bytes(&self) -> u64 {
        self.bytes as u64 + self.tail.bytes()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use sqlflow_proto::record::Output;

    use super::*;

    fn output(len: usize) -> Payload {
        Payload::Output(Output { stream: 1, offset: 0, data: Bytes::from(vec![b'x'; len]) })
    }

    #[test]
    fn sequence_numbers_start_at_one_across_kinds() {
        let mut outbox = Outbox::new(1 << 20);
        assert_eq!(outbox.push(0, None, output(1)), 1);
        assert_eq!(outbox.push(0, Some(3), Payload::Started(Default::default())), 2);
        assert_eq!(outbox.last_seq(), 2);
    }

    #[test]
    fn acknowledgement_makes_room() {
        let mut outbox = Outbox::new(1000);
        let seq = outbox.push(0, None, output(2000));
        assert!(!outbox.has_room());
        outbox.ack(seq);
        assert!(outbox.has_room());
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn record_overhead_counts_towards_the_limit() {
        let mut outbox = Outbox::new(100 << 10);
        let mut pushed = 0;
        while outbox.has_room() {
            outbox.push(0, None, output(1));
            pushed += 1;
        }
        assert!(pushed < 1000, "{pushed} records of one byte were accepted");
    }

    #[test]
    fn records_spill_to_disk_only_without_a_server() {
        let mut outbox = Outbox::new(1000);
        outbox.set_disk_limit(1 << 20);
        outbox.push(0, None, output(2000));
        assert!(!outbox.has_room(), "the command waits for its server");
        outbox.set_spills(true);
        assert!(outbox.has_room());
        assert_eq!((outbox.push(0, None, output(10)), outbox.last_seq()), (2, 2));
        outbox.set_spills(false);
        assert!(outbox.has_room(), "later records follow spilled ones");
        assert_eq!((outbox.push(0, None, output(10)), outbox.tail.count()), (3, 2));
        outbox.ack(3);
        assert_eq!(outbox.acked(), 1, "spilled records were never sent");
        assert!(outbox.wants_records());
        let back = outbox.tail.take_unwritten();
        outbox.refill(back);
        assert_eq!(outbox.batch(2, 1000).iter().map(|it| it.seq).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn batch_is_bounded_but_never_empty() {
        let mut outbox = Outbox::new(1 << 30);
        for _ in 0..3 {
            outbox.push(0, None, output(400));
        }
        assert_eq!(outbox.batch(1, 900).iter().map(|r| r.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(outbox.batch(2, 10).iter().map(|r| r.seq).collect::<Vec<_>>(), [2]);
        assert!(outbox.batch(4, 900).is_empty());
    }

    #[test]
    fn acknowledgement_beyond_the_last_record_is_clamped() {
        let mut outbox = Outbox::new(1 << 20);
        outbox.push(0, None, output(1));
        outbox.ack(u64::MAX);
        assert_eq!(outbox.acked(), 1);
        assert_eq!(outbox.push(0, None, output(1)), 2);
    }

    proptest! {
        /// A server that takes batches over connections that break at any moment gets every record once.
        #[test]
        fn every_record_arrives_once_in_order(
            steps in prop::collection::vec((0u8..4, 1usize..3000), 1..200)
        ) {
            let mut outbox = Outbox::new(usize::MAX);
            let (mut server, mut cursor) = (Vec::<u64>::new(), 1u64);
            for (step, size) in steps {
                match step {
                    0 => { outbox.push(0, None, output(size)); }
                    1 => {
                        for record in outbox.batch(cursor, size) {
                            cursor = record.seq + 1;
                            if record.seq > server.last().copied().unwrap_or(0) {
                                server.push(record.seq);
                            }
                        }
                    }
                    2 => outbox.ack(server.last().copied().unwrap_or(0)),
                    _ => cursor = outbox.acked() + 1,
                }
                let held: usize = outbox.records().map(|r| r.encoded_len() + RECORD_OVERHEAD).sum();
                prop_assert_eq!(held, outbox.bytes());
            }
            for record in outbox.batch(server.last().copied().unwrap_or(0) + 1, usize::MAX) {
                server.push(record.seq);
            }
            prop_assert_eq!(server, (1..=outbox.last_seq()).collect::<Vec<_>>());
        }
    }
}
