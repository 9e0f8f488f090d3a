//! Damaged documents, and files and documents of other versions.

use super::*;

/// A file from before migration 0002. Its leases are valid until they expire, and its counts are kept.
#[tokio::test]
async fn file_of_older_server_is_migrated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let (live, ended) = (JobId::generate(), JobId::generate());
    let connection = sqlite::older_file(&path, 1);
    let doc = |id: &JobId| serde_json::to_string(&Job::new(id.clone(), Vec::new())).unwrap();
    for (id, token, state, ended_ms) in [(&live, 1_u8, "running", None), (&ended, 2, "succeeded", Some(7))] {
        let values = rusqlite::params![id.as_str(), [token; 32], state, doc(id), ended_ms];
        let insert = "INSERT INTO jobs VALUES (?, ?, 'ada', ?, ?, 0, ?, 'a', 1, 1000, 500, 0, 0)";
        connection.execute(insert, values).unwrap();
    }
    drop(connection);

    let clock = Arc::new(AtomicI64::new(999));
    let now = Arc::clone(&clock);
    let store =
        SqliteStore::open_with(&path, SecretKeys::default(), Box::new(move || now.load(Ordering::SeqCst)))
            .await
            .unwrap();
    assert_eq!(store.claim(claim("b", &[])).await.unwrap(), []);
    store.heartbeat(&server("b"), ms(1_000), ms(100)).await.unwrap();
    assert_eq!(store.unfetched(None, 10).await.unwrap().len(), 1);
    assert_eq!(store.ended_before(8, None, 10).await.unwrap(), [EndedJob { id: ended, ended_ms: 7 }]);
    let counts = store.counts().await.unwrap();
    assert_eq!(counts, [("running".to_owned(), 1), ("succeeded".to_owned(), 1)]);
    clock.store(1_000, Ordering::SeqCst);
    let taken = store.claim(claim("b", &[])).await.unwrap();
    assert_eq!(taken, [(live.clone(), Lease { owner: server("b"), epoch: 2 })]);
    assert_eq!(store.load(&live).await.unwrap().unwrap().job.id, live);
}

/// Older servers counted and listed a cancelled job as a failed one.
#[tokio::test]
async fn migration_marks_cancelled_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let connection = sqlite::older_file(&path, 5);
    let causes = [Cause::Cancelled, Cause::NotFetched, Cause::Killed, Cause::StatementFailed];
    let ids = causes.map(|cause| {
        let id = JobId::generate();
        let state = JobState::Failed(Failure::new(cause, "why"));
        let doc = serde_json::to_string(&Job { state, ..Job::new(id.clone(), Vec::new()) }).unwrap();
        let doc = if cause == Cause::Killed { "{".to_owned() } else { doc };
        let insert = "INSERT INTO jobs (job_id, token_hash, user_id, state, doc, created_ms, ended_ms, lease_epoch, \
            lease_until_ms, fetch_timeout_ms, fetched_ms) VALUES (?, ?, 'ada', 'failed', ?, 0, 7, 1, 0, 0, 0)";
        let token: [u8; 32] = rand::random();
        connection.execute(insert, rusqlite::params![id.as_str(), token, doc]).unwrap();
        id
    });
    drop(connection);
    let store = SqliteStore::open(&path).await.unwrap();
    let counts = store.counts().await.unwrap();
    let count = |state: &str| counts.iter().find(|it| it.0 == state).map(|it| it.1);
    assert_eq!((count("failed"), count("cancelled")), (Some(2), Some(2)));
    let listed = async |state| {
        let filter = JobFilter { states: vec![state], limit: 9, ..JobFilter::default() };
        let mut ids: Vec<_> = store.list(filter).await.unwrap().into_iter().map(|it| it.job.id).collect();
        ids.sort();
        ids
    };
    assert_eq!(listed("cancelled").await, [ids[0].clone(), ids[1].clone()]);
    assert_eq!(listed("failed").await, [ids[2].clone(), ids[3].clone()]);
}

