//! The part of the outbox that memory has no room for: encoded records, in a file, first in first out. Pure: it says
//! what to write and read, and is told what came of it.
//!
//! ```text
//! memory ←─ [ file: read_at … written ][ on its way to the file ][ buffer ] ←─ push
//! ```

use bytes::{Buf as _, Bytes, BytesMut};
use prost::Message as _;
use sqlflow_proto::record::{Gap, Record, gap, record::Payload};

use super::frame::{self, Front, MAX_FRAME};

/// Bytes that may wait for the file.
const BUFFER: usize = 1 << 20;
/// Read at once, unless a record is larger.
const READ: usize = 1 << 20;
/// Gaps given at once, since the file may have held millions of records.
const MAX_GAPS: u64 = 1000;

/// Something to do with the file; one at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskWork {
    /// Write these bytes at this offset.
    Write(u64, Bytes),
    /// Read so many bytes at this offset.
    Read(u64, usize),
}

/// What is not in memory.
#[derive(Debug)]
pub(super) struct Tail {
    /// Largest size of the file; 0: there is no file.
    limit: u64,
    /// Records, wherever they are.
    count: u64,
    read_at: u64,
    written: u64,
    on_its_way: Option<Bytes>,
    buffer: BytesMut,
    is_busy: bool,
    next_read: usize,
    /// The last write failed; nothing more is taken until it is tried again.
    is_broken: bool,
    /// The record before the first of the tail, without its payload.
    previous: Record,
    /// Records before all others that the file held and did not give back. A gap will stand for each.
    lost: u64,
}

/// Where the next record begins.
enum Next {
    /// At the front of what is left.
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
            on_its_way: None,
            buffer: BytesMut::new(),
            is_busy: false,
            next_read: READ,
            is_broken: false,
            previous: Record::default(),
            lost: 0,
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Bytes of it in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.buffer.len() + self.on_its_way.as_ref().map_or(0, Bytes::len)
    }

    /// Bytes of all of it.
    pub(super) fn bytes(&self) -> u64 {
        self.written - self.read_at + self.memory_bytes() as u64
    }

    /// Whether another record may be pushed; one that must not be lost may be pushed all the same.
    pub(super) fn has_room(&self) -> bool {
        let end = self.written + self.memory_bytes() as u64;
        !self.is_broken && self.memory_bytes() < BUFFER && end < self.limit
    }

    pub(super) fn push(&mut self, record: &Record) {
        if self.count == 0 {
            self.previous = Record { seq: record.seq - 1, ..without_payload(record) };
        }
        record.encode_length_delimited(&mut self.buffer).expect("a BytesMut grows");
        self.count += 1;
    }

    /// The next thing to do with the file. `wants_records`: memory has room.
    pub(super) fn work(&mut self, wants_records: bool) -> Option<DiskWork> {
        if self.is_busy || self.limit == 0 || (wants_records && self.lost > 0) {
            return None;
        }
        if wants_records && self.read_at < self.written {
            self.is_busy = true;
            let left = usize::try_from(self.written - self.read_at).unwrap_or(usize::MAX);
            return Some(DiskWork::Read(self.read_at, self.next_read.min(left)));
        }
        // What memory will take at once need not go through the file.
        if self.on_its_way.is_none() && !self.buffer.is_empty() && !wants_records {
            self.on_its_way = Some(self.buffer.split().freeze());
        }
        let bytes = self.on_its_way.clone()?;
        if self.is_broken || (wants_records && self.read_at == self.written) {
            return None;
        }
        self.is_busy = true;
        Some(DiskWork::Write(self.written, bytes))
    }

    /// What became of a write. After a failure nothing is lost: memory keeps it.
    pub(super) fn wrote(&mut self, succeeded: bool) {
        self.is_busy = false;
        self.is_broken = !succeeded;
        if succeeded {
            self.written += self.on_its_way.take().map_or(0, |bytes| bytes.len() as u64);
        }
    }

    /// The failed write may be tried again.
    pub(super) fn retry(&mut self) {
        self.is_broken = false;
    }

    /// What was read: gives its whole records, in order, and a gap for each that is damaged. Nothing: reading failed,
    /// and will be tried again.
    pub(super) fn read(&mut self, mut bytes: Bytes) -> Vec<Record> {
        self.is_busy = false;
        if bytes.is_empty() {
            return Vec::new();
        }
        let before = bytes.len();
        let is_rest = before as u64 == self.written - self.read_at;
        let in_file = self.count - self.count_in_memory();
        let (records, next) = self.decode(&mut bytes, in_file);
        let taken = before - bytes.len();
        // A record that is larger than a piece needs a larger piece.
        self.next_read = if taken == 0 { (self.next_read * 2).min(MAX_FRAME) } else { READ };
        self.read_at += taken as u64;
        if matches!(next, Next::Unknown) || (is_rest && !bytes.is_empty()) {
            self.read_at = self.written;
        }
        if self.read_at == self.written {
            self.lost = in_file - records.len() as u64;
            self.begin_file_again();
        }
        records
    }

    /// Records that need no reading, when the file holds none before them.
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
        let mut bytes = self.on_its_way.take().unwrap_or_default();
        let (mut records, _) = self.decode(&mut bytes, self.count);
        let mut bytes = self.buffer.split().freeze();
        records.extend(self.decode(&mut bytes, self.count).0);
        self.is_broken = false;
        self.begin_file_again();
        records
    }

    /// Takes at most `left` records from the front of `bytes`, with gaps for those between them that are damaged.
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
                // The number of the next one tells how many are missing.
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

    /// One gap instead of all records that the file did not give back; they are before all others.
    pub(super) fn gap_for_lost(&self) -> Option<Record> {
        (self.lost > 0).then(|| self.gap(self.lost))
    }

    fn count_in_memory(&self) -> u64 {
        frame::count(self.on_its_way.as_deref().unwrap_or_default()) + frame::count(&self.buffer)
    }

    /// From its beginning, where nothing is left in it, so that it never grows beyond its limit.
    fn begin_file_again(&mut self) {
        if self.read_at == self.written {
            (self.read_at, self.written) = (0, 0);
        }
    }

    /// Where the rest is: the part of the file, and what comes after it.
    pub(super) fn rest(&self) -> (std::ops::Range<u64>, Bytes) {
        let mut after = BytesMut::new();
        after.extend_from_slice(self.on_its_way.as_deref().unwrap_or_default());
        after.extend_from_slice(&self.buffer);
        (self.read_at..self.written, after.freeze())
    }
}

