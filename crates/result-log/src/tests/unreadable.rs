//! Bytes that the disk cannot read: damage, as changed bytes are.

use std::fs;
use std::path::PathBuf;

use nix::errno::Errno;

use super::damage::is_damage;
use super::*;
use crate::fixture::BadBlocks;
use crate::{Health, Maintenance};

/// Size of the output in each record, so that a segment has several disk blocks, and each block several records.
const LENGTH: usize = 1000;
const RECORDS: u64 = 60;
const BLOCK: u64 = 4096;

fn open_large(dir: &Path) -> SegmentLog {
    SegmentLog::open(LogOptions { segment_bytes: 16 * 1024, ..options(dir) }).unwrap()
}

/// A log with several segments of several blocks, and its files in order. All output has the byte `said`.
async fn log_of_large_segments(dir: &Path, said: u8) -> (JobId, Vec<PathBuf>) {
    let (log, job) = (open_large(dir), job_of_the_future());
    for seq in 1..=RECORDS {
        let data = Bytes::from(vec![said; LENGTH]);
        let output = entry(0, 1, seq, Payload::Output(Output { data, ..Output::default() }));
        log.append(&job, vec![output]).await.unwrap();
    }
    let files = fs::read_dir(log.folder_of(&job)).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "log")).collect();
    files.sort();
    assert_eq!(files.len(), 4);
    (job, files)
}

/// All records up to `last` exist, except for one gap of at most `at_most`.
fn check_one_gap(records: &[StoredRecord], last: u64, at_most: u64) {
    let (mut end, mut gaps) = (0, Vec::new());
    for stored in records {
        if is_damage(stored) {
            gaps.push(stored.position - end);
        } else {
            assert_eq!(stored.position, end + 1);
        }
        end = stored.position;
    }
    assert_eq!(end, last);
    assert!(gaps.len() == 1 && gaps[0] <= at_most, "{gaps:?}");
}

/// In each block of each file, with each error; found by a server and by the doctor.
#[tokio::test]
async fn unreadable_block_loses_only_its_records() {
    // Zeros look like those that replace unreadable bytes.
    for (error, said) in [(Errno::EIO, 7), (Errno::EUCLEAN, 0), (Errno::EBADMSG, 7)] {
        for (file, block) in [(1, 1), (1, 3), (2, 2), (3, 1), (3, 2)] {
            for by_tool in [true, false] {
                let dir = tempfile::tempdir().unwrap();
                let (job, files) = log_of_large_segments(dir.path(), said).await;
                let server = open_large(dir.path());
                let whole = read_all(&server, &job, 20_000).await;
                let _bad = BadBlocks::at(&files[file], block * BLOCK..(block + 1) * BLOCK, error);
                let what = format!("{error}, file {file}, block {block}, by tool: {by_tool}");
                let logs = Maintenance::of(dir.path());
                let Health::Damaged(damage) = logs.inspect(&job, &|| true).unwrap().unwrap() else {
                    panic!("{what}")
                };
                assert_eq!((&damage.file, damage.files), (&files[file], 1), "{what}");
                if by_tool {
                    assert_eq!(logs.repair(&job).unwrap(), Health::Good, "{what}");
                    assert_eq!(logs.kept_aside(&job).unwrap().len(), 1, "{what}");
                }
                for (log, last) in [server, open_large(dir.path())].iter().zip(RECORDS..) {
                    let mut records = read_all(log, &job, 20_000).await;
                    check_one_gap(&records, last, 6);
                    records.retain(|it| it.position <= RECORDS && !is_damage(it));
                    assert!(records.iter().all(|it| whole.contains(it)), "{what}");
                    assert!(log.append(&job, vec![notice("on")]).await.is_ok(), "{what}");
                    assert!(log.evidence(&job, 0).await.unwrap().started == (file == 3), "{what}");
                    log.seal(&attempt(&job, 0, 1), None).await.unwrap();
                }
                assert_eq!(logs.inspect(&job, &|| true).unwrap(), Some(Health::Good), "{what}");
                open_large(dir.path()).delete(&job).await.unwrap();
            }
        }
    }
}

