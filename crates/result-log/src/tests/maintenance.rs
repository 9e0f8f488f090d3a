//! The log's part of the doctor.

use std::fs;
use std::path::PathBuf;

use super::damage::{flip, is_damage, log_of_many_segments};
use super::*;
use crate::{Found, Health, Maintenance, Moved};

fn health(dir: &Path, job: &JobId) -> Health {
    Maintenance::of(dir).inspect(job, &|| true).unwrap().unwrap()
}

/// Names, sizes and contents of all files below the folder.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            all.extend(contents(&entry));
        } else {
            all.push((entry.clone(), fs::read(&entry).unwrap()));
        }
    }
    all.sort();
    all
}

/// Intact logs of all forms: empty, one and many segments, compacted, torn after the committed offset, without one.
#[tokio::test]
async fn intact_logs_are_good() {
    let dir = tempfile::tempdir().unwrap();
    let limits = LogOptions { retain_output_bytes_per_job: 1500, ..options(dir.path()) };
    let (log, job) = (SegmentLog::open(limits).unwrap(), job_of_the_future());
    assert_eq!(health(dir.path(), &job), Health::Missing);
    for seq in 1..60 {
        log.append(&job, vec![output(0, 1, seq, 100)]).await.unwrap();
        assert_eq!(health(dir.path(), &job), Health::Good, "after {seq}");
    }
    log.seal(&attempt(&job, 0, 1), None).await.unwrap();
    assert_eq!(health(dir.path(), &job), Health::Good);
    let folder = log.folder_of(&job);
    let has = |extension: &str| {
        contents(&folder).iter().any(|(path, _)| path.extension().is_some_and(|it| it == extension))
    };
    assert!(has("kept"));

    let tail = contents(&folder)
        .into_iter()
        .rfind(|(path, _)| path.extension().is_some_and(|it| it == "log"))
        .unwrap();
    fs::write(&tail.0, [tail.1.clone(), vec![9; 30]].concat()).unwrap();
    assert_eq!(
        health(dir.path(), &job),
        Health::Good,
        "what is torn behind the committed offset was not acknowledged"
    );
    fs::remove_file(folder.join("lock")).unwrap();
    assert_eq!(health(dir.path(), &job), Health::Good, "servers find the committed offset again");
    assert!(!has("damaged") && !folder.join("lock").exists(), "nothing is changed");
}

#[tokio::test]
async fn flipped_bit_is_found_and_repaired_beside_server() {
    let dir = tempfile::tempdir().unwrap();
    let (_, files) = log_of_many_segments(dir.path()).await;
    for number in 0..files.len() {
        let dir = tempfile::tempdir().unwrap();
        let (job, files) = log_of_many_segments(dir.path()).await;
        let server = open(dir.path());
        let whole = read_all(&server, &job, 1000).await;
        flip(&files[number], 200);
        let before = contents(dir.path());
        let Health::Damaged(damage) = health(dir.path(), &job) else { panic!("file {number} is damaged") };
        assert_eq!((&damage.file, damage.files), (&files[number], 1));
        assert!(damage.offset <= 200 && contents(dir.path()) == before);

        assert_eq!(Maintenance::of(dir.path()).repair(&job).unwrap(), Health::Good);
        assert_eq!(Maintenance::of(dir.path()).kept_aside(&job).unwrap().len(), 1);
        let records = read_all(&server, &job, 1000).await;
        let lost = |it: &&StoredRecord| !is_damage(it);
        assert!(records.iter().filter(lost).all(|it| whole.contains(it)));
        assert_eq!(records.iter().filter(|it| is_damage(it)).count(), 1, "file {number}");
        assert_eq!(records.len(), whole.len(), "one record is lost");
    }
}

#[tokio::test]
async fn missing_files_are_found_and_become_gap() {
    for gone in [vec![0], vec![1, 2], vec![usize::MAX], vec![0, usize::MAX]] {
        let dir = tempfile::tempdir().unwrap();
        let (job, files) = log_of_many_segments(dir.path()).await;
        let server = open(dir.path());
        read_all(&server, &job, 1000).await;
        for number in &gone {
            fs::remove_file(&files[(*number).min(files.len() - 1)]).unwrap();
        }
        // A new process knows nothing of the files, unless it has to repair the end.
        let later = open(dir.path());
        if !gone.contains(&usize::MAX) {
            assert_eq!(later.last_position(&job).await.unwrap(), 39);
        }
        let Health::Damaged(damage) = health(dir.path(), &job) else { panic!("{gone:?} are missing") };
        assert!(damage.files > 0);
        assert_eq!(Maintenance::of(dir.path()).repair(&job).unwrap(), Health::Good, "{gone:?}");
        for log in [server, later, open(dir.path())] {
            let records = read_all(&log, &job, 1000).await;
            let mut end = 0;
            for record in &records {
                assert!(record.position == end + 1 || is_damage(record), "{gone:?}: {record:?}");
                end = record.position;
            }
            assert_eq!(end, 39, "{gone:?}");
            assert!(records.iter().any(is_damage), "{gone:?}");
            assert!(log.append(&job, Vec::new()).await.is_ok());
        }
    }
}