fn without_payload(record: &Record) -> Record {
    let Record { seq, time_unix_micros, statement, payload: _ } = *record;
    Record { seq, time_unix_micros, statement, payload: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sqlflow_proto::record::{Output, record::Payload};

    use super::*;

    fn record(seq: u64, len: usize) -> Record {
        let output = Output { stream: 1, offset: 0, data: vec![b'x'; len].into() };
        Record { seq, payload: Some(Payload::Output(output)), ..Record::default() }
    }

    /// A file, and what the tail asks of it.
    #[derive(Default)]
    struct Disk(Vec<u8>);

    impl Disk {
        fn carry_out(&mut self, tail: &mut Tail, wants: bool, fails: bool) -> Vec<Record> {
            match tail.work(wants) {
                Some(DiskWork::Write(..)) if fails => {
                    tail.wrote(false);
                    Vec::new()
                }
                Some(DiskWork::Write(at, bytes)) => {
                    self.0.truncate(usize::try_from(at).unwrap());
                    assert_eq!(self.0.len() as u64, at, "no hole");
                    self.0.extend_from_slice(&bytes);
                    tail.wrote(true);
                    Vec::new()
                }
                Some(DiskWork::Read(at, length)) => {
                    let at = usize::try_from(at).unwrap();
                    tail.read(Bytes::copy_from_slice(&self.0[at..at + length]))
                }
                None if wants => tail.take_unwritten(),
                None => Vec::new(),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn first_in_first_out_whatever_the_disk_does(
            steps in prop::collection::vec((0_u8..6, 1_usize..3_000_000), 1..60),
        ) {
            let (mut tail, mut disk) = (Tail::new(u64::MAX), Disk::default());
            let (mut pushed, mut taken) = (0, Vec::new());
            for (step, size) in steps {
                match step {
                    0 | 1 => {
                        pushed += 1;
                        tail.push(&record(pushed, size));
                    }
                    2 => taken.extend(disk.carry_out(&mut tail, false, false)),
                    3 => taken.extend(disk.carry_out(&mut tail, true, false)),
                    4 => taken.extend(disk.carry_out(&mut tail, false, true)),
                    _ => tail.retry(),
                }
                prop_assert_eq!(tail.count() + taken.len() as u64, pushed);
            }
            let mut patience = 0;
            while tail.count() > 0 {
                taken.extend(disk.carry_out(&mut tail, true, false));
                patience += 1;
                prop_assert!(patience < 1000, "the rest never comes");
            }
            prop_assert_eq!(taken.iter().map(|it| it.seq).collect::<Vec<_>>(), (1..=pushed).collect::<Vec<_>>());
            prop_assert_eq!(tail.bytes(), 0);
        }
    }

    #[test]
    fn the_file_keeps_to_its_limit() {
        let (mut tail, mut disk) = (Tail::new(3 << 20), Disk::default());
        let mut seq = 0;
        for _ in 0..100 {
            while tail.has_room() {
                seq += 1;
                tail.push(&record(seq, 60 << 10));
            }
            disk.carry_out(&mut tail, false, false);
        }
        assert!(disk.0.len() < 4 << 20, "{}", disk.0.len());
        while tail.count() > 0 {
            disk.carry_out(&mut tail, true, false);
        }
        assert!(tail.has_room());
    }

    /// Three records in the file and one in memory; gives where each of the three begins.
    fn spooled() -> (Tail, Disk, [usize; 3]) {
        let (mut tail, mut disk) = (Tail::new(u64::MAX), Disk::default());
        let starts = [1, 2, 3].map(|seq| {
            let start = disk.0.len();
            tail.push(&record(seq, 100));
            disk.carry_out(&mut tail, false, false);
            start
        });
        tail.push(&record(4, 100));
        (tail, disk, starts)
    }

    /// Number of each record that comes back, and whether it is a gap.
    fn taken(tail: &mut Tail, disk: &mut Disk) -> Vec<(u64, bool)> {
        let records = (0..100).flat_map(|_| disk.carry_out(tail, true, false));
        records.map(|it| (it.seq, matches!(it.payload, Some(Payload::Gap(_))))).collect()
    }

    #[test]
    fn a_gap_stands_for_a_record_that_is_damaged() {
        let (mut tail, mut disk, starts) = spooled();
        // After the length: a tag that there is not.
        disk.0[starts[1] + 1] = 0xff;
        assert_eq!(taken(&mut tail, &mut disk), [(1, false), (2, true), (3, false), (4, false)]);
        assert_eq!((tail.count(), tail.bytes()), (0, 0));
    }

    #[test]
    fn gaps_stand_for_all_that_follow_where_the_length_is_damaged() {
        for damage in [0xff, 0x7f, 0] {
            let (mut tail, mut disk, starts) = spooled();
            disk.0[starts[1]..].fill(damage);
            let DiskWork::Read(at, length) = tail.work(true).unwrap() else { panic!("it is read first") };
            assert_eq!((at, tail.read(Bytes::copy_from_slice(&disk.0[..length])).len()), (0, 1));
            assert_eq!(tail.gap_for_lost().map(|it| it.seq), Some(3), "one is enough for the spool");
            assert_eq!(taken(&mut tail, &mut disk), [(2, true), (3, true), (4, false)]);
            assert_eq!((tail.count(), tail.bytes()), (0, 0));
        }
    }

    #[test]
    fn reading_that_fails_asks_for_no_more_the_next_time() {
        let (mut tail, mut disk, _) = spooled();
        tail.push(&record(5, 2 * READ));
        disk.carry_out(&mut tail, false, false);
        for _ in 0..100 {
            let Some(DiskWork::Read(_, length)) = tail.work(true) else { panic!("it is read again") };
            assert!(length <= READ);
            assert_eq!(tail.read(Bytes::new()), []);
        }
        let back: Vec<_> = (1..=5).map(|seq| (seq, false)).collect();
        assert_eq!(taken(&mut tail, &mut disk), back);
    }
}
