//! Another process holds a log's lock for long, as a stopped one.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use super::*;
use crate::file_io::Disk;
use crate::folder::Folder;
use crate::lock::{JobLock, Tried};
use crate::{Health, Maintenance};

/// Locks the log as another process; dropping the file unlocks it.
fn hold(log: &SegmentLog, job: &JobId) -> File {
    let lock = File::options().read(true).write(true).open(log.folder_of(job).join("lock")).unwrap();
    lock.lock().unwrap();
    lock
}

#[tokio::test]
async fn append_times_out_naming_holder_while_reads_work() {
    let dir = tempfile::tempdir().unwrap();
    let (log, job) = (open(dir.path()), JobId::generate());
    log.append(&job, vec![output(0, 1, 1, 5), notice("on")]).await.unwrap();
    let held = hold(&log, &job);
    // It was stopped during a write.
    let mut files = fs::read_dir(log.folder_of(&job)).unwrap().map(|file| file.unwrap().path());
    let tail = files.find(|path| path.extension().is_some()).unwrap();
    let torn = [fs::read(&tail).unwrap(), vec![9; 30]].concat();
    fs::write(&tail, &torn).unwrap();

    let fresh = open(dir.path());
    for log in [&log, &fresh] {
        let page = log.read(&job, 0, 1000).await.unwrap();
        assert_eq!((positions(&page.records), page.last_position), (vec![1, 2], 2));
        assert_eq!(log.last_position(&job).await.unwrap(), 2);
    }
    let page = fresh.read(&job, 0, 1000).await.unwrap();
    assert!(!page.is_current, "more may be there");
    let attempt = attempt(&job, 0, 1);
    let (appended, sealed, asked, deleted, at_end) = tokio::join!(
        fresh.append(&job, vec![notice("on")]),
        log.seal(&attempt, None),
        fresh.last_seq(&attempt, 0),
        log.delete(&job),
        fresh.read(&job, 2, 1000),
    );
    let at_end = at_end.unwrap();
    assert_eq!((at_end.records.len(), at_end.last_position, at_end.is_current), (0, 2, false));
    let errors = [appended.err(), sealed.err(), asked.err(), deleted.err()];
    for error in errors {
        let Some(LogError::Busy { holder, .. }) = &error else { panic!("{error:?}") };
        assert_eq!(*holder, Some(std::process::id()));
    }
    drop(held);
    assert_eq!(fresh.append(&job, vec![notice("on")]).await.unwrap().last_position, 3);
    assert_eq!(log.last_seq(&attempt, 0).await.unwrap(), 1);
    assert!(fresh.read(&job, 0, 1000).await.unwrap().is_current);
}