/// The block may have contained zeros. The file is replaced anyway, since the next reader cannot read it either.
#[tokio::test]
async fn unreadable_block_of_zeros_loses_nothing() {
    for is_tail in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (log, job) = (open_large(dir.path()), job_of_the_future());
        let zeros = Bytes::from(vec![0; 5 * 4096]);
        let zeros = entry(0, 1, 1, Payload::Output(Output { data: zeros, ..Output::default() }));
        log.append(&job, vec![zeros]).await.unwrap();
        if !is_tail {
            log.append(&job, vec![output(0, 1, 2, 10)]).await.unwrap();
        }
        let file = log.folder_of(&job).join(format!("{:020}.log", 1));
        let whole = read_all(&log, &job, 1000).await;
        let _bad = BadBlocks::at(&file, BLOCK..2 * BLOCK, Errno::EIO);
        let log = open_large(dir.path());
        assert_eq!(read_all(&log, &job, 1000).await, whole, "is_tail: {is_tail}");
        assert_eq!(read_all(&open_large(dir.path()), &job, 1000).await, whole, "is_tail: {is_tail}");
        assert!(log.append(&job, vec![notice("on")]).await.is_ok());
    }
}

/// The beginning of a file has the summary of all earlier ones.
#[tokio::test]
async fn unreadable_file_head_is_damage() {
    for file in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let (job, files) = log_of_large_segments(dir.path(), 7).await;
        let _bad = BadBlocks::at(&files[file], 0..BLOCK, Errno::EIO);
        let log = open_large(dir.path());
        check_one_gap(&read_all(&log, &job, 20_000).await, RECORDS, 5);
        assert!(log.append(&job, vec![output(0, 1, RECORDS + 1, 5)]).await.is_ok(), "file {file}");
    }
}

#[tokio::test]
async fn retention_continues_past_unreadable_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (job, files) = log_of_large_segments(dir.path(), 7).await;
    let _bad = BadBlocks::at(&files[0], BLOCK..2 * BLOCK, Errno::EIO);
    let limits =
        LogOptions { segment_bytes: 16 * 1024, retain_output_bytes_per_job: 20_000, ..options(dir.path()) };
    let log = SegmentLog::open(limits).unwrap();
    for seq in RECORDS + 1..RECORDS + 40 {
        log.append(&job, vec![output(0, 1, seq, LENGTH)]).await.unwrap();
    }
    let records = read_all(&log, &job, 20_000).await;
    assert!(records.iter().any(is_damage) && records.iter().any(|it| retained_gap(it).is_some()));
    assert!(!files[1].exists(), "older output went");
}

/// The committed offset is found again, and can be written.
#[tokio::test]
async fn unreadable_committed_offset_is_recovered() {
    let dir = tempfile::tempdir().unwrap();
    let (job, _) = log_of_large_segments(dir.path(), 7).await;
    let log = open_large(dir.path());
    let lock = log.folder_of(&job).join("lock");
    let bad = BadBlocks::at(&lock, 0..BLOCK, Errno::EIO);
    assert_eq!(Maintenance::of(dir.path()).inspect(&job, &|| true).unwrap(), Some(Health::Good));
    assert_eq!(log.last_position(&job).await.unwrap(), RECORDS);
    assert_eq!(read_all(&log, &job, 20_000).await.len() as u64, RECORDS);
    drop(bad);
    assert_eq!(log.append(&job, vec![notice("on")]).await.unwrap().last_position, RECORDS + 1);
    assert_eq!(open_large(dir.path()).last_position(&job).await.unwrap(), RECORDS + 1);
}

