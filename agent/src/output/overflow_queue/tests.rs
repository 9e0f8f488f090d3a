use proptest::prelude::*;
use sqlflow_proto::record::{Output, record::Payload};

use super::*;

fn record(seq: u64, len: usize) -> Record {
    let output = Output { stream: 1, offset: 0, data: vec![b'x'; len].into() };
    Record { seq, payload: Some(Payload::Output(output)), ..Record::default() }
}

/// A file, and the work of the tail with it.
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
                tail.read(Reading::Whole(Bytes::copy_from_slice(&self.0[at..at + length])))
            }
            None if wants => tail.take_unwritten(),
            None => Vec::new(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn order_survives_any_disk_failure(
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
        let mut looks = 0;
        while tail.count() > 0 {
            taken.extend(disk.carry_out(&mut tail, true, false));
            looks += 1;
            prop_assert!(looks < 1000, "the rest never comes");
        }
        prop_assert_eq!(taken.iter().map(|it| it.seq).collect::<Vec<_>>(), (1..=pushed).collect::<Vec<_>>());
        prop_assert_eq!(tail.bytes(), 0);
    }
}

#[test]
fn file_stays_within_its_limit() {
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

/// Three records in the file and one in memory. Returns the starts of the three.
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

/// Sequence number of each returned record, and whether it is a gap.
fn taken(tail: &mut Tail, disk: &mut Disk) -> Vec<(u64, bool)> {
    let records = (0..100).flat_map(|_| disk.carry_out(tail, true, false));
    records.map(|it| (it.seq, matches!(it.payload, Some(Payload::Gap(_))))).collect()
}

#[test]
fn damaged_record_becomes_a_gap() {
    let (mut tail, mut disk, starts) = spooled();
    // After the length: an unknown tag.
    disk.0[starts[1] + 1] = 0xff;
    assert_eq!(taken(&mut tail, &mut disk), [(1, false), (2, true), (3, false), (4, false)]);
    assert_eq!((tail.count(), tail.bytes()), (0, 0));
}

#[test]
fn damaged_length_makes_gaps_up_to_the_next_known_start() {
    for damage in [0xff, 0x7f, 0] {
        let (mut tail, mut disk, starts) = spooled();
        disk.0[starts[1]..].fill(damage);
        let DiskWork::Read(at, length) = tail.work(true).unwrap() else { panic!("it is read first") };
        let read = Reading::Whole(Bytes::copy_from_slice(&disk.0[..length]));
        assert_eq!((at, tail.read(read).len()), (0, 1));
        assert_eq!(tail.gap_for_lost().map(|it| it.seq), Some(3), "one is enough for the spool");
        assert_eq!(taken(&mut tail, &mut disk), [(2, true), (3, true), (4, false)]);
        assert_eq!((tail.count(), tail.bytes()), (0, 0));
    }
}

#[test]
fn failed_read_is_repeated_with_the_same_length() {
    let (mut tail, mut disk, _) = spooled();
    tail.push(&record(5, 2 * READ));
    disk.carry_out(&mut tail, false, false);
    for _ in 0..100 {
        let Some(DiskWork::Read(_, length)) = tail.work(true) else { panic!("it is read again") };
        assert!(length <= READ);
        assert_eq!(tail.read(Reading::Failed), []);
    }
    let back: Vec<_> = (1..=5).map(|seq| (seq, false)).collect();
    assert_eq!(taken(&mut tail, &mut disk), back);
}

/// Takes all records from a file with this unreadable part.
fn taken_without(tail: &mut Tail, disk: &mut Disk, bad: std::ops::Range<u64>) -> Vec<Record> {
    let mut records = Vec::new();
    while tail.count() > 0 {
        match tail.work(true) {
            Some(DiskWork::Read(at, length)) if at < bad.end && bad.start < at + length as u64 => {
                let end = usize::try_from(at.max(bad.start)).unwrap();
                let before = disk.0[usize::try_from(at).unwrap()..end].to_vec().into();
                records.extend(tail.read(Reading::Damaged { before, until: bad.end }));
            }
            Some(DiskWork::Read(at, length)) => {
                let at = usize::try_from(at).unwrap();
                let bytes = disk.0[at..at + length].to_vec().into();
                records.extend(tail.read(Reading::Whole(bytes)));
            }
            Some(DiskWork::Write(..)) => panic!("all is written"),
            None => records.extend(tail.take_unwritten()),
        }
    }
    records
}

/// Small records, whose boundaries are lost in a bad block.
#[test]
fn reading_resumes_at_the_next_known_start() {
    const RECORDS: u64 = 20_000;
    for bad in [0..4096, 4096..8192, 1 << 20..(1 << 20) + 4096, 2_000_000..2_300_000] {
        let (mut tail, mut disk) = (Tail::new(256 << 20), Disk::default());
        // The file was emptied once before, and so were the starts.
        tail.push(&record(1, 200_000));
        disk.carry_out(&mut tail, false, false);
        assert_eq!(disk.carry_out(&mut tail, true, false).len(), 1);
        for seq in 2..=RECORDS {
            tail.push(&record(seq, 100));
            if seq % 5000 == 0 {
                disk.carry_out(&mut tail, false, false);
            }
        }
        let records = taken_without(&mut tail, &mut disk, bad.clone());
        assert_eq!(records.iter().map(|it| it.seq).collect::<Vec<_>>(), (2..=RECORDS).collect::<Vec<_>>());
        let (gaps, whole): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|it| matches!(it.payload, Some(Payload::Gap(_))));
        assert!(whole.iter().all(|it| *it == record(it.seq, 100)));
        let lost_bytes = gaps.len() as u64 * 100;
        assert!(lost_bytes < bad.end - bad.start + (70 << 10), "{} are lost of {bad:?}", gaps.len());
        assert!(!gaps.is_empty());
        assert_eq!((tail.count(), tail.bytes()), (0, 0));
    }
}
