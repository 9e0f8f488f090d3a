//! The contract of the trait, without faults.

use std::collections::BTreeMap;

use super::super::Missing;
use super::super::summary::is_of_limit;
use super::*;

#[tokio::test]
async fn append_reports_durable_end_and_drops_duplicates() {
    let dir = tempfile::tempdir().unwrap();
    let (log, job) = (open(dir.path()), JobId::generate());
    let appended =
        log.append(&job, vec![output(0, 1, 1, 5), notice("it runs"), output(0, 1, 2, 5)]).await.unwrap();
    assert_eq!((appended.last_position, appended.last_seqs), (3, BTreeMap::from([(agent(0, 1), 2)])));
    let appended = log.append(&job, vec![output(0, 1, 2, 5), output(0, 1, 3, 5)]).await.unwrap();
    assert_eq!((appended.last_position, appended.last_seqs), (4, BTreeMap::from([(agent(0, 1), 3)])));
    let only_repeats = log.append(&job, vec![output(0, 1, 1, 5)]).await.unwrap();
    assert_eq!((only_repeats.last_position, only_repeats.last_seqs), (4, BTreeMap::from([(agent(0, 1), 3)])));
    assert_eq!(seqs(&read_all(&log, &job, 1000).await), [(1, 1), (2, 0), (3, 2), (4, 3)]);
}

#[tokio::test]
async fn files_are_closed_to_other_users() {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let limits = LogOptions { retain_output_bytes_per_job: 1500, ..options(dir.path()) };
    let (log, job, moved) = (SegmentLog::open(limits).unwrap(), job_of_the_future(), JobId::generate());
    for seq in 1..60 {
        log.append(&job, vec![output(0, 1, seq, 100)]).await.unwrap();
    }
    compaction::settle(&log, &job);
    let files = |job| fs::read_dir(log.folder_of(job)).unwrap().map(|file| file.unwrap().path());
    let ends_in = |path: &Path, end: &str| path.to_str().unwrap().ends_with(end);
    let segment = files(&job).find(|path| ends_in(path, ".log")).unwrap();
    move_to_folder(&log, &moved, &Bytes::from(fs::read(segment).unwrap()));
    let all: Vec<_> = files(&job).chain(files(&moved)).collect();
    for kind in ["/lock", ".kept", ".log"] {
        assert!(all.iter().any(|path| ends_in(path, kind)), "{kind}: {all:?}");
    }
    for path in all {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
    }
}

#[tokio::test]
async fn gap_error_names_expected_seq() {
    let dir = tempfile::tempdir().unwrap();
    let (log, job) = (open(dir.path()), JobId::generate());
    let refused = log.append(&job, vec![output(0, 1, 1, 5), output(0, 1, 3, 5)]).await;
    assert!(matches!(refused, Err(LogError::Gap { expected: 2, got: 3, .. })));
    assert_eq!(log.last_position(&job).await.unwrap(), 0);
}