#[test]
fn waiters_block_no_threads() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(4).build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let (log, free) = (open(dir.path()), JobId::generate());
        log.append(&free, vec![notice("on")]).await.unwrap();
        let mut held = Vec::new();
        let mut appends = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let job = JobId::generate();
            log.append(&job, vec![notice("on")]).await.unwrap();
            held.push(hold(&log, &job));
            let log = log.clone();
            appends.spawn(async move { log.append(&job, vec![notice("on")]).await });
        }
        for _ in 0..20 {
            let read = tokio::time::timeout(Duration::from_secs(60), log.read(&free, 0, 100)).await;
            assert_eq!(read.expect("it does not wait for them").unwrap().last_position, 1);
        }
        assert_eq!(log.append(&free, vec![notice("on")]).await.unwrap().last_position, 2);
        drop(held);
        while let Some(appended) = appends.join_next().await {
            match appended.unwrap() {
                Ok(appended) => assert_eq!(appended.last_position, 2),
                Err(LogError::Busy { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
}

/// A process that appends without a pause lets others append.
#[tokio::test(flavor = "multi_thread")]
async fn waiter_gets_lock_of_busy_log() {
    let dir = tempfile::tempdir().unwrap();
    let (busy, other, job) = (open(dir.path()), open(dir.path()), JobId::generate());
    let (log, id) = (busy.clone(), job.clone());
    let endless = tokio::spawn(async move {
        let mut appends = tokio::task::JoinSet::new();
        loop {
            while appends.len() < 64 {
                let (log, id) = (log.clone(), id.clone());
                appends.spawn(async move { log.append(&id, vec![notice("on")]).await.unwrap() });
            }
            appends.join_next().await;
        }
    });
    for _ in 0..20 {
        other.append(&job, vec![notice("here, too")]).await.unwrap();
    }
    endless.abort();
}

/// As a process that is stopped while it waits: it is first in line, and never locks.
#[tokio::test]
async fn stopped_waiter_blocks_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (log, job) = (open(dir.path()), JobId::generate());
    log.append(&job, vec![notice("on")]).await.unwrap();
    let held = hold(&log, &job);
    let folder = Folder { path: log.folder_of(&job), created_micros: 0, disk: Disk::new(false) };
    let Tried::Busy(stopped) = JobLock::try_if_there(&folder).unwrap() else { panic!("it is held") };
    drop(held);
    let other = open(dir.path());
    let before = Instant::now();
    assert_eq!(log.append(&job, vec![notice("on")]).await.unwrap().last_position, 2);
    assert_eq!(other.append(&job, vec![notice("on")]).await.unwrap().last_position, 3);
    assert_eq!(other.last_seq(&attempt(&job, 0, 1), 0).await.unwrap(), 0);
    assert_eq!(Maintenance::of(dir.path()).repair(&job).unwrap(), Health::Good);
    assert!(before.elapsed() < Duration::from_secs(4), "{:?}", before.elapsed());
    // It continues, and others are first in line again.
    assert!(matches!(stopped.try_again().unwrap(), Some(Tried::Held(_))));
    log.delete(&job).await.unwrap();
}

/// The queue of a busy log may take minutes, and each of its waits for the lock has its own timeout.
#[tokio::test(flavor = "multi_thread")]
async fn lock_timeout_counts_only_held_time() {
    let dir = tempfile::tempdir().unwrap();
    let (log, job) = (open(dir.path()), JobId::generate());
    log.append(&job, vec![notice("on")]).await.unwrap();
    let held = hold(&log, &job);
    let folder = Folder { path: log.folder_of(&job), created_micros: 0, disk: Disk::new(false) };
    let append = || {
        let (log, job) = (log.clone(), job.clone());
        tokio::spawn(async move { log.append(&job, vec![notice("on")]).await })
    };
    let first = append();
    tokio::time::sleep(Duration::from_millis(4500)).await;
    let second = append();
    // Locks as soon as the first append is written, and unlocks after its first 5 s.
    let other = std::thread::spawn(move || {
        let mut tried = JobLock::try_if_there(&folder).unwrap();
        drop(held);
        let held = loop {
            tried = match tried {
                Tried::Busy(waiting) => waiting.try_again().unwrap().unwrap(),
                Tried::Held(held) => break held,
                Tried::NoFolder => panic!("it is there"),
            };
        };
        std::thread::sleep(Duration::from_secs(1));
        drop(held);
    });
    assert_eq!(first.await.unwrap().unwrap().last_position, 2);
    assert_eq!(second.await.unwrap().unwrap().last_position, 3);
    other.join().unwrap();
}

#[tokio::test]
async fn late_waiter_gets_full_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let (log, job) = (open(dir.path()), JobId::generate());
    log.append(&job, vec![notice("on")]).await.unwrap();
    let held = hold(&log, &job);
    let later = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        let (appended, ()) = tokio::join!(log.append(&job, vec![notice("on")]), async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            drop(held);
        });
        appended
    };
    let (first, later) = tokio::join!(log.append(&job, vec![notice("on")]), later);
    assert!(matches!(first, Err(LogError::Busy { .. })), "{first:?}");
    assert_eq!(later.unwrap().last_position, 2);
}
