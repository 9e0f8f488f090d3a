//! Missing files, and committed offsets that are lost or old: no record is skipped without a gap record.

use std::collections::BTreeSet;
use std::fs;

use super::damage::{flip, is_damage, log_of_many_segments};
use super::*;
use crate::{Health, Maintenance};

/// Each position after `after` exists, or a gap record of damage stands for it.
fn covers(records: &[StoredRecord], after: u64, last: u64) {
    let mut end = after;
    for stored in records {
        assert!(
            stored.position == end + 1 || (stored.position > end && is_damage(stored)),
            "{stored:?} after {end}"
        );
        end = stored.position;
    }
    assert_eq!(end, last, "after {after}");
}

async fn read_after(log: &SegmentLog, job: &JobId, after: u64) -> Vec<StoredRecord> {
    let mut all: Vec<StoredRecord> = Vec::new();
    loop {
        let after = all.last().map_or(after, |stored| stored.position);
        let page = log.read(job, after, 300).await.unwrap();
        if page.records.is_empty() {
            return all;
        }
        all.extend(page.records);
    }
}

/// As in a copy of the folder that was made while files were replaced.
#[tokio::test]
async fn missing_file_is_gap_for_all_readers() {
    for missing in [0, 2] {
        for after in 0..39 {
            let dir = tempfile::tempdir().unwrap();
            let (job, files) = log_of_many_segments(dir.path()).await;
            fs::remove_file(&files[missing]).unwrap();
            let records = read_after(&open(dir.path()), &job, after).await;
            covers(&records, after, 39);
            let all = read_all(&open(dir.path()), &job, 1000).await;
            assert_eq!(all.iter().filter(|it| is_damage(it)).count(), 1, "file {missing}, cursor {after}");
        }
    }
}

#[tokio::test]
async fn retention_keeps_missing_file_visible() {
    for missing in [0, 1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let (job, files) = log_of_many_segments(dir.path()).await;
        fs::remove_file(&files[missing]).unwrap();
        let limits = LogOptions { retain_output_bytes_per_job: 700, ..options(dir.path()) };
        let log = SegmentLog::open(limits).unwrap();
        for seq in 40..80 {
            log.append(&job, vec![output(0, 1, seq, 100)]).await.unwrap();
        }
        let records = read_all(&log, &job, 1000).await;
        assert!(records.iter().any(is_damage), "file {missing}: {:?}", positions(&records));
    }
}

/// A corrupted position before the cursor is not skipped.
#[tokio::test]
async fn flipped_position_bit_is_damage_from_any_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let (job, files) = log_of_many_segments(dir.path()).await;
    let whole = fs::read(&files[1]).unwrap();
    let records = read_all(&open(dir.path()), &job, 1000).await;
    for stored in records.iter().skip(4).take(6) {
        // Kind 1, then field 1 as a varint of one byte.
        let frame = [1, 8, u8::try_from(stored.position).unwrap()];
        let Some(at) = whole.windows(3).position(|bytes| bytes == frame) else { continue };
        for bit in 0..7 {
            let mut bytes = whole.clone();
            bytes[at + 2] ^= 1 << bit;
            let folder = tempfile::tempdir().unwrap();
            copy(dir.path(), folder.path());
            let path = folder.path().join(files[1].strip_prefix(dir.path()).unwrap());
            fs::write(&path, bytes).unwrap();
            let after = stored.position - 1;
            covers(&read_after(&open(folder.path()), &job, after).await, after, 39);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let target = to.join(entry.file_name().unwrap());
        if entry.is_dir() {
            copy(&entry, &target);
        } else {
            fs::copy(&entry, &target).unwrap();
        }
    }
}

/// The committed offset is not synced, so a power failure may undo it.
#[tokio::test]
async fn damage_after_old_committed_offset_is_not_torn_write() {
    for committed in ["lost", "old", "of an earlier file"] {
        for at in ["head", "the statement's start"] {
            let dir = tempfile::tempdir().unwrap();
            let (log, job) = (open(dir.path()), job_of_the_future());
            let lock = log.folder_of(&job).join("lock");
            let tails = || {
                let files =
                    fs::read_dir(log.folder_of(&job)).into_iter().flatten().map(|file| file.unwrap().path());
                files.filter(|path| path.extension().is_some_and(|it| it == "log")).collect::<BTreeSet<_>>()
            };
            let (mut last, mut earlier) = (0, Vec::new());
            while tails().len() < 3 {
                earlier = fs::read(&lock).unwrap_or_default();
                last += 1;
                log.append(&job, vec![output(0, 1, last, 100)]).await.unwrap();
            }
            let tail = tails().last().unwrap().clone();
            let start = usize::try_from(fs::metadata(&tail).unwrap().len()).unwrap();
            log.append(&job, vec![started(0, 1, last + 1), output(0, 1, last + 2, 10)]).await.unwrap();
            let old = fs::read(&lock).unwrap();
            for seq in last + 3..=last + 5 {
                log.append(&job, vec![rows(0, 1, seq)]).await.unwrap();
            }
            last += 5;
            assert_eq!(tails().last(), Some(&tail), "it is one tail");
            match committed {
                "lost" => fs::write(&lock, "").unwrap(),
                "old" => fs::write(&lock, &old).unwrap(),
                _ => fs::write(&lock, &earlier).unwrap(),
            }
            flip(&tail, if at == "head" { 12 } else { start + 12 });
            assert!(committed != "lost" || is_seen(dir.path(), &job), "{committed}, {at}");
            let log = open(dir.path());
            assert!(log.evidence(&job, 0).await.unwrap().started, "{committed}, {at}");
            let records = read_all(&log, &job, 1000).await;
            covers(&records, 0, last);
            assert_eq!(records.iter().any(is_damage), at != "head", "a head is no record: {committed}, {at}");
            let appended = log.append(&job, vec![notice("on")]).await.unwrap();
            assert_eq!(appended.last_position, last + 1, "no position is given twice: {committed}, {at}");
        }
    }
}

/// Whether the doctor finds the damage.
fn is_seen(dir: &Path, job: &JobId) -> bool {
    let health = Maintenance::of(dir).inspect(job, &|| true).unwrap().unwrap();
    matches!(health, Health::Damaged(_))
}

#[tokio::test]
async fn failed_repair_keeps_one_damaged_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (job, files) = log_of_many_segments(dir.path()).await;
    flip(&files[1], 300);
    let logs = Maintenance::of(dir.path());
    for _ in 0..3 {
        logs.fail_syncs(1);
        assert!(logs.repair(&job).is_err());
    }
    assert_eq!(logs.repair(&job).unwrap(), Health::Good);
    assert_eq!(logs.kept_aside(&job).unwrap().len(), 1);
}
