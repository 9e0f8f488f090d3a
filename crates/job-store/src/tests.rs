//! The contract of the store, with a real file that two servers have open.

mod changes;
mod documents;
mod leases;
mod tiered;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use sqlflow_job::{
    AttemptId, Basis, Cause, Failure, JobState, LauncherId, LauncherKind, Outcome, Reason, Rejection, Role,
};

use super::*;
use crate::fixture;

struct Servers {
    dir: tempfile::TempDir,
    clock: Arc<AtomicI64>,
    a: SqliteStore,
    b: SqliteStore,
}

impl Servers {
    fn at(&self, now_ms: i64) {
        self.clock.store(now_ms, Ordering::SeqCst);
    }

    /// Changes the file without the servers' knowledge.
    fn tamper(&self, sql: &str) {
        fixture::tamper(&self.dir.path().join("state.db"), sql);
    }
}

/// Both start at time 0.
async fn servers() -> Servers {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let clock = Arc::new(AtomicI64::new(0));
    let open = async || {
        let clock = Arc::clone(&clock);
        SqliteStore::open_with(&path, SecretKeys::default(), Box::new(move || clock.load(Ordering::SeqCst)))
            .await
            .unwrap()
    };
    let (a, b) = (open().await, open().await);
    Servers { dir, clock, a, b }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn server(name: &str) -> ServerId {
    ServerId(name.to_owned())
}

fn new_job(token: [u8; 32], fetch_timeout_ms: i64) -> NewJob {
    NewJob {
        token: TokenHash(token),
        principal: "unix:ada".to_owned(),
        user_id: "ada".to_owned(),
        sql: "SELECT 'ü\u{0}'".to_owned(),
        secrets: vec![("db".to_owned(), Secret::new("sqlite:///x"))],
        fetch_timeout_ms,
        lease: ms(1_000),
        ..fixture::new_job(fixture::job(true), &server("a"))
    }
}

fn first_lease() -> Lease {
    Lease { owner: server("a"), epoch: Lease::FIRST_EPOCH }
}

fn claim(owner: &str, dead: &[&str]) -> Claim {
    let dead = dead.iter().map(|name| server(name)).collect();
    Claim { owner: server(owner), dead, except: Vec::new(), lease: ms(1_000), limit: 10 }
}

fn attempt() -> Event {
    Event::AttemptCreated { step: 0, role: Role::Run, launcher_id: LauncherId::of(LauncherKind::Local) }
}

fn failed() -> Event {
    let failure = Failure { cause: Cause::StatementFailed, message: "no such table".to_owned() };
    Event::Finished(JobState::Failed(failure))
}

/// A container with a read-only root file system has no folder for them.
#[tokio::test]
async fn no_temporary_files_are_created() {
    const MEMORY: i64 = 2;
    let servers = servers().await;
    let asked: Result<i64, StoreError> =
        servers.a.write(|tx| Ok(tx.query_one("PRAGMA temp_store", [], |row| row.get(0))?)).await;
    assert_eq!(asked.unwrap(), MEMORY);
}

#[tokio::test]
async fn created_job_is_readable_by_other_server() {
    let Servers { a, b, dir: _dir, .. } = servers().await;
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
async fn live_jobs_exclude_ended_and_unknown() {
    let Servers { a, b, .. } = &servers().await;
    let [live, ended] = [new_job([1; 32], 0), new_job([2; 32], 0)];
    let ids = [live.job.id.clone(), ended.job.id.clone(), fixture::job(true).id];
    a.create(live).await.unwrap();
    a.create(ended).await.unwrap();
    a.update(&ids[1], None, failed(), 50).await.unwrap();
    assert_eq!(b.live(&ids).await.unwrap(), HashSet::from([ids[0].clone()]));
    assert_eq!(b.live(&[]).await.unwrap(), HashSet::new());
}

#[tokio::test]
async fn secrets_are_deleted_at_end_and_rest_with_job() {
    let servers = servers().await;
    let a = &servers.a;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    assert_eq!(a.secret(&id, "db").await.unwrap().unwrap().expose(), "sqlite:///x");
    a.remove(&id).await.unwrap();
    assert!(a.load(&id).await.unwrap().is_some(), "a live job is not removed");

    a.update(&id, Some(&first_lease()), failed(), 50).await.unwrap();
    assert_eq!(a.secret(&id, "db").await.unwrap(), None);
    servers.at(5_000);
    assert_eq!(a.claim(claim("b", &[])).await.unwrap(), [], "nobody reconciles a job that is over");
    assert_eq!(a.ended_before(50, None, 10).await.unwrap(), []);
    assert_eq!(a.ended_before(51, None, 10).await.unwrap(), [EndedJob { id: id.clone(), ended_ms: 50 }]);
    a.remove(&id).await.unwrap();
    assert!(a.load(&id).await.unwrap().is_none());
    assert_eq!(a.resolve(TokenHash([1; 32])).await.unwrap(), None);
}

#[tokio::test]
async fn rejected_event_changes_nothing() {
    let Servers { a, b, dir: _dir, .. } = servers().await;
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
async fn due_jobs_are_read_in_pages() {
    let servers = servers().await;
    let a = &servers.a;
    let mut ids = Vec::new();
    for n in 0..5 {
        let new = new_job([n; 32], 100);
        ids.push(new.job.id.clone());
        a.create(new).await.unwrap();
    }
    ids.sort();
    servers.at(200);
    a.heartbeat(&server("a"), ms(1_000), ms(1_000)).await.unwrap();
    let first = a.unfetched(None, 3).await.unwrap();
    let rest = a.unfetched(first.last(), 3).await.unwrap();
    assert_eq!(first.into_iter().chain(rest).map(|it| it.id).collect::<Vec<_>>(), ids);
    for id in &ids {
        a.update(id, None, failed(), 300).await.unwrap();
    }
    let first = a.ended_before(301, None, 3).await.unwrap();
    let rest = a.ended_before(301, first.last(), 3).await.unwrap();
    assert_eq!(first.into_iter().chain(rest).map(|it| it.id).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn plain_cursor_moves_only_from_its_position() {
    let Servers { a, b, dir: _dir, .. } = servers().await;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    a.advance_plain_cursor(&id, 0, 7).await.unwrap();
    b.advance_plain_cursor(&id, 0, 9).await.unwrap();
    assert_eq!(b.load(&id).await.unwrap().unwrap().plain_cursor, 7);
}

#[tokio::test]
async fn jobs_are_listed_newest_first() {
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
    let filtered = async |user: &str, states: &[&'static str], before: Option<&JobId>| {
        let (user_id, states) = (Some(user.to_owned()).filter(|it| !it.is_empty()), states.to_vec());
        let filter = JobFilter { user_id, states, before: before.cloned(), limit: 3, ..JobFilter::default() };
        of(a.list(filter).await.unwrap())
    };
    assert_eq!(filtered("grace", &[], None).await, []);
    assert_eq!(filtered("ada", &[], None).await, ids[..3]);
    a.update(&ids[1], None, attempt(), 1).await.unwrap();
    let launched = AttemptId { job: ids[1].clone(), step: 0, number: 1 };
    let launched = Event::AttemptLaunched { attempt: launched, tracker_url: None, executor_uid: None };
    a.update(&ids[1], None, launched, 1).await.unwrap();
    a.update(&ids[3], None, failed(), 1).await.unwrap();
    assert_eq!(filtered("", &["failed"], None).await, [ids[3].clone()]);
    assert_eq!(filtered("ada", &["failed", "running"], None).await, [ids[1].clone(), ids[3].clone()]);
    assert_eq!(filtered("ada", &["failed", "running"], Some(&ids[1])).await, [ids[3].clone()]);
    assert_eq!(filtered("ada", &["pending"], Some(&ids[0])).await, [ids[2].clone(), ids[4].clone()]);
    let of_principal = async |principal: &str, states: &[&'static str]| {
        let (principal, states) = (Some(principal.to_owned()), states.to_vec());
        of(a.list(JobFilter { principal, states, limit: 3, ..JobFilter::default() }).await.unwrap())
    };
    assert_eq!(of_principal("unix:ada", &["failed"]).await, [ids[3].clone()]);
    assert_eq!(of_principal("unix:ada", &[]).await, ids[..3]);
    assert_eq!(of_principal("ada", &[]).await, []);
    let counts = async || {
        let counts = a.counts().await.unwrap().into_iter().filter(|(_, jobs)| *jobs > 0);
        counts.map(|(state, jobs)| format!("{state} {jobs}")).collect::<Vec<_>>()
    };
    assert_eq!(counts().await, ["failed 1", "pending 3", "running 1"]);
    a.remove(&ids[3]).await.unwrap();
    assert_eq!(counts().await, ["pending 3", "running 1"]);
}

#[tokio::test]
async fn model_is_its_first_principals_until_it_is_dropped() {
    let Servers { a, b, dir: _dir, .. } = servers().await;
    let of = async |token: u8, principal: &str| {
        let new = NewJob { principal: principal.to_owned(), ..new_job([token; 32], 0) };
        let id = new.job.id.clone();
        a.create(new).await.unwrap();
        id
    };
    let (ana, bob) = (of(1, "token:ana").await, of(2, "token:bob").await);
    assert_eq!(a.model_owner("m").await.unwrap(), None);
    let anas = Some("token:ana".to_owned());
    assert_eq!(a.own_model(&ana, "m").await.unwrap(), anas);
    assert_eq!(b.own_model(&bob, "m").await.unwrap(), anas, "on every server of the state");
    assert_eq!(b.model_owner("m").await.unwrap(), anas);
    assert_eq!(a.own_model(&bob, "other").await.unwrap().as_deref(), Some("token:bob"));
    b.disown_model("m").await.unwrap();
    assert_eq!(a.own_model(&bob, "m").await.unwrap().as_deref(), Some("token:bob"));
    assert_eq!(a.own_model(&JobId::generate(), "no job").await.unwrap(), None);
}

/// All use an index. A scan took 0.4 s with 400,000 jobs.
#[tokio::test]
async fn queries_use_indexes() {
    let servers = servers().await;
    let connection = rusqlite::Connection::open(servers.dir.path().join("state.db")).unwrap();
    for query in [
        "SELECT job_id FROM jobs WHERE state = 'x' ORDER BY job_id DESC LIMIT 3",
        "SELECT job_id FROM jobs WHERE state = 'x' AND user_id = 'u' AND job_id < 'y' ORDER BY job_id DESC LIMIT 3",
        "SELECT job_id FROM jobs WHERE state = 'x' AND principal = 'u' AND job_id < 'y' ORDER BY job_id DESC LIMIT 3",
        "SELECT MIN(lease_owner) FROM jobs WHERE ended_ms IS NULL AND lease_owner > 'x'",
        "SELECT job_id FROM jobs WHERE ended_ms IS NULL AND lease_owner = 'x' AND job_id > 'y' ORDER BY job_id LIMIT 3",
        "SELECT 1 FROM servers WHERE server_id = 'x' AND alive_until_ms > 7",
        "SELECT job_id, revision FROM jobs WHERE revision > 7 ORDER BY revision LIMIT 3",
        "SELECT job_id FROM jobs WHERE ended_ms < 7 AND (ended_ms, job_id) > (1, 'x') ORDER BY ended_ms, job_id LIMIT 3",
        "SELECT job_id FROM jobs WHERE ended_ms IS NULL AND fetch_timeout_ms > 0 AND fetched_ms + fetch_timeout_ms < 7
         AND (fetched_ms + fetch_timeout_ms, job_id) > (1, 'x') ORDER BY fetched_ms + fetch_timeout_ms, job_id LIMIT 3",
    ] {
        let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
        let plan = explain.query_map([], |row| row.get(3)).unwrap();
        let plan = plan.collect::<rusqlite::Result<Vec<String>>>().unwrap().join("; ");
        assert!(plan.contains("SEARCH") && !plan.contains("SCAN") && !plan.contains("TEMP"), "{query}: {plan}");
    }
}

#[tokio::test]
async fn request_id_makes_create_idempotent() {
    let servers = servers().await;
    let Servers { a, b, .. } = &servers;
    let request = |hash| NewJob { request: Some(RequestHash([hash; 32])), ..new_job([1; 32], 0) };
    let first = request(1);
    let id = first.job.id.clone();
    assert_eq!(a.create(first).await.unwrap(), Created::New);
    assert_eq!(b.create(request(1)).await.unwrap(), Created::Before(id));
    assert_eq!(b.create(request(2)).await.unwrap(), Created::Conflict);
    assert_eq!(b.list(JobFilter { limit: 9, ..JobFilter::default() }).await.unwrap().len(), 1);
}
