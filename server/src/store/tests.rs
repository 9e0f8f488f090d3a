//! What drivers and clients rely on, against a real file that two servers have open.

use super::*;
use crate::job::{Cause, Failure, JobState, Place, Rejection, Role, Step};

struct Servers {
    dir: tempfile::TempDir,
    a: SqliteStore,
    b: SqliteStore,
}

async fn servers() -> Servers {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let (a, b) = (SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap());
    Servers { dir, a, b }
}

fn server(name: &str) -> ServerId {
    ServerId(name.to_owned())
}

fn new_job(token: [u8; 32], fetch_timeout_ms: i64) -> NewJob {
    let step = Step {
        first_statement: 0,
        statement_count: 1,
        kind: "standard".to_owned(),
        repeatable: true,
        writes_table: false,
        attempts: Vec::new(),
    };
    NewJob {
        job: Job::new(JobId::generate(), vec![step]),
        token: TokenHash(token),
        user_id: "ada".to_owned(),
        sql: "SELECT 'ü\u{0}'".to_owned(),
        headings: vec!["SELECT".to_owned()],
        step_specs: vec!["{}".to_owned()],
        secrets: vec![("db".to_owned(), Secret::new("sqlite:///x"))],
        fetch_timeout_ms,
        owner: server("a"),
        lease_until_ms: 1_000,
        created_ms: 0,
    }
}

fn first_lease() -> Lease {
    Lease { owner: server("a"), epoch: Lease::FIRST_EPOCH }
}

fn claim(owner: &str, now_ms: i64, dead: &[&str]) -> Claim {
    let dead = dead.iter().map(|name| server(name)).collect();
    Claim { owner: server(owner), dead, now_ms, until_ms: now_ms + 1_000, limit: 10 }
}

fn attempt() -> Event {
    Event::AttemptCreated { step: 0, role: Role::Run, place: Place::of("local") }
}

fn failed() -> Event {
    let failure = Failure { cause: Cause::StatementFailed, message: "no such table".to_owned() };
    Event::Finished(JobState::Failed(failure))
}

#[tokio::test]
async fn what_one_server_records_another_reads() {
    let Servers { a, b, dir: _dir } = servers().await;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    assert_eq!(b.resolve(TokenHash([1; 32])).await.unwrap(), Some(id.clone()));
    assert_eq!(b.resolve(TokenHash([2; 32])).await.unwrap(), None);
    assert_eq!(b.program(&id).await.unwrap().as_deref(), Some("SELECT 'ü\u{0}'"));
    assert_eq!(b.headings(&id).await.unwrap(), ["SELECT"]);
    assert_eq!(b.step_spec(&id, 0).await.unwrap().as_deref(), Some("{}"));
    assert_eq!(b.step_spec(&id, 1).await.unwrap(), None);
    assert_eq!(b.load(&id).await.unwrap().unwrap().user_id, "ada");
}

#[tokio::test]
async fn a_driver_whose_lease_was_taken_writes_nothing_more() {
    let Servers { a, b, dir: _dir } = servers().await;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    assert_eq!(b.claim(claim("b", 500, &[])).await.unwrap(), [], "the lease lives");
    let taken = b.claim(claim("b", 500, &["a"])).await.unwrap();
    let lease = Lease { owner: server("b"), epoch: Lease::FIRST_EPOCH + 1 };
    assert_eq!(taken, [(id.clone(), lease.clone())], "its holder is dead");

    let late = a.update(&id, Some(&first_lease()), attempt(), 600).await;
    assert!(matches!(late, Err(UpdateError::Fenced)), "{late:?}");
    b.update(&id, Some(&lease), attempt(), 600).await.unwrap();
    // Agents know of no lease; their attempt's number is what counts.
    let cancel = Failure { cause: Cause::Cancelled, message: "by the user".to_owned() };
    a.update(&id, None, Event::CancelRequested(cancel), 700).await.unwrap();
    assert_eq!(a.claim(claim("a", 1_500, &[])).await.unwrap().len(), 1, "a lease that ran out is free");
}

#[tokio::test]
async fn a_heartbeat_prolongs_only_the_leases_of_its_server() {
    let Servers { a, b, dir: _dir } = servers().await;
    a.create(new_job([1; 32], 0)).await.unwrap();
    a.heartbeat(&server("a"), 900, 2_000, 10_000).await.unwrap();
    b.heartbeat(&server("b"), 900, 9_000, 10_000).await.unwrap();
    assert_eq!(b.claim(claim("b", 1_500, &[])).await.unwrap(), []);
    assert_eq!(b.lease_owners(&server("b"), 1_500).await.unwrap(), [server("a")]);
    assert_eq!(b.claim(claim("b", 2_000, &[])).await.unwrap().len(), 1);
}