/// A flipped bit made listings fail, and its reconciler retried without end.
#[tokio::test]
async fn damaged_document_fails_only_its_job() {
    let servers = servers().await;
    let Servers { a, b, .. } = &servers;
    let mut ids = Vec::new();
    for n in 0..3 {
        let new = new_job([n; 32], 0);
        ids.push(new.job.id.clone());
        a.create(new).await.unwrap();
    }
    let [loaded, cancelled, whole] = &ids[..] else { unreachable!() };
    a.update(loaded, None, attempt(), 1).await.unwrap();
    servers.tamper(&format!("UPDATE jobs SET doc = '{{' WHERE job_id <> '{whole}'"));

    assert_eq!(b.list(JobFilter { limit: 9, ..JobFilter::default() }).await.unwrap().len(), 3);
    assert_eq!(b.claim(claim("b", &["a"])).await.unwrap().len(), 3);
    let record = b.load(loaded).await.unwrap().unwrap();
    let JobState::Failed(failure) = record.job.state else { panic!("it has ended: {:?}", record.job) };
    assert_eq!(failure.cause, Cause::MayHaveExecuted);
    assert!(record.ended_ms.is_some());
    let cancel = Failure { cause: Cause::Cancelled, message: "by the user".to_owned() };
    let (job, _) = a.update(cancelled, None, Event::CancelRequested(cancel), 5).await.unwrap();
    assert!(matches!(job.state, JobState::Failed(failure) if failure.message.contains("damaged")));
    assert!(!b.load(whole).await.unwrap().unwrap().job.state.is_final());
    for id in [loaded, cancelled] {
        assert!(b.secret(id, "db").await.unwrap().is_none());
        b.remove(id).await.unwrap();
        assert!(b.load(id).await.unwrap().is_none(), "it can be removed");
    }
}

/// Such a document counted as a fault of the database, and its job could not end.
#[tokio::test]
async fn invalid_utf8_document_is_damaged() {
    let servers = servers().await;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    servers.a.create(new).await.unwrap();
    servers.tamper("UPDATE jobs SET doc = CAST(X'7bff' AS TEXT)");
    let record = servers.b.load(&id).await.unwrap().unwrap();
    assert!(matches!(record.job.state, JobState::Failed(failure) if failure.message.contains("damaged")));
}

