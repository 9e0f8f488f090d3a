//! Disk faults.

use std::fs;
use std::path::PathBuf;

use super::*;

/// A log with several segments, and its files in order.
pub(super) async fn log_of_many_segments(dir: &Path) -> (JobId, Vec<PathBuf>) {
    let (log, job) = (open(dir), job_of_the_future());
    for seq in 1..40 {
        log.append(&job, vec![output(0, 1, seq, 100)]).await.unwrap();
    }
    let mut files: Vec<_> = fs::read_dir(log.folder_of(&job))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    files.sort();
    assert!(files.len() > 3);
    (job, files)
}

pub(super) fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The damaged files that were kept aside.
fn damaged_files(log: &SegmentLog, job: &JobId) -> Vec<PathBuf> {
    let files = fs::read_dir(log.folder_of(job)).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "damaged")).collect()
}

pub(super) fn is_damage(stored: &StoredRecord) -> bool {
    matches!(&stored.record.as_ref().unwrap().payload,
        Some(Payload::Gap(gap)) if gap.reason() == gap::Reason::Damaged)
}

/// Positions of gap records of damage. Any other position up to `last` exists, or such a gap record stands for it.
fn gaps(records: &[StoredRecord], last: u64) -> Vec<u64> {
    let mut end = 0;
    for stored in records {
        assert!(stored.position == end + 1 || (stored.position > end && is_damage(stored)), "{stored:?}");
        end = stored.position;
    }
    assert_eq!(end, last);
    records.iter().filter(|it| is_damage(it)).map(|it| it.position).collect()
}

#[tokio::test]
async fn damaged_segment_becomes_gap_and_is_kept_aside() {
    for cut in [None, Some(1), Some(147)] {
        let dir = tempfile::tempdir().unwrap();
        let (job, files) = log_of_many_segments(dir.path()).await;
        let whole = fs::read(&files[1]).unwrap();
        match cut {
            None => flip(&files[1], whole.len() / 2),
            Some(bytes) => fs::write(&files[1], &whole[..whole.len() - bytes]).unwrap(),
        }
        let damaged = fs::read(&files[1]).unwrap();
        let log = open(dir.path());
        assert!(log.append(&job, vec![notice("on")]).await.is_ok(), "old damage does not stop the job");
        let records = read_all(&log, &job, 1000).await;
        assert_eq!(gaps(&records, 40).len(), 1);
        assert_eq!(read_all(&open(dir.path()), &job, 50).await, records);
        let aside = damaged_files(&log, &job);
        assert_eq!(fs::read(&aside[0]).unwrap(), damaged);
        assert_eq!(aside.len(), 1);
        assert!(!log.evidence(&job, 0).await.unwrap().started, "the later summaries know better");
    }
}

/// The file keeps its name and becomes shorter, so the offsets that another server knows are invalid.
#[tokio::test]
async fn file_repaired_by_other_server_is_read_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let open = || SegmentLog::open(LogOptions { segment_bytes: 100_000, ..options(dir.path()) }).unwrap();
    let (log, other, job) = (open(), open(), job_of_the_future());
    for (seq, length) in (1..).zip(std::iter::once(60_000).chain([1_000; 60])) {
        log.append(&job, vec![output(0, 1, seq, length)]).await.unwrap();
    }
    let folder = log.folder_of(&job);
    let first_file = folder.join(format!("{:020}.log", 1));
    flip(&first_file, 65_000);
    let before = read_all(&log, &job, 1000).await;
    let names = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let kept = names.into_iter().find(|name| name.ends_with(".kept")).unwrap();
    let last: u64 = kept.trim_end_matches(".kept").rsplit_once('-').unwrap().1.parse().unwrap();
    // Now it knows the offsets.
    assert_eq!(other.read(&job, last - 1, 1).await.unwrap().records[0].position, last);
    let path = folder.join(&kept);
    let length = fs::metadata(&path).unwrap().len();
    flip(&path, 30_000);
    read_all(&log, &job, 1000).await;
    assert!(fs::metadata(&path).unwrap().len() < length / 2, "it was repaired");
    let rest: Vec<_> = before.into_iter().filter(|it| it.position >= last).collect();
    let read = other.read(&job, last - 1, 100_000).await.unwrap().records;
    assert_eq!((positions(&read), read == rest), (positions(&rest), true));
}