#[tokio::test]
async fn secrets_go_when_the_job_ends_and_the_rest_when_it_is_removed() {
    let Servers { a, dir: _dir, .. } = servers().await;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    assert_eq!(a.secret(&id, "db").await.unwrap().unwrap().expose(), "sqlite:///x");
    a.remove(&id).await.unwrap();
    assert!(a.load(&id).await.unwrap().is_some(), "a live job is not removed");

    a.update(&id, Some(&first_lease()), failed(), 50).await.unwrap();
    assert_eq!(a.secret(&id, "db").await.unwrap(), None);
    assert_eq!(a.claim(claim("b", 5_000, &[])).await.unwrap(), [], "nobody drives a job that is over");
    assert_eq!(a.ended_before(50, 10).await.unwrap(), []);
    assert_eq!(a.ended_before(51, 10).await.unwrap(), std::slice::from_ref(&id));
    a.remove(&id).await.unwrap();
    assert!(a.load(&id).await.unwrap().is_none());
    assert_eq!(a.resolve(TokenHash([1; 32])).await.unwrap(), None);
}

#[tokio::test]
async fn a_rejected_event_changes_nothing() {
    let Servers { a, b, dir: _dir } = servers().await;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    a.update(&id, None, attempt(), 1).await.unwrap();
    let before = b.load(&id).await.unwrap().unwrap().job;
    let refused = a.update(&id, None, attempt(), 2).await;
    assert!(matches!(refused, Err(UpdateError::Rejected(Rejection::OutOfOrder))), "{refused:?}");
    assert_eq!(b.load(&id).await.unwrap().unwrap().job, before);
    let unknown = a.update(&JobId::generate(), None, attempt(), 2).await;
    assert!(matches!(unknown, Err(UpdateError::NotFound)));
}

#[tokio::test]
async fn time_without_any_server_does_not_count_as_not_fetched() {
    let Servers { a, dir: _dir, .. } = servers().await;
    a.heartbeat(&server("a"), 0, 1_000, 100).await.unwrap();
    let new = new_job([1; 32], 500);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    assert_eq!(a.unfetched(500).await.unwrap(), []);
    assert_eq!(a.unfetched(501).await.unwrap(), [(id.clone(), 500)]);
    // Ten seconds in which nobody could have answered.
    a.heartbeat(&server("a"), 10_000, 11_000, 100).await.unwrap();
    assert_eq!(a.unfetched(10_500).await.unwrap(), []);
    a.fetched(&id, 10_400).await.unwrap();
    assert_eq!(a.unfetched(10_900).await.unwrap(), []);
    assert_eq!(a.unfetched(10_901).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_plain_cursor_moves_from_where_it_is() {
    let Servers { a, b, dir: _dir } = servers().await;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    a.advance_plain_cursor(&id, 0, 7).await.unwrap();
    b.advance_plain_cursor(&id, 0, 9).await.unwrap();
    assert_eq!(b.load(&id).await.unwrap().unwrap().plain_cursor, 7);
}

#[tokio::test]
async fn jobs_are_listed_newest_first_page_by_page() {
    let Servers { a, dir: _dir, .. } = servers().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let new = new_job([n; 32], 0);
        ids.insert(0, new.job.id.clone());
        a.create(new).await.unwrap();
    }
    let page = |before: Option<JobId>| JobFilter { before, limit: 3, ..JobFilter::default() };
    let of = |records: Vec<JobRecord>| records.into_iter().map(|it| it.job.id).collect::<Vec<_>>();
    assert_eq!(of(a.list(page(None)).await.unwrap()), ids[..3]);
    assert_eq!(of(a.list(page(Some(ids[2].clone()))).await.unwrap()), ids[3..]);
    let others = JobFilter { user_id: Some("grace".to_owned()), limit: 3, ..JobFilter::default() };
    assert_eq!(of(a.list(others).await.unwrap()), []);
}

#[tokio::test]
async fn the_file_of_a_newer_server_is_refused() {
    let Servers { dir, a, .. } = servers().await;
    drop(a);
    let path = dir.path().join("state.db");
    let pool = sqlx::SqlitePool::connect(path.to_str().unwrap()).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations VALUES (9999, 'of the future', CURRENT_TIMESTAMP, TRUE, X'00', 0)",
    )
    .execute(&pool)
    .await
    .unwrap();
    assert!(SqliteStore::open(&path).await.is_err());
}