/// Read by the doctor, with and without servers.
#[tokio::test]
async fn survey_reads_all_documents_and_changes_nothing() {
    let servers = servers().await;
    let mut ids = Vec::new();
    for n in 0..3 {
        let new = new_job([n; 32], 0);
        ids.push(new.job.id.clone());
        servers.a.create(new).await.unwrap();
    }
    ids.sort();
    let [damaged, newer, whole] = &ids[..] else { unreachable!() };
    servers.tamper(&format!("UPDATE jobs SET doc = CAST(X'7bff' AS TEXT) WHERE job_id = '{damaged}'"));
    servers.tamper(&format!("UPDATE jobs SET doc_version = 99 WHERE job_id = '{newer}'"));

    let look = |path: &Path| {
        let mut survey = Survey::open(path).unwrap();
        assert_eq!(survey.fault().unwrap(), None);
        let mut seen = survey.jobs("", 2).unwrap();
        let after = seen.last().unwrap().key.clone();
        seen.extend(survey.jobs(&after, 2).unwrap());
        assert_eq!(seen.iter().filter_map(|row| row.id.clone()).collect::<Vec<_>>(), ids);
        assert!(matches!(seen[0].document, SurveyedDocument::Damaged(_)));
        assert!(matches!(seen[1].document, SurveyedDocument::Newer { version: 99, .. }));
        assert!(matches!(seen[2].document, SurveyedDocument::Whole(_)));
        assert_eq!(seen[2].lease, first_lease());
        assert!(survey.knows(whole).unwrap() && !survey.knows(&JobId::generate()).unwrap());
        assert_eq!(survey.servers().unwrap(), [ServerLease { server: server("a"), until_ms: 1_000 }]);
        drop(survey);
    };
    let path = servers.dir.path().join("state.db");
    look(&path);
    // A copy without servers.
    let copy = tempfile::tempdir().unwrap();
    servers.tamper(&format!("VACUUM INTO '{}'", copy.path().join("state.db").display()));
    // It is in WAL mode like a server's file.
    SqliteStore::open(&copy.path().join("state.db")).await.unwrap().close().await;
    let files = || {
        let files = std::fs::read_dir(copy.path()).unwrap().map(|file| file.unwrap().path());
        files.map(|file| (std::fs::read(&file).unwrap(), file)).collect::<Vec<_>>()
    };
    let before = files();
    look(&copy.path().join("state.db"));
    assert!(files() == before, "no byte is changed, and no file made");
    // As after a server that could not start on a full disk.
    std::fs::write(copy.path().join("state.db-wal"), "").unwrap();
    let before = files();
    look(&copy.path().join("state.db"));
    assert!(files() == before, "no byte is changed, and no file made");
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(|it| it.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// Data from an immutable file is invalid once a server has the file open.
#[tokio::test]
async fn survey_continues_when_a_server_starts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let store = SqliteStore::open(&path).await.unwrap();
    store.close().await;
    let mut survey = Survey::open(&path).unwrap();
    assert_eq!(survey.jobs("", 9).unwrap().len(), 0);
    assert_eq!(names_in(dir.path()), ["state.db", "state.db.lock"]);
    let store = SqliteStore::open(&path).await.unwrap();
    store.create(new_job([1; 32], 0)).await.unwrap();
    assert_eq!(survey.jobs("", 9).unwrap().len(), 1);
}

#[tokio::test]
async fn survey_rejects_other_versions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    SqliteStore::open(&path).await.unwrap().close().await;
    let tamper = |sql: &str| {
        fixture::tamper(&path, sql);
        Survey::open(&path).err().unwrap()
    };
    let future =
        "INSERT INTO _sqlx_migrations VALUES (9999, 'of the future', CURRENT_TIMESTAMP, TRUE, X'00', 0)";
    assert!(matches!(tamper(future), SurveyError::Newer { found: 9999, .. }));
    let other =
        "DELETE FROM _sqlx_migrations WHERE version = 9999; UPDATE _sqlx_migrations SET checksum = X'00'";
    assert!(matches!(tamper(other), SurveyError::Other { version: 1, .. }));
    assert!(matches!(
        tamper("DELETE FROM _sqlx_migrations WHERE version > 1"),
        SurveyError::Older { found: 1, .. }
    ));
    assert!(matches!(tamper("DROP TABLE _sqlx_migrations"), SurveyError::Foreign(_)));
    assert!(matches!(Survey::open(&dir.path().join("other.db")), Err(SurveyError::Missing(_))));
    assert_eq!(names_in(dir.path()), ["state.db", "state.db.lock"]);
}

#[tokio::test]
async fn document_of_newer_server_is_read_only() {
    let servers = servers().await;
    let Servers { a, b, .. } = &servers;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    servers.tamper("UPDATE jobs SET doc_version = 99");
    assert!(!b.load(&id).await.unwrap().unwrap().job.state.is_final());
    let refused = b.update(&id, None, attempt(), 1).await.unwrap_err();
    assert!(refused.to_string().contains("upgrade this server"), "{refused}");
    assert_eq!(b.claim(claim("b", &["a"])).await.unwrap(), [], "a newer server reconciles it");
    // What this server cannot read is not damaged.
    servers.tamper("UPDATE jobs SET doc = '{\"of\": \"the future\"}'");
    assert!(matches!(b.load(&id).await, Err(StoreError::Newer { version: 99, .. })));
    assert_eq!(b.list(JobFilter { limit: 9, ..JobFilter::default() }).await.unwrap().len(), 1);
}

#[tokio::test]
async fn file_of_newer_server_is_rejected() {
    let Servers { dir, a, .. } = servers().await;
    drop(a);
    let path = dir.path().join("state.db");
    let future =
        "INSERT INTO _sqlx_migrations VALUES (9999, 'of the future', CURRENT_TIMESTAMP, TRUE, X'00', 0)";
    fixture::tamper(&path, future);
    let refused = SqliteStore::open(&path).await.err().unwrap().to_string();
    assert!(refused.contains("of a newer server: its version is 9999"), "{refused}");
}