#[tokio::test]
async fn damaged_tail_becomes_gap_and_appends_continue() {
    for offset in [2, 14, 40, usize::MAX] {
        for is_known in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let (job, files) = log_of_many_segments(dir.path()).await;
            let mut log = open(dir.path());
            if is_known {
                assert_eq!(log.last_position(&job).await.unwrap(), 39);
            }
            let tail = files.last().unwrap();
            let length = usize::try_from(fs::metadata(tail).unwrap().len()).unwrap();
            flip(tail, offset.min(length - 3));
            let damaged = fs::read(tail).unwrap();
            if is_known {
                // A process that has read the tail finds the damage when it reads it again.
                let _ = log.read(&job, 0, usize::MAX).await.unwrap();
                log = open(dir.path());
            }
            assert_eq!(log.append(&job, vec![notice("on")]).await.unwrap().last_position, 40);
            let records = read_all(&log, &job, 1000).await;
            assert!(gaps(&records, 40).len() <= 1);
            assert!(offset < 20 || gaps(&records, 40).len() == 1, "a record is lost at {offset}");
            assert_eq!(read_all(&open(dir.path()), &job, 50).await, records);
            let aside = damaged_files(&log, &job);
            if !is_known || !aside.is_empty() {
                assert_eq!(fs::read(&aside[0]).unwrap(), damaged);
                let evidence = log.evidence(&job, 0).await.unwrap();
                assert!(evidence.started && evidence.rows, "what is lost may have said so");
            }
            let last = log.last_seq(&attempt(&job, 0, 1), 0).await.unwrap();
            assert!((30..=39).contains(&last), "{last}");
            assert!(log.append(&job, vec![output(0, 1, last + 1, 5)]).await.is_ok());
        }
    }
}

#[tokio::test]
async fn missing_files_become_gap() {
    for from in [0, 1, 4] {
        let dir = tempfile::tempdir().unwrap();
        let (job, files) = log_of_many_segments(dir.path()).await;
        for file in &files[from.min(files.len() - 1)..] {
            fs::remove_file(file).unwrap();
        }
        let log = open(dir.path());
        assert_eq!(log.last_position(&job).await.unwrap(), 39);
        assert_eq!(log.append(&job, vec![notice("on")]).await.unwrap().last_position, 40);
        let records = read_all(&log, &job, 1000).await;
        assert!(!gaps(&records, 40).is_empty());
        assert!(records.iter().any(|it| it.position == 39 && is_damage(it)));
        assert_eq!(read_all(&open(dir.path()), &job, 50).await, records);
    }
}

#[tokio::test]
async fn retention_continues_past_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (job, files) = log_of_many_segments(dir.path()).await;
    flip(&files[0], 300);
    let limits = LogOptions { retain_output_bytes_per_job: 1500, ..options(dir.path()) };
    let log = SegmentLog::open(limits).unwrap();
    for seq in 40..80 {
        log.append(&job, vec![output(0, 1, seq, 100)]).await.unwrap();
    }
    let records = read_all(&log, &job, 1000).await;
    assert!(records.iter().any(is_damage) && records.iter().any(|it| retained_gap(it).is_some()));
    assert!(!files[1].exists(), "older output went");
    assert_eq!(damaged_files(&log, &job).len(), 1);
}

#[tokio::test]
async fn lost_committed_offset_is_recovered() {
    let dir = tempfile::tempdir().unwrap();
    let (job, _) = log_of_many_segments(dir.path()).await;
    let lock = open(dir.path()).folder_of(&job).join("lock");
    for garbage in [&b""[..], &[0; 36], &[7; 36]] {
        fs::write(&lock, garbage).unwrap();
        assert_eq!(open(dir.path()).last_position(&job).await.unwrap(), 39);
    }
    fs::remove_file(&lock).unwrap();
    let log = open(dir.path());
    assert_eq!(log.last_position(&job).await.unwrap(), 39);
    assert_eq!(log.append(&job, vec![output(0, 1, 40, 5)]).await.unwrap().last_position, 40);
}

#[tokio::test]
async fn failed_sync_acknowledges_nothing_and_retry_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let (log, other, job) = (open(dir.path()), open(dir.path()), job_of_the_future());
    // At each place in a segment, including its first record.
    for seq in 0..30 {
        log.fail_syncs(1);
        let failed = log.append(&job, vec![output(0, 1, seq + 1, 100)]).await;
        assert!(matches!(failed, Err(LogError::Io { .. })), "{failed:?}");
        assert_eq!(other.last_seq(&attempt(&job, 0, 1), 0).await.unwrap(), seq);
        assert_eq!(log.last_position(&job).await.unwrap(), seq);
        assert_eq!(log.append(&job, vec![output(0, 1, seq + 1, 100)]).await.unwrap().last_position, seq + 1);
    }
    assert_eq!(seqs(&read_all(&other, &job, 1000).await), (1..=30).map(|n| (n, n)).collect::<Vec<_>>());
}