/// If the committed offset is lost or old, the number of records in the unreadable end is not known.
#[tokio::test]
async fn unreadable_end_is_not_torn_write() {
    for committed in ["lost", "old", "of an earlier file"] {
        for first_block in [0, 2] {
            let dir = tempfile::tempdir().unwrap();
            let (log, job) = (open_large(dir.path()), job_of_the_future());
            let lock = log.folder_of(&job).join("lock");
            let (mut marks, mut seq) = (Vec::new(), 0);
            while seq < 28 {
                seq += 1;
                log.append(&job, vec![output(0, 1, seq, LENGTH)]).await.unwrap();
                marks.push(fs::read(&lock).unwrap());
            }
            let tail = fs::read_dir(log.folder_of(&job)).unwrap().map(|it| it.unwrap().path());
            let tail = tail.filter(|it| it.extension().is_some_and(|it| it == "log")).max().unwrap();
            let length = fs::metadata(&tail).unwrap().len();
            assert!(length > 3 * BLOCK, "it is a tail of {length} bytes");
            fs::write(
                &lock,
                match committed {
                    "lost" => &[][..],
                    "old" => &marks[marks.len() - 10],
                    _ => &marks[0],
                },
            )
            .unwrap();
            let _bad = BadBlocks::at(&tail, first_block * BLOCK..length, Errno::EIO);
            let logs = Maintenance::of(dir.path());
            let is_seen = matches!(logs.inspect(&job, &|| true).unwrap(), Some(Health::Damaged(_)));
            assert!(is_seen || committed != "lost", "{committed}, {first_block}");
            let records = read_all(&open_large(dir.path()), &job, 20_000).await;
            let last = records.last().unwrap();
            assert!(is_damage(last), "{committed}, block {first_block}: {last:?}");
            assert!(last.position >= seq, "no position is given twice: {}", last.position);
            let log = open_large(dir.path());
            let appended = log.append(&job, vec![notice("on")]).await.unwrap();
            assert_eq!(appended.last_position, last.position + 1);
            assert!(log.evidence(&job, 0).await.unwrap().started, "what is lost may have said so");
        }
    }
}

/// As when the file's metadata is damaged.
#[tokio::test]
async fn unopenable_file_becomes_gap() {
    for file in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let (job, files) = log_of_large_segments(dir.path(), 7).await;
        let _bad = BadBlocks::no_open(&files[file], Errno::EUCLEAN);
        let logs = Maintenance::of(dir.path());
        assert!(matches!(logs.inspect(&job, &|| true).unwrap(), Some(Health::Damaged(_))), "file {file}");
        let log = open_large(dir.path());
        check_one_gap(&read_all(&log, &job, 20_000).await, RECORDS, 20);
        assert!(log.append(&job, vec![notice("on")]).await.is_ok(), "file {file}");
    }
}

/// A transient error is no damage: nothing is changed, and later all records can be read.
#[tokio::test]
async fn transient_read_error_is_retried() {
    for error in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOSPC, Errno::EAGAIN, Errno::ENODEV] {
        let dir = tempfile::tempdir().unwrap();
        let (job, files) = log_of_large_segments(dir.path(), 7).await;
        for file in [1, 3] {
            for can_open in [true, false] {
                let path = &files[file];
                let bad = if can_open {
                    BadBlocks::at(path, BLOCK..2 * BLOCK, error)
                } else {
                    BadBlocks::no_open(path, error)
                };
                let logs = Maintenance::of(dir.path());
                let is_later = |error: Option<LogError>| matches!(error, Some(LogError::Io { .. }));
                assert!(is_later(logs.inspect(&job, &|| true).err()), "{error}");
                assert!(is_later(logs.repair(&job).err()), "{error}");
                assert!(is_later(open_large(dir.path()).read(&job, 0, 100_000).await.err()), "{error}");
                assert_eq!(logs.kept_aside(&job).unwrap(), []);
                drop(bad);
            }
        }
        assert_eq!(read_all(&open_large(dir.path()), &job, 20_000).await.len() as u64, RECORDS);
    }
}