/// As on a full disk.
#[tokio::test]
async fn repair_on_full_disk_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (job, files) = log_of_many_segments(dir.path()).await;
    for damaged in [&files[1], files.last().unwrap()] {
        flip(damaged, 200);
        let logs = Maintenance::of(dir.path());
        logs.fail_syncs(1);
        assert!(matches!(logs.repair(&job), Err(LogError::Io { .. })));
        assert!(matches!(health(dir.path(), &job), Health::Damaged(_)));
        let unfinished = |(path, _): &(PathBuf, Vec<u8>)| path.extension().is_some_and(|it| it == "tmp");
        assert!(!contents(dir.path()).iter().any(unfinished), "it would hold the space that is wanting");
        assert_eq!(logs.repair(&job).unwrap(), Health::Good);
    }
    assert_eq!(read_all(&open(dir.path()), &job, 1000).await.iter().filter(|it| is_damage(it)).count(), 2);
}

/// Both a server and the doctor can open it; a gap record stands for its end.
#[tokio::test]
async fn log_without_committed_offset_and_tail_is_usable() {
    for by_tool in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let limits = LogOptions { retain_output_bytes_per_job: 700, ..options(dir.path()) };
        let (log, job) = (SegmentLog::open(limits).unwrap(), job_of_the_future());
        for seq in 1..40 {
            log.append(&job, vec![output(0, 1, seq, 100)]).await.unwrap();
        }
        for (path, _) in contents(&log.folder_of(&job)) {
            if path.extension().is_none_or(|it| it == "log") {
                fs::remove_file(path).unwrap();
            }
        }
        assert!(matches!(health(dir.path(), &job), Health::Damaged(_)));
        if by_tool {
            assert_eq!(Maintenance::of(dir.path()).repair(&job).unwrap(), Health::Good);
        }
        let log = open(dir.path());
        let records = read_all(&log, &job, 1000).await;
        assert!(records.last().is_some_and(is_damage), "by_tool: {by_tool}");
        assert!(log.evidence(&job, 0).await.unwrap().started, "what is lost may have said so");
        let last = records.last().unwrap().position;
        assert_eq!(log.append(&job, vec![notice("on")]).await.unwrap().last_position, last + 1);
        assert_eq!(health(dir.path(), &job), Health::Good);
    }
}

#[tokio::test]
async fn locked_log_is_not_repaired_and_holder_named() {
    let dir = tempfile::tempdir().unwrap();
    let (job, files) = log_of_many_segments(dir.path()).await;
    flip(&files[0], 200);
    let folder = open(dir.path()).folder_of(&job);
    let lock = fs::File::options().read(true).write(true).open(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let before = contents(dir.path());
    let (logs, to) = (Maintenance::of(dir.path()), dir.path().join("aside"));
    fs::create_dir(&to).unwrap();
    assert!(matches!(health(dir.path(), &job), Health::Damaged(_)), "looking needs no lock");
    for refused in [logs.repair(&job).err(), logs.set_aside(&folder, &to).err(), logs.delete(&folder).err()] {
        let Some(LogError::Busy { holder, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(holder, Some(std::process::id()));
    }
    assert_eq!(contents(dir.path()), before);
}

#[tokio::test]
async fn set_aside_log_is_whole_and_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (job, files) = log_of_many_segments(dir.path()).await;
    let folder = files[0].parent().unwrap().to_owned();
    let (logs, to) = (Maintenance::of(dir.path()), dir.path().join("aside"));
    fs::create_dir_all(to.join(job.as_str())).unwrap();
    let shard = folder.parent().unwrap();
    let found = Found::Log { job: job.clone(), path: folder.clone(), is_in_place: true };
    assert_eq!(logs.entries(shard).unwrap(), [found]);
    let Moved::To(place) = logs.set_aside(&folder, &to).unwrap() else { panic!("it was there") };
    assert_eq!(fs::read_dir(place).unwrap().count(), files.len() + 1);
    assert_eq!(fs::read_dir(to.join(job.as_str())).unwrap().count(), 0);
    assert_eq!(logs.entries(shard).unwrap(), []);
    assert_eq!(logs.set_aside(&folder, &to).unwrap(), Moved::Missing);
    assert!(logs.delete(&folder).is_ok());
}
