//! Retention: which records are removed, and that gap records stand for them.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::super::summary::is_removable;
use super::*;

const LIMIT: u64 = 1500;

fn open_with_limit(dir: &Path) -> SegmentLog {
    SegmentLog::open(LogOptions { retain_output_bytes_per_job: LIMIT, ..options(dir) }).unwrap()
}

fn output_bytes(stored: &StoredRecord) -> Option<u64> {
    match stored.record.as_ref()?.payload.as_ref()? {
        Payload::Output(output) => Some(output.data.len() as u64),
        _ => None,
    }
}

/// Compares the kept records with the appended ones. Both are in order, and `all` has all positions.
fn check(all: &[StoredRecord], left: &[StoredRecord]) {
    let mut rest = all.iter().peekable();
    for stored in left {
        let mut removed = Vec::new();
        while let Some(original) = rest.next_if(|it| it.position < stored.position) {
            removed.push(original);
        }
        let original = rest.next().expect("no position is made up");
        assert_eq!(original.position, stored.position);
        if let Some(bytes) = retained_gap(stored) {
            removed.push(original);
            let outputs: Vec<_> = removed.iter().filter(|it| output_bytes(it).is_some()).collect();
            assert_eq!(outputs.iter().filter_map(|it| output_bytes(it)).sum::<u64>(), bytes);
            assert!(outputs.iter().all(|it| (it.step, it.attempt) == (stored.step, stored.attempt)));
        } else {
            assert_eq!(original, stored, "what stays is unchanged");
            assert!(
                removed.iter().all(|it| output_bytes(it).is_none()),
                "output is missing, and nothing says so"
            );
        }
        assert!(
            removed.iter().all(|it| it.record.as_ref().is_some_and(is_removable)),
            "only output and progress go"
        );
    }
    assert!(
        rest.all(|it| it.record.as_ref().is_some_and(|it| matches!(it.payload, Some(Payload::Progress(_)))))
    );
}

/// Waits for the retention after an append, which holds the log's lock.
pub(super) fn settle(log: &SegmentLog, job: &JobId) {
    let lock = fs::File::open(log.folder_of(job).join("lock")).unwrap();
    drop(nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).unwrap());
}

fn files(folder: &Path) -> HashMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn stored(position: u64, entry: Entry) -> StoredRecord {
    StoredRecord {
        position,
        step: entry.producer.step,
        attempt: entry.producer.attempt,
        rank: 0,
        record: Some(entry.record),
        shift: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn retention_keeps_all_but_output_and_reports_gaps(
        kinds in prop::collection::vec((0_u8..10, 1_u32..3, 0_usize..300), 1..150),
        group in 1_usize..6,
        crash in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let job = JobId::generate();
            let logs = [open_with_limit(dir.path()), open_with_limit(dir.path())];
            let mut seqs = [0, 0, 0];
            let entries: Vec<_> = kinds.into_iter().map(|(kind, attempt, length)| {
                let seq = &mut seqs[attempt as usize];
                *seq += 1;
                match kind {
                    0 => rows(0, attempt, *seq),
                    1 => progress(0, attempt, *seq),
                    2 => { *seq -= 1; notice("it waits") }
                    _ => output(0, attempt, *seq, length),
                }
            }).collect();
            let mut all = Vec::new();
            for (index, group) in entries.chunks(group).enumerate() {
                let log = &logs[index % 2];
                let before = if index > 0 { files(&log.folder_of(&job)) } else { HashMap::new() };
                log.append(&job, group.to_vec()).await.unwrap();
                settle(log, &job);
                for entry in group {
                    all.push(stored(all.len() as u64 + 1, entry.clone()));
                }
                if crash {
                    // As if the process had been killed before it removed the replaced file.
                    for (path, bytes) in before {
                        if !path.exists() {
                            fs::write(path, bytes).unwrap();
                        }
                    }
                }
            }
            let left = read_all(&logs[0], &job, 400).await;
            check(&all, &left);
            for log in [&logs[1], &open_with_limit(dir.path())] {
                assert_eq!(read_all(log, &job, 10_000).await, left);
                for attempt in 1..3 {
                    assert_eq!(log.last_seq(&super::attempt(&job, 0, attempt), 0).await.unwrap(), seqs[attempt as usize]);
                }
                for after in 0..=all.len() as u64 {
                    let page = log.read(&job, after, usize::MAX).await.unwrap();
                    let rest: Vec<_> = left.iter().filter(|it| it.position > after).cloned().collect();
                    assert_eq!(page.records, rest);
                }
            }
            let output: u64 = left.iter().filter_map(output_bytes).sum();
            // The tail and one more segment are not compacted, and a group may exceed the size of a segment.
            assert!(output <= LIMIT + 2 * (700 + 6 * 300), "{output} bytes of output are left");
        });
    }
}

#[tokio::test]
async fn endless_output_uses_bounded_space() {
    let dir = tempfile::tempdir().unwrap();
    let (log, job) = (open_with_limit(dir.path()), JobId::generate());
    for seq in 1..3000 {
        log.append(&job, vec![output(0, 1, seq, 100)]).await.unwrap();
    }
    settle(&log, &job);
    let files = files(&log.folder_of(&job));
    let bytes: usize = files.values().map(Vec::len).sum();
    assert!(files.len() < 8 && bytes < 5000, "{} files with {bytes} bytes", files.len());
    let left = read_all(&log, &job, 1000).await;
    let outputs = left.iter().filter_map(output_bytes).count() as u64;
    assert_eq!(retained_gap(&left[0]), Some((2999 - outputs) * 100));
    assert_eq!(left.iter().filter(|it| retained_gap(it).is_some()).count(), 1);
    assert_eq!((left[0].step, left[0].attempt, left[0].position), (0, 1, 2999 - outputs));
    assert_eq!(left[0].record.as_ref().unwrap().statement, Some(0));
}

/// Progress is removed without a gap record, also at the end of a file.
#[tokio::test]
async fn removed_progress_is_not_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (log, job) = (open_with_limit(dir.path()), JobId::generate());
    let outputs = (1..=30).map(|seq| output(0, 1, seq, 200));
    let first: Vec<_> = outputs.chain([rows(0, 1, 31), progress(0, 1, 32), progress(0, 1, 33)]).collect();
    log.append(&job, first).await.unwrap();
    // It begins a file, which then has no record.
    log.seal(&attempt(&job, 0, 1), None).await.unwrap();
    settle(&log, &job);
    let left = read_all(&log, &job, 1000).await;
    assert_eq!(left.last().unwrap().position, 31);
    assert_eq!(read_all(&open_with_limit(dir.path()), &job, 100).await, left);
    assert_eq!(log.read(&job, 32, 1000).await.unwrap().records, []);
}

#[tokio::test]
async fn reader_continues_while_output_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (log, other, job) = (open_with_limit(dir.path()), open_with_limit(dir.path()), JobId::generate());
    let mut seq = 0;
    let mut cursor = 0;
    for _ in 0..100 {
        for _ in 0..7 {
            seq += 1;
            log.append(&job, vec![output(0, 1, seq, 100)]).await.unwrap();
        }
        let page = other.read(&job, cursor, 200).await.unwrap();
        let first = &page.records[0];
        assert!(first.position == cursor + 1 || retained_gap(first).is_some(), "a hole is reported");
        cursor = page.records.last().unwrap().position;
    }
}
