//! Logs restored from an older copy. Readers may repeat records, and skip none.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

/// A process that starts this many microseconds after the creation of the job.
fn open_after(dir: &Path, job: &JobId, micros: i64) -> SegmentLog {
    let opened_micros = job.created_ms() * 1000 + micros;
    SegmentLog::open(LogOptions { opened_micros, ..options(dir) }).unwrap()
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{status}");
}

/// A copy of a job's log.
fn back_up(log: &SegmentLog, job: &JobId, to: &Path) -> PathBuf {
    let copy = to.join("copy");
    run(Command::new("cp").arg("-a").args([&log.folder_of(job), &copy]));
    copy
}

fn restore(log: &SegmentLog, job: &JobId, copy: &Path) {
    std::fs::remove_dir_all(log.folder_of(job)).unwrap();
    run(Command::new("cp").arg("-a").args([copy, &log.folder_of(job)]));
}

async fn add(log: &SegmentLog, job: &JobId, seqs: std::ops::Range<u64>) {
    log.append(job, seqs.map(|seq| output(0, 1, seq, 100)).collect()).await.unwrap();
}

async fn read_after(log: &SegmentLog, job: &JobId, after: u64) -> Vec<(u64, u64)> {
    seqs(&log.read(job, after, usize::MAX).await.unwrap().records)
}

#[tokio::test]
async fn reader_skips_nothing_after_restore() {
    let (dir, backups) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let job = JobId::generate();
    // Older than the job.
    let first = open_after(dir.path(), &job, -5);
    add(&first, &job, 1..4).await;
    assert_eq!(read_after(&first, &job, 0).await, [(1, 1), (2, 2), (3, 3)]);
    let copy = back_up(&first, &job, backups.path());
    add(&first, &job, 4..9).await;
    let seen = first.last_position(&job).await.unwrap();

    restore(&first, &job, &copy);
    drop(first);
    let second = open_after(dir.path(), &job, 1_000);
    let page = second.read(&job, seen, usize::MAX).await.unwrap();
    assert!(page.records.is_empty() && page.last_position == 3, "the reader goes back to the end");
    add(&second, &job, 4..20).await;
    let new: Vec<_> = (4..20).map(|seq| (seq + 996, seq)).collect();
    for after in 3..1_000 {
        assert_eq!(read_after(&second, &job, after).await, new, "after {after}");
    }
    assert_eq!(second.tail(&job, 2).await.unwrap(), 1_013);
    assert_eq!(second.tail(&job, 17).await.unwrap(), 2);
    assert_eq!(second.tail(&job, 99).await.unwrap(), 0);

    // The same copy again: positions used since then are not used again.
    restore(&second, &job, &copy);
    drop(second);
    let third = open_after(dir.path(), &job, 2_000);
    add(&third, &job, 4..6).await;
    assert_eq!(read_after(&third, &job, 1_015).await, [(2_000, 4), (2_001, 5)]);
    // A process from before the restore continues at its own state, as does any process that opens the log.
    for begun in [1_500, 2_001] {
        let other = open_after(dir.path(), &job, begun);
        let last = other.last_position(&job).await.unwrap();
        let seq = other.last_seq(&attempt(&job, 0, 1), 0).await.unwrap();
        add(&other, &job, seq + 1..seq + 30).await;
        let read = read_after(&other, &job, last).await;
        assert_eq!(read, (1..30).map(|n| (last + n, seq + n)).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn restore_under_running_server_is_detected() {
    let (dir, backups) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (log, job) = (open(dir.path()), JobId::generate());
    add(&log, &job, 1..4).await;
    let copy = back_up(&log, &job, backups.path());
    add(&log, &job, 4..9).await;
    restore(&log, &job, &copy);
    add(&log, &job, 4..20).await;
    let read: Vec<_> = read_after(&log, &job, 8).await.into_iter().map(|(_, seq)| seq).collect();
    assert_eq!(read, (4..20).collect::<Vec<_>>());
}

/// A file that retention or a repair rewrote keeps its positions.
#[tokio::test]
async fn positions_survive_retention_and_repair() {
    let dir = tempfile::tempdir().unwrap();
    let job = JobId::generate();
    let mut expected = Vec::new();
    for (n, seqs) in [(0, 1..9), (1, 9..20), (2, 20..40)] {
        let opened_micros = job.created_ms() * 1000 + n * 1_000;
        let limits = LogOptions { retain_output_bytes_per_job: 700, opened_micros, ..options(dir.path()) };
        let log = SegmentLog::open(limits).unwrap();
        for seq in seqs {
            let entry = if seq % 3 == 0 { rows(0, 1, seq) } else { output(0, 1, seq, 100) };
            let at = log.append(&job, vec![entry]).await.unwrap().last_position;
            expected.push((at, seq));
        }
    }
    let check = |read: Vec<(u64, u64)>| {
        let rows = |all: &[(u64, u64)]| {
            all.iter().copied().filter(|it| it.1 > 0 && it.1 % 3 == 0).collect::<Vec<_>>()
        };
        assert_eq!(rows(&read), rows(&expected));
        assert_eq!(read.last(), expected.last());
    };
    let log = open(dir.path());
    assert!(
        std::fs::read_dir(log.folder_of(&job))
            .unwrap()
            .any(|it| { it.unwrap().path().extension().is_some_and(|extension| extension == "kept") })
    );
    check(read_after(&log, &job, 0).await);
    let last = log.last_position(&job).await.unwrap();
    // The tail loses its beginning. The file before it still has the shifts.
    let tail = std::fs::read_dir(log.folder_of(&job)).unwrap().map(|it| it.unwrap().path());
    let tail =
        tail.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max().unwrap();
    let mut bytes = std::fs::read(&tail).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&tail, bytes).unwrap();
    let log = open(dir.path());
    check(read_after(&log, &job, 0).await);
    assert_eq!(log.last_position(&job).await.unwrap(), last);
}

/// Wherever the damage is, a reader skips no readable record.
#[tokio::test]
async fn readable_records_beside_damage_are_not_skipped() {
    let dir = tempfile::tempdir().unwrap();
    for part in 0..60 {
        let job = JobId::generate();
        let folder = {
            let log = open_after(dir.path(), &job, -5);
            add(&log, &job, 1..4).await;
            let log = open_after(dir.path(), &job, 1_000);
            let entries = (4..14).map(|seq| rows(0, 1, seq)).collect();
            log.append(&job, entries).await.unwrap();
            log.folder_of(&job)
        };
        let before = read_after(&open(dir.path()), &job, 0).await;
        let files = std::fs::read_dir(&folder).unwrap().map(|it| it.unwrap().path());
        let tail = files.filter(|path| path.extension().is_some_and(|it| it == "log")).max().unwrap();
        let mut bytes = std::fs::read(&tail).unwrap();
        let damaged = bytes.len() * part / 60;
        bytes[damaged] ^= 1;
        std::fs::write(&tail, bytes).unwrap();
        let log = open(dir.path());
        let after = read_after(&log, &job, 0).await;
        let whole: Vec<u64> = after.iter().map(|it| it.1).filter(|seq| *seq > 0).collect();
        assert!(whole.len() >= 12, "{after:?}");
        for (position, seq) in before {
            let seen: Vec<u64> = read_after(&log, &job, position).await.into_iter().map(|it| it.1).collect();
            let mut due = whole.iter().filter(|it| **it > seq);
            assert!(due.all(|it| seen.contains(it)), "after {position}: {seen:?} of {after:?}");
        }
    }
}
