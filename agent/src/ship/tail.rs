//! The part of the outbox that memory has no room for: encoded records, in a file, first in first out. Pure: it says
//! what to write and read, and is told what came of it.
//!
//! ```text
//! memory ←─ [ file: read_at … written ][ on its way to the file ][ buffer ] ←─ push
//! ```

use bytes::{Buf as _, Bytes, BytesMut};
use prost::Message as _;
use sqlflow_proto::record::Record;

/// Bytes that may wait for the file.
const BUFFER: usize = 1 << 20;
/// Read at once, unless a record is larger.
const READ: usize = 1 << 20;

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
        record.encode_length_delimited(&mut self.buffer).expect("a BytesMut grows");
        self.count += 1;
    }

    /// The next thing to do with the file. `wants_records`: memory has room.
    pub(super) fn work(&mut self, wants_records: bool) -> Option<DiskWork> {
        if self.is_busy || self.limit == 0 {
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

    /// What was read: gives its whole records, in order.
    pub(super) fn read(&mut self, mut bytes: Bytes) -> Vec<Record> {
        self.is_busy = false;
        let before = bytes.len();
        let records = decode(&mut bytes);
        let taken = before - bytes.len();
        // A record that is larger than a piece needs a larger piece.
        self.next_read = if taken == 0 { self.next_read * 2 } else { READ };
        self.read_at += taken as u64;
        self.forget(records)
    }

    /// Records that never went to the file, when it holds none before them.
    pub(super) fn take_unwritten(&mut self) -> Vec<Record> {
        if self.is_busy || self.read_at < self.written {
            return Vec::new();
        }
        let mut records = Vec::new();
        if let Some(mut bytes) = self.on_its_way.take() {
            records = decode(&mut bytes);
        }
        records.extend(decode(&mut self.buffer.split().freeze()));
        self.is_broken = false;
        self.forget(records)
    }

    fn forget(&mut self, records: Vec<Record>) -> Vec<Record> {
        self.count -= records.len() as u64;
        if self.read_at == self.written {
            // The file is begun anew, so that it never grows beyond its limit.
            (self.read_at, self.written) = (0, 0);
        }
        records
    }

    /// Where the rest is: the part of the file, and what comes after it.
    pub(super) fn rest(&self) -> (std::ops::Range<u64>, Bytes) {
        let mut after = BytesMut::new();
        after.extend_from_slice(self.on_its_way.as_deref().unwrap_or_default());
        after.extend_from_slice(&self.buffer);
        (self.read_at..self.written, after.freeze())
    }
}

/// Whole records from the front; what is left is the beginning of one.
fn decode(bytes: &mut Bytes) -> Vec<Record> {
    let mut records = Vec::new();
    while bytes.has_remaining() {
        let mut ahead = bytes.clone();
        let Ok(length) = prost::decode_length_delimiter(&mut ahead) else { break };
        if ahead.remaining() < length {
            break;
        }
        let Ok(record) = Record::decode(ahead.split_to(length)) else { break };
        records.push(record);
        *bytes = ahead;
    }
    records
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
}
