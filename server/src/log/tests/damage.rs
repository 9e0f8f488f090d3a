//! Faults of disks, and what they leave behind.

use std::fs;
use std::path::PathBuf;

use super::*;

/// A log of several segments, and its files in order.
async fn log_of_many_segments(dir: &Path) -> (JobId, Vec<PathBuf>) {
    let (log, job) = (open(dir), JobId::generate());
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

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn assert_corrupt<T: std::fmt::Debug>(result: Result<T, LogError>, path: &Path) {
    match result {
        Err(LogError::Corrupt { file, .. }) => assert_eq!(file, path),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn damage_to_what_was_acknowledged_is_told_with_file_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    let (job, files) = log_of_many_segments(dir.path()).await;
    let whole = fs::read(&files[1]).unwrap();
    let middle = whole.len() / 2;
    flip(&files[1], middle);
    let log = open(dir.path());
    match log.read(&job, 0, usize::MAX).await {
        Err(LogError::Corrupt { file, offset, .. }) => {
            assert_eq!(file, files[1]);
            assert!(offset as usize <= middle && middle - (offset as usize) < 200);
        }
        other => panic!("{other:?}"),
    }
    assert!(log.append(&job, vec![notice("on")]).await.is_ok(), "old damage does not stop the job");
    // Cut between two frames, and cut within one.
    for length in [whole.len() - 1, whole.len() - 147] {
        fs::write(&files[1], &whole[..length]).unwrap();
        assert_corrupt(open(dir.path()).read(&job, 0, usize::MAX).await, &files[1]);
    }
    fs::write(&files[1], &whole).unwrap();
    assert_eq!(read_all(&log, &job, 1000).await.len(), 40);
}

#[tokio::test]
async fn damage_below_the_mark_of_the_tail_is_not_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (job, files) = log_of_many_segments(dir.path()).await;
    let tail = files.last().unwrap();
    let length = fs::metadata(tail).unwrap().len();
    flip(tail, usize::try_from(length).unwrap() - 3);
    let log = open(dir.path());
    assert_corrupt(log.append(&job, vec![notice("on")]).await, tail);
    assert_corrupt(log.read(&job, 0, 100).await, tail);
    assert_eq!(fs::metadata(tail).unwrap().len(), length, "the evidence stays");
    fs::remove_file(tail).unwrap();
    assert!(matches!(open(dir.path()).last_position(&job).await, Err(LogError::Corrupt { .. })));
}

#[tokio::test]
async fn the_mark_may_be_lost() {
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
async fn a_failed_sync_acknowledges_nothing_and_the_same_records_can_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let (log, other, job) = (open(dir.path()), open(dir.path()), JobId::generate());
    // At every place in a segment, its first record included.
    for seq in 0..30 {
        log.fail_syncs(1);
        let failed = log.append(&job, vec![output(0, 1, seq + 1, 100)]).await;
        assert!(matches!(failed, Err(LogError::Io { .. })), "{failed:?}");
        assert_eq!(other.last_seq(&attempt(&job, 0, 1)).await.unwrap(), seq);
        assert_eq!(log.last_position(&job).await.unwrap(), seq);
        assert_eq!(log.append(&job, vec![output(0, 1, seq + 1, 100)]).await.unwrap().last_position, seq + 1);
    }
    assert_eq!(seqs(&read_all(&other, &job, 1000).await), (1..=30).map(|n| (n, n)).collect::<Vec<_>>());
}
