//! Announcements of writes, in this process and in others.

use super::*;

/// All changes after this revision, in pages of this size, and the last revision.
async fn changes(store: &SqliteStore, mut since: Revision, page: u32) -> (Vec<JobId>, Revision) {
    let mut ids = Vec::new();
    loop {
        let changes = store.changes(since, page).await.unwrap();
        assert!(!changes.is_older && changes.jobs.len() <= page as usize);
        ids.extend(changes.jobs.into_iter().map(|changed| changed.id));
        since = changes.upto;
        if !changes.has_more {
            return (ids, since);
        }
    }
}

/// Waits for a change of the watched job.
async fn told(mut watch: watch::Receiver<KnownJob>) {
    let changed = tokio::time::timeout(Duration::from_secs(30), watch.changed());
    changed.await.expect("the change is announced").unwrap();
}

#[tokio::test]
async fn changes_are_reported_once_and_in_order() {
    let Servers { a, b, dir: _dir, .. } = servers().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let new = new_job([n; 32], 0);
        ids.push(new.job.id.clone());
        a.create(new).await.unwrap();
    }
    for page in [1, 2, 5, 99] {
        assert_eq!(changes(&b, Revision(0), page).await.0, ids, "pages of {page}");
    }
    let (_, seen) = changes(&b, Revision(0), 99).await;
    assert_eq!(changes(&b, seen, 99).await, (vec![], seen), "nothing is reported twice");
    for id in [&ids[3], &ids[1], &ids[3]] {
        let event = if *id == ids[1] { failed() } else { Event::CancelRequested(Failure::over_limit()) };
        a.update(id, None, event, 1).await.unwrap();
    }
    assert_eq!(
        changes(&b, seen, 1).await.0,
        [ids[3].clone(), ids[1].clone()],
        "the second cancel changed nothing"
    );
    let (_, seen) = changes(&b, seen, 99).await;
    a.fetched(&ids[0]).await.unwrap();
    a.advance_plain_cursor(&ids[0], 0, 7).await.unwrap();
    assert_eq!(changes(&b, seen, 99).await.0, [], "that is no change of the state");
    a.remove(&ids[1]).await.unwrap();
    a.update(&ids[0], None, attempt(), 1).await.unwrap();
    assert_eq!(
        changes(&b, seen, 99).await.0,
        [ids[0].clone()],
        "the number does not fall with a job that is removed"
    );
}

#[tokio::test]
async fn restored_store_is_reported() {
    let servers = servers().await;
    let Servers { a, b, .. } = &servers;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    let watch = b.watch(&id);
    a.update(&id, None, attempt(), 1).await.unwrap();
    told(watch).await;
    let watch = b.watch(&id);
    let (_, seen) = changes(b, Revision(0), 9).await;
    servers.tamper("UPDATE revisions SET last = 0");
    let older = b.changes(seen, 9).await.unwrap();
    assert_eq!((older.is_older, older.upto, older.jobs), (true, Revision(0), vec![]));
    told(watch).await;
}

/// Level-triggered: a watcher need not wait at the time of the write.
#[tokio::test]
async fn watcher_sees_writes_of_both_servers() {
    let Servers { a, b, dir: _dir, .. } = servers().await;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    let cancel = Event::CancelRequested(Failure::over_limit());
    for (writer, other, event) in [(&a, &b, attempt()), (&b, &a, cancel)] {
        let (own, others) = (writer.watch(&id), other.watch(&id));
        writer.update(&id, None, event, 1).await.unwrap();
        assert!(own.has_changed().unwrap(), "at once");
        told(others).await;
    }
}

/// A server's own write is not announced to it again. Another server's is, even after own writes.
#[tokio::test]
async fn own_writes_wake_watchers_once() {
    let Servers { a, b, dir: _dir, .. } = servers().await;
    let (own, others) = (new_job([1; 32], 0), new_job([2; 32], 0));
    let (own_id, others_id) = (own.job.id.clone(), others.job.id.clone());
    a.create(own).await.unwrap();
    a.create(others).await.unwrap();
    a.update(&own_id, None, attempt(), 1).await.unwrap();
    let (own_watch, others_watch) = (a.watch(&own_id), a.watch(&others_id));
    b.update(&others_id, None, attempt(), 1).await.unwrap();
    told(others_watch).await;
    assert!(!own_watch.has_changed().unwrap());
}

#[tokio::test]
async fn job_is_known_until_another_process_writes() {
    let Servers { a, b, dir: _dir, .. } = servers().await;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    let mut watch = a.watch(&id);
    assert_eq!(known_job::seen(&mut watch), None);
    let (job, _) = a.update(&id, None, attempt(), 1).await.unwrap();
    assert_eq!(known_job::seen(&mut watch).as_deref(), Some(&job));

    let (job, _) = b.update(&id, None, Event::CancelRequested(Failure::over_limit()), 1).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), watch.changed())
        .await
        .expect("the change is announced")
        .unwrap();
    assert_eq!(known_job::seen(&mut watch), None);
    assert_eq!(known_job::current(&a, &id, &mut watch).await.unwrap().as_deref(), Some(&job));
    assert_eq!(known_job::seen(&mut watch).as_deref(), Some(&job), "it was loaded");
    assert!(!watch.has_changed().unwrap(), "and that is no change");

    // This process's next write includes the other process's write.
    let first = AttemptId { job: id.clone(), step: 0, number: 1 };
    let launched = Event::AttemptLaunched { attempt: first.clone(), tracker_url: None, executor_uid: None };
    let (_, change) = b.update(&id, None, launched, 1).await.unwrap();
    assert_eq!(change, Change::Changed);
    let outcome = Outcome::by_server(Reason::LaunchFailed, "it does not start", true);
    let ended = Event::AttemptFoundEnded { attempt: first, outcome, basis: Basis::NeverAttached };
    let (job, _) = a.update(&id, None, ended, 1).await.unwrap();
    let seen = known_job::current(&a, &id, &mut watch).await.unwrap().unwrap();
    assert_eq!((&*seen, &seen.state), (&job, &JobState::Running));
}

/// Nothing would keep it up to date.
#[tokio::test]
async fn unwatched_job_is_not_known() {
    let Servers { a, dir: _dir, .. } = servers().await;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    let mut watch = a.watch(&id);
    let (job, _) = a.update(&id, None, attempt(), 1).await.unwrap();
    assert_eq!(known_job::seen(&mut watch).as_deref(), Some(&job));
    drop(watch);
    a.update(&id, None, Event::CancelRequested(Failure::over_limit()), 1).await.unwrap();
    assert_eq!(known_job::seen(&mut a.watch(&id)), None);
}