#[tokio::test]
async fn seal_holds_across_processes_and_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (log, other, job) = (open(dir.path()), open(dir.path()), JobId::generate());
    let first = attempt(&job, 0, 1);
    log.append(&job, vec![output(0, 1, 1, 5)]).await.unwrap();
    assert_eq!(log.seal(&first, None).await.unwrap(), BTreeMap::from([(0, 1)]));
    assert_eq!(other.seal(&first, None).await.unwrap(), BTreeMap::from([(0, 1)]), "twice is harmless");
    let silent = other.seal(&attempt(&job, 7, 1), None).await.unwrap();
    assert_eq!(silent, BTreeMap::from([(0, 0)]), "an attempt that never spoke");
    for seq in 1..50 {
        other.append(&job, vec![output(0, 2, seq, 100)]).await.unwrap();
    }
    for log in [log, other, open(dir.path())] {
        assert!(matches!(log.append(&job, vec![output(0, 1, 2, 5)]).await, Err(LogError::Sealed { .. })));
        assert!(matches!(log.append(&job, vec![output(7, 1, 1, 5)]).await, Err(LogError::Sealed { .. })));
        assert!(log.append(&job, vec![output(0, 1, 1, 5)]).await.is_ok(), "a repeat is acknowledged");
        assert_eq!(log.last_seq(&first, 0).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn first_seal_adds_gap_for_missing_records() {
    let dir = tempfile::tempdir().unwrap();
    let (log, job) = (open(dir.path()), JobId::generate());
    log.append(&job, vec![output(0, 1, 1, 5), output(0, 2, 1, 5)]).await.unwrap();
    let missing = |said| Some(Missing { said, gap: Record { time_unix_micros: 7, ..Record::default() } });
    for (number, said) in [(1, 2), (1, 3), (2, 1), (2, 9)] {
        let sealed = log.seal(&attempt(&job, 0, number), missing(said)).await.unwrap();
        assert_eq!(sealed, BTreeMap::from([(0, 1)]));
    }
    let records = read_all(&log, &job, usize::MAX).await;
    let gaps = records.iter().filter(|it| it.record.as_ref().unwrap().time_unix_micros == 7);
    assert_eq!(gaps.map(|it| it.attempt).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn consecutive_seals_need_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let job = JobId::generate();
    let log = SegmentLog::open(LogOptions { segment_bytes: 1, ..options(dir.path()) }).unwrap();
    for step in 0..5 {
        log.seal(&attempt(&job, step, 1), None).await.unwrap();
        log.append(&job, vec![notice("on")]).await.unwrap();
        log.seal(&attempt(&job, step, 2), None).await.unwrap();
        log.seal(&attempt(&job, step, 3), None).await.unwrap();
    }
    assert_eq!(positions(&read_all(&open(dir.path()), &job, 1).await), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn evidence_covers_all_attempts_and_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (log, job) = (open(dir.path()), JobId::generate());
    log.append(&job, vec![output(0, 1, 1, 5), started(1, 1, 1), rows(2, 1, 1)]).await.unwrap();
    log.append(&job, (1..50).map(|seq| output(3, 1, seq, 100)).collect()).await.unwrap();
    log.append(&job, vec![notice("it goes on")]).await.unwrap();
    for log in [log, open(dir.path())] {
        let evidence = async |step| log.evidence(&job, step).await.map(|it| (it.started, it.rows)).unwrap();
        assert_eq!(evidence(0).await, (false, false));
        assert_eq!(evidence(1).await, (true, false));
        assert_eq!(evidence(2).await, (true, true));
    }
}

#[tokio::test]
async fn pages_are_bounded_and_never_empty() {
    let dir = tempfile::tempdir().unwrap();
    let (log, job) = (open(dir.path()), JobId::generate());
    assert_eq!(log.read(&job, 0, 100).await.unwrap().last_position, 0);
    assert_eq!(log.read(&job, 1, 100).await.unwrap().last_position, 0);
    log.append(&job, (1..40).map(|seq| output(0, 1, seq, 100)).collect()).await.unwrap();
    let page = log.read(&job, 10, 1).await.unwrap();
    assert_eq!((positions(&page.records), page.last_position), (vec![11], 39));
    let page = log.read(&job, 10, 500).await.unwrap();
    assert!((2..5).contains(&page.records.len()), "{} records", page.records.len());
    assert_eq!(log.read(&job, 0, usize::MAX).await.unwrap().records.len(), 39);
    assert!(log.read(&job, 39, 100).await.unwrap().records.is_empty());
    let page = log.read(&job, 40, 100).await.unwrap();
    assert!(
        page.records.is_empty() && page.last_position == 39 && page.is_current,
        "the reader goes back to the end"
    );
}

#[tokio::test]
async fn record_longer_than_chunk_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (log, job) = (open(dir.path()), JobId::generate());
    log.append(&job, vec![output(0, 1, 1, 10), output(0, 1, 2, 3_000_000), output(0, 1, 3, 10)])
        .await
        .unwrap();
    let page = log.read(&open_twice(dir.path(), &job).await, 1, 1).await.unwrap();
    let Some(Payload::Output(found)) = page.records[0].record.as_ref().and_then(|it| it.payload.clone())
    else {
        panic!("it is output");
    };
    assert_eq!(found.data.len(), 3_000_000);
}

/// Opens the log in another process, which reads it.
async fn open_twice(dir: &Path, job: &JobId) -> JobId {
    assert_eq!(read_all(&open(dir), job, 100).await.len(), 3);
    job.clone()
}

#[tokio::test]
async fn full_log_reports_dropped_results_and_stays_full() {
    let dir = tempfile::tempdir().unwrap();
    let job = JobId::generate();
    let limits = LogOptions { max_bytes_per_job: 300, ..options(dir.path()) };
    let log = SegmentLog::open(limits.clone()).unwrap();
    let mut seq = 0;
    loop {
        seq += 1;
        if log.append(&job, vec![rows(0, 1, seq)]).await.unwrap().is_full {
            break;
        }
        assert!(seq < 30, "the limit holds");
    }
    log.append(&job, vec![output(0, 1, seq + 1, 1000), notice("it ends")]).await.unwrap();
    let records = read_all(&log, &job, 10_000).await;
    let gaps = records.iter().filter(|it| is_of_limit(it.record.as_ref().unwrap())).count();
    assert_eq!((gaps, records.len() as u64), (1, seq + 2));
    let reopened = SegmentLog::open(limits).unwrap();
    assert!(reopened.append(&job, vec![rows(0, 1, seq)]).await.unwrap().is_full, "also for who comes again");
    assert!(reopened.evidence(&job, 0).await.unwrap().rows);
}

#[tokio::test]
async fn watchers_see_appends_and_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (log, other, job) = (open(dir.path()), open(dir.path()), JobId::generate());
    let mut watch = log.watch(&job);
    assert_eq!(*watch.borrow_and_update(), 0);
    log.append(&job, vec![notice("one")]).await.unwrap();
    watch.changed().await.unwrap();
    assert_eq!(*watch.borrow_and_update(), 1);
    other.append(&job, vec![notice("two"), notice("three")]).await.unwrap();
    assert_eq!(log.read(&job, 1, 1000).await.unwrap().records.len(), 2, "another process's records are seen");
    watch.changed().await.unwrap();
    assert_eq!(*watch.borrow_and_update(), 3);
}

#[tokio::test]
async fn concurrent_appends_are_ordered_by_position() {
    let dir = tempfile::tempdir().unwrap();
    let (log, job) = (open(dir.path()), JobId::generate());
    let appends = (0..200_u32).map(|step| {
        let (log, job) = (log.clone(), job.clone());
        tokio::spawn(
            async move { log.append(&job, vec![output(step, 1, 1, 10), output(step, 1, 2, 10)]).await },
        )
    });
    for append in appends.collect::<Vec<_>>() {
        append.await.unwrap().unwrap();
    }
    let records = read_all(&log, &job, 5000).await;
    assert_eq!(positions(&records), (1..=400).collect::<Vec<_>>());
    for pair in records.chunks(2) {
        assert_eq!(pair[0].step, pair[1].step, "an append stays together");
    }
}

#[tokio::test]
async fn deleted_log_is_gone_for_all_processes() {
    let dir = tempfile::tempdir().unwrap();
    let (log, other) = (open(dir.path()), open(dir.path()));
    let (job, stays) = (JobId::generate(), JobId::generate());
    for id in [&job, &stays] {
        log.append(id, (1..30).map(|seq| output(0, 1, seq, 100)).collect()).await.unwrap();
        assert_eq!(other.last_position(id).await.unwrap(), 29);
    }
    let mut jobs = log.jobs().await.unwrap();
    jobs.sort();
    let mut expected = vec![job.clone(), stays.clone()];
    expected.sort();
    assert_eq!(jobs, expected);

    log.delete(&job).await.unwrap();
    log.delete(&job).await.unwrap();
    assert_eq!(log.jobs().await.unwrap(), std::slice::from_ref(&stays));
    assert!(!log.folder_of(&job).exists());
    assert_eq!(other.last_position(&job).await.unwrap(), 0);
    assert_eq!(other.read(&job, 5, 100).await.unwrap().last_position, 0);

    log.append(&job, (1..40).map(|seq| output(1, 1, seq, 120)).collect()).await.unwrap();
    assert_eq!(other.last_seq(&attempt(&job, 0, 1), 0).await.unwrap(), 0, "it is another log");
    assert_eq!(other.append(&job, vec![output(0, 1, 1, 5)]).await.unwrap().last_position, 40);
    assert_eq!(log.last_position(&stays).await.unwrap(), 29);
}

/// A log without end may get another append; without its state that would read its whole tail.
#[tokio::test]
async fn ended_logs_are_dropped_from_memory_first() {
    let dir = tempfile::tempdir().unwrap();
    let (log, live) = (open(dir.path()), JobId::generate());
    log.append(&live, vec![notice("it goes on")]).await.unwrap();
    let end = Notice { kind: sqlflow_proto::record::notice::Kind::End.into(), ..Notice::default() };
    for _ in 0..super::super::log_cache::ENDED_LOGS * 2 {
        let end = entry(0, 0, 0, Payload::Notice(end.clone()));
        log.append(&JobId::generate(), vec![end]).await.unwrap();
    }
    assert!(log.cached_jobs() <= super::super::log_cache::ENDED_LOGS + 1);
    assert!(log.knows(&live));
}

#[tokio::test]
async fn idle_limit_spares_logs_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let (log, watched) = (open(dir.path()), JobId::generate());
    let mut watch = log.watch(&watched);
    for _ in 0..super::super::log_cache::IDLE_LOGS * 2 {
        drop(log.watch(&JobId::generate()));
    }
    assert!(log.cached_jobs() <= super::super::log_cache::IDLE_LOGS);
    log.append(&watched, vec![notice("it is still known")]).await.unwrap();
    watch.changed().await.unwrap();
}
