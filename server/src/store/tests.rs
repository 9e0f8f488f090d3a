//! What drivers and clients rely on, against a real file that two servers have open.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::fixture;
use crate::job::{Cause, Failure, JobState, Place, Rejection, Role};

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

    /// Changes the file behind the servers' back.
    async fn tamper(&self, sql: &str) {
        let path = self.dir.path().join("state.db");
        let pool = sqlx::SqlitePool::connect(path.to_str().unwrap()).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&pool).await.unwrap();
        pool.close().await;
    }
}

/// Both begin at the time 0.
async fn servers() -> Servers {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let clock = Arc::new(AtomicI64::new(0));
    let open = async || {
        let clock = Arc::clone(&clock);
        SqliteStore::open_with(&path, Box::new(move || clock.load(Ordering::SeqCst))).await.unwrap()
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
    Event::AttemptCreated { step: 0, role: Role::Run, place: Place::of("local") }
}

fn failed() -> Event {
    let failure = Failure { cause: Cause::StatementFailed, message: "no such table".to_owned() };
    Event::Finished(JobState::Failed(failure))
}

#[tokio::test]
async fn what_one_server_records_another_reads() {
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
async fn jobs_that_a_server_leaves_to_others_are_claimed_by_these_only() {
    let Servers { a, b, dir: _dir, .. } = servers().await;
    let mut ids = Vec::new();
    for token in [1, 2] {
        let new = new_job([token; 32], 0);
        ids.push(new.job.id.clone());
        a.create(new).await.unwrap();
        a.release(&ids[ids.len() - 1], &first_lease()).await.unwrap();
    }
    let claimed = |claimed: Vec<(JobId, Lease)>| claimed.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    let by_a = a.claim(Claim { except: vec![ids[0].clone()], ..claim("a", &[]) }).await.unwrap();
    assert_eq!(claimed(by_a), ids[1..]);
    assert_eq!(claimed(b.claim(claim("b", &[])).await.unwrap()), ids[..1]);
}

#[tokio::test]
async fn a_driver_whose_lease_was_taken_writes_nothing_more() {
    let servers = servers().await;
    let Servers { a, b, .. } = &servers;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    servers.at(500);
    assert_eq!(b.claim(claim("b", &[])).await.unwrap(), [], "the lease lives");
    let taken = b.claim(claim("b", &["a"])).await.unwrap();
    let lease = Lease { owner: server("b"), epoch: Lease::FIRST_EPOCH + 1 };
    assert_eq!(taken, [(id.clone(), lease.clone())], "its holder is dead");

    let late = a.update(&id, Some(&first_lease()), attempt(), 600).await;
    assert!(matches!(late, Err(UpdateError::Fenced)), "{late:?}");
    b.update(&id, Some(&lease), attempt(), 600).await.unwrap();
    // Agents know of no lease; their attempt's number is what counts.
    let cancel = Failure { cause: Cause::Cancelled, message: "by the user".to_owned() };
    a.update(&id, None, Event::CancelRequested(cancel), 700).await.unwrap();
    servers.at(1_500);
    assert_eq!(b.claim(claim("b", &[])).await.unwrap(), [], "a server does not take its own");
    assert_eq!(a.claim(claim("a", &[])).await.unwrap().len(), 1, "a lease that ran out is free");
}

#[tokio::test]
async fn live_jobs_are_told_from_those_that_have_ended_or_never_were() {
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
async fn a_job_that_was_given_back_is_free_at_once() {
    let servers = servers().await;
    let Servers { a, b, .. } = &servers;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    assert_eq!(a.held(&server("a"), None, 10).await.unwrap(), [(id.clone(), first_lease())]);
    a.release(&id, &Lease { epoch: 7, ..first_lease() }).await.unwrap();
    assert_eq!(b.claim(claim("b", &[])).await.unwrap(), [], "another lease gives nothing back");
    a.release(&id, &first_lease()).await.unwrap();
    assert_eq!(a.held(&server("a"), None, 10).await.unwrap(), []);
    assert!(matches!(a.update(&id, Some(&first_lease()), attempt(), 1).await, Err(UpdateError::Fenced)));
    let taken = a.claim(claim("a", &[])).await.unwrap();
    assert_eq!(taken, [(id, Lease { epoch: 2, ..first_lease() })], "also by the same server");
}

#[tokio::test]
async fn a_heartbeat_prolongs_only_the_leases_of_its_server() {
    let servers = servers().await;
    let Servers { a, b, .. } = &servers;
    a.create(new_job([1; 32], 0)).await.unwrap();
    servers.at(900);
    a.heartbeat(&server("a"), ms(1_100), ms(10_000)).await.unwrap();
    b.heartbeat(&server("b"), ms(8_100), ms(10_000)).await.unwrap();
    servers.at(1_500);
    assert_eq!(b.claim(claim("b", &[])).await.unwrap(), []);
    assert_eq!(b.lease_owners(&server("b")).await.unwrap(), [server("a")]);
    assert!(b.lease_lasts(&server("a")).await.unwrap());
    servers.at(2_000);
    assert_eq!(b.lease_owners(&server("b")).await.unwrap(), []);
    assert!(!b.lease_lasts(&server("a")).await.unwrap());
    assert!(!b.lease_lasts(&server("never there")).await.unwrap());
    assert_eq!(b.claim(claim("b", &[])).await.unwrap().len(), 1);
}

/// It was one for each job: 41 MB of writes each second with 10,000 jobs.
#[tokio::test]
async fn a_heartbeat_writes_as_much_with_many_jobs_as_with_none() {
    let servers = servers().await;
    let a = &servers.a;
    let wal = servers.dir.path().join("state.db-wal");
    a.heartbeat(&server("a"), ms(1_000), ms(10_000)).await.unwrap();
    for n in 0..200 {
        let mut token = [0; 32];
        token[0] = n;
        a.create(new_job(token, 0)).await.unwrap();
    }
    servers.tamper("PRAGMA wal_checkpoint(TRUNCATE)").await;
    a.heartbeat(&server("a"), ms(1_000), ms(10_000)).await.unwrap();
    let written = std::fs::metadata(&wal).unwrap().len();
    assert!(written < 5 * 4_200, "{written} bytes");
}

/// What a server of before migration 0002 left: its leases count until they run out, and its figures are kept.
#[tokio::test]
async fn the_file_of_an_older_server_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let (live, ended) = (JobId::generate(), JobId::generate());
    let before = sqlx::migrate::Migrator {
        migrations: sqlx::migrate!("src/store/migrations").migrations.iter().take(1).cloned().collect(),
        ..sqlx::migrate::Migrator::DEFAULT
    };
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    before.run(&pool).await.unwrap();
    let doc = |id: &JobId| serde_json::to_string(&Job::new(id.clone(), Vec::new())).unwrap();
    for (id, token, state, ended_ms) in [(&live, 1, "running", None), (&ended, 2, "succeeded", Some(7))] {
        sqlx::query("INSERT INTO jobs VALUES (?, ?, 'ada', ?, ?, 0, ?, 'a', 1, 1000, 500, 0, 0)")
            .bind(id.as_str())
            .bind([token; 32].as_slice())
            .bind(state)
            .bind(doc(id))
            .bind(ended_ms)
            .execute(&pool)
            .await
            .unwrap();
    }
    pool.close().await;

    let clock = Arc::new(AtomicI64::new(999));
    let now = Arc::clone(&clock);
    let store = SqliteStore::open_with(&path, Box::new(move || now.load(Ordering::SeqCst))).await.unwrap();
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

#[tokio::test]
async fn secrets_go_when_the_job_ends_and_the_rest_when_it_is_removed() {
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
    assert_eq!(a.claim(claim("b", &[])).await.unwrap(), [], "nobody drives a job that is over");
    assert_eq!(a.ended_before(50, None, 10).await.unwrap(), []);
    assert_eq!(a.ended_before(51, None, 10).await.unwrap(), [EndedJob { id: id.clone(), ended_ms: 50 }]);
    a.remove(&id).await.unwrap();
    assert!(a.load(&id).await.unwrap().is_none());
    assert_eq!(a.resolve(TokenHash([1; 32])).await.unwrap(), None);
}

/// All that changed after this revision, in pages of so many, and the revision after it.
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

/// Waits until the watched job is said to have changed.
async fn told(mut watch: watch::Receiver<u64>) {
    let changed = tokio::time::timeout(Duration::from_secs(30), watch.changed());
    changed.await.expect("it is told").unwrap();
}

#[tokio::test]
async fn what_one_server_writes_the_other_is_told_of_once_and_in_order() {
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
    assert_eq!(changes(&b, seen, 99).await, (vec![], seen), "nothing is told twice");
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
async fn a_store_that_was_restored_from_an_older_copy_says_so() {
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
    servers.tamper("UPDATE revisions SET last = 0").await;
    let older = b.changes(seen, 9).await.unwrap();
    assert_eq!((older.is_older, older.upto, older.jobs), (true, Revision(0), vec![]));
    told(watch).await;
}

/// A level: it does not matter whether anybody waited when the job was written.
#[tokio::test]
async fn a_watcher_sees_what_either_server_writes() {
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

/// One that a server wrote itself does not come back to it; what another wrote does, whatever it wrote itself meanwhile.
#[tokio::test]
async fn a_servers_own_writes_wake_it_once() {
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
async fn a_rejected_event_changes_nothing() {
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
async fn time_without_any_server_does_not_count_as_not_fetched() {
    let servers = servers().await;
    let a = &servers.a;
    a.heartbeat(&server("a"), ms(1_000), ms(100)).await.unwrap();
    let new = new_job([1; 32], 500);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    let unfetched = async |now_ms| {
        servers.at(now_ms);
        a.heartbeat(&server("a"), ms(1_000), ms(1_000)).await.unwrap();
        a.unfetched(None, 10).await.unwrap()
    };
    assert_eq!(unfetched(400).await, []);
    // Ten seconds in which nobody could have answered. They do not count, also before the first heartbeat after them.
    servers.at(10_400);
    assert_eq!(a.unfetched(None, 10).await.unwrap(), []);
    assert_eq!(unfetched(10_400).await, []);
    assert_eq!(unfetched(10_500).await, []);
    assert_eq!(unfetched(10_501).await, [Unfetched { id: id.clone(), timeout_ms: 500, due_ms: 10_500 }]);
    a.fetched(&id).await.unwrap();
    assert_eq!(unfetched(11_001).await, []);
    assert_eq!(unfetched(11_002).await.len(), 1);
}

#[tokio::test]
async fn long_lists_of_what_is_due_are_read_in_parts() {
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
async fn a_plain_cursor_moves_from_where_it_is() {
    let Servers { a, b, dir: _dir, .. } = servers().await;
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
    let filtered = async |user: &str, states: &[&'static str], before: Option<&JobId>| {
        let (user_id, states) = (Some(user.to_owned()).filter(|it| !it.is_empty()), states.to_vec());
        of(a.list(JobFilter { user_id, states, before: before.cloned(), limit: 3 }).await.unwrap())
    };
    assert_eq!(filtered("grace", &[], None).await, []);
    assert_eq!(filtered("ada", &[], None).await, ids[..3]);
    a.update(&ids[1], None, attempt(), 1).await.unwrap();
    a.update(&ids[3], None, failed(), 1).await.unwrap();
    assert_eq!(filtered("", &["failed"], None).await, [ids[3].clone()]);
    assert_eq!(filtered("ada", &["failed", "running"], None).await, [ids[1].clone(), ids[3].clone()]);
    assert_eq!(filtered("ada", &["failed", "running"], Some(&ids[1])).await, [ids[3].clone()]);
    assert_eq!(filtered("ada", &["pending"], Some(&ids[0])).await, [ids[2].clone(), ids[4].clone()]);
    let counts = async || {
        let counts = a.counts().await.unwrap().into_iter().filter(|(_, jobs)| *jobs > 0);
        counts.map(|(state, jobs)| format!("{state} {jobs}")).collect::<Vec<_>>()
    };
    assert_eq!(counts().await, ["failed 1", "pending 3", "running 1"]);
    a.remove(&ids[3]).await.unwrap();
    assert_eq!(counts().await, ["pending 3", "running 1"]);
}

/// Each is looked up in an index: a scan took 0.4 s with 400,000 jobs.
#[tokio::test]
async fn no_query_of_lists_and_leases_reads_all_jobs() {
    let servers = servers().await;
    let path = servers.dir.path().join("state.db");
    let pool = sqlx::SqlitePool::connect(path.to_str().unwrap()).await.unwrap();
    for query in [
        "SELECT job_id FROM jobs WHERE state = 'x' ORDER BY job_id DESC LIMIT 3",
        "SELECT job_id FROM jobs WHERE state = 'x' AND user_id = 'u' AND job_id < 'y' ORDER BY job_id DESC LIMIT 3",
        "SELECT MIN(lease_owner) FROM jobs WHERE ended_ms IS NULL AND lease_owner > 'x'",
        "SELECT job_id FROM jobs WHERE ended_ms IS NULL AND lease_owner = 'x' AND job_id > 'y' ORDER BY job_id LIMIT 3",
        "SELECT 1 FROM servers WHERE server_id = 'x' AND alive_until_ms > 7",
        "SELECT job_id, revision FROM jobs WHERE revision > 7 ORDER BY revision LIMIT 3",
        "SELECT job_id FROM jobs WHERE ended_ms < 7 AND (ended_ms, job_id) > (1, 'x') ORDER BY ended_ms, job_id LIMIT 3",
        "SELECT job_id FROM jobs WHERE ended_ms IS NULL AND fetch_timeout_ms > 0 AND fetched_ms + fetch_timeout_ms < 7
         AND (fetched_ms + fetch_timeout_ms, job_id) > (1, 'x') ORDER BY fetched_ms + fetch_timeout_ms, job_id LIMIT 3",
    ] {
        let explain = format!("EXPLAIN QUERY PLAN {query}");
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(explain)).fetch_all(&pool).await.unwrap();
        let plan = plan.into_iter().map(|(_, _, _, detail)| detail).collect::<Vec<_>>().join("; ");
        assert!(plan.contains("SEARCH") && !plan.contains("SCAN") && !plan.contains("TEMP"), "{query}: {plan}");
    }
}

/// One flipped bit stopped listings, and its driver tried for ever.
#[tokio::test]
async fn a_damaged_document_fails_its_own_job_and_nothing_else() {
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
    servers.tamper(&format!("UPDATE jobs SET doc = '{{' WHERE job_id <> '{whole}'")).await;

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

/// Such a document was taken for a fault of the database, and its job could not end.
#[tokio::test]
async fn a_document_that_is_no_text_is_damaged() {
    let servers = servers().await;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    servers.a.create(new).await.unwrap();
    servers.tamper("UPDATE jobs SET doc = CAST(X'7bff' AS TEXT)").await;
    let record = servers.b.load(&id).await.unwrap().unwrap();
    assert!(matches!(record.job.state, JobState::Failed(failure) if failure.message.contains("damaged")));
}

/// As an operator's tool looks at it, with and without servers.
#[tokio::test]
async fn looking_sees_every_kind_of_document_and_changes_nothing() {
    let servers = servers().await;
    let mut ids = Vec::new();
    for n in 0..3 {
        let new = new_job([n; 32], 0);
        ids.push(new.job.id.clone());
        servers.a.create(new).await.unwrap();
    }
    ids.sort();
    let [damaged, newer, whole] = &ids[..] else { unreachable!() };
    servers.tamper(&format!("UPDATE jobs SET doc = CAST(X'7bff' AS TEXT) WHERE job_id = '{damaged}'")).await;
    servers.tamper(&format!("UPDATE jobs SET doc_version = 99 WHERE job_id = '{newer}'")).await;

    let look = async |path: &Path| {
        let mut survey = Survey::open(path).await.unwrap();
        assert_eq!(survey.fault().await.unwrap(), None);
        let mut seen = survey.jobs("", 2).await.unwrap();
        let after = seen.last().unwrap().key.clone();
        seen.extend(survey.jobs(&after, 2).await.unwrap());
        assert_eq!(seen.iter().filter_map(|row| row.id.clone()).collect::<Vec<_>>(), ids);
        assert!(matches!(seen[0].document, SurveyedDocument::Damaged(_)));
        assert!(matches!(seen[1].document, SurveyedDocument::Newer { version: 99, .. }));
        assert!(matches!(seen[2].document, SurveyedDocument::Whole(_)));
        assert_eq!(seen[2].lease, first_lease());
        assert!(survey.knows(whole).await.unwrap() && !survey.knows(&JobId::generate()).await.unwrap());
        assert_eq!(survey.servers().await.unwrap(), [ServerLease { server: server("a"), until_ms: 1_000 }]);
        survey.close().await;
    };
    let path = servers.dir.path().join("state.db");
    look(&path).await;
    // A copy without servers.
    let copy = tempfile::tempdir().unwrap();
    servers.tamper(&format!("VACUUM INTO '{}'", copy.path().join("state.db").display())).await;
    // It is in the mode of a server's file from here on.
    SqliteStore::open(&copy.path().join("state.db")).await.unwrap().close().await;
    let files = || {
        let files = std::fs::read_dir(copy.path()).unwrap().map(|file| file.unwrap().path());
        files.map(|file| (std::fs::read(&file).unwrap(), file)).collect::<Vec<_>>()
    };
    let before = files();
    look(&copy.path().join("state.db")).await;
    assert!(files() == before, "no byte is changed, and no file made");
    // As after a server that could not start on a full disk.
    std::fs::write(copy.path().join("state.db-wal"), "").unwrap();
    let before = files();
    look(&copy.path().join("state.db")).await;
    assert!(files() == before, "no byte is changed, and no file made");
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(|it| it.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// What was read of a file that does not change is not believed once a server has it open.
#[tokio::test]
async fn looking_goes_on_when_a_server_comes_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let store = SqliteStore::open(&path).await.unwrap();
    store.close().await;
    let mut survey = Survey::open(&path).await.unwrap();
    assert_eq!(survey.jobs("", 9).await.unwrap().len(), 0);
    assert_eq!(names_in(dir.path()), ["state.db", "state.db.lock"]);
    let store = SqliteStore::open(&path).await.unwrap();
    store.create(new_job([1; 32], 0)).await.unwrap();
    assert_eq!(survey.jobs("", 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn looking_refuses_the_file_of_another_version_and_leaves_it_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    SqliteStore::open(&path).await.unwrap().close().await;
    let tamper = async |sql: &'static str| {
        let pool = sqlx::SqlitePool::connect(path.to_str().unwrap()).await.unwrap();
        sqlx::raw_sql(sql).execute(&pool).await.unwrap();
        pool.close().await;
        Survey::open(&path).await.err().unwrap()
    };
    let future =
        "INSERT INTO _sqlx_migrations VALUES (9999, 'of the future', CURRENT_TIMESTAMP, TRUE, X'00', 0)";
    assert!(matches!(tamper(future).await, SurveyError::Newer { found: 9999, .. }));
    let other =
        "DELETE FROM _sqlx_migrations WHERE version = 9999; UPDATE _sqlx_migrations SET checksum = X'00'";
    assert!(matches!(tamper(other).await, SurveyError::Other { version: 1, .. }));
    assert!(matches!(
        tamper("DELETE FROM _sqlx_migrations WHERE version > 1").await,
        SurveyError::Older { found: 1, .. }
    ));
    assert!(matches!(tamper("DROP TABLE _sqlx_migrations").await, SurveyError::Foreign(_)));
    assert!(matches!(Survey::open(&dir.path().join("other.db")).await, Err(SurveyError::Missing(_))));
    assert_eq!(names_in(dir.path()), ["state.db", "state.db.lock"]);
}

#[tokio::test]
async fn a_document_of_a_newer_server_is_read_and_not_written() {
    let servers = servers().await;
    let Servers { a, b, .. } = &servers;
    let new = new_job([1; 32], 0);
    let id = new.job.id.clone();
    a.create(new).await.unwrap();
    servers.tamper("UPDATE jobs SET doc_version = 99").await;
    assert!(!b.load(&id).await.unwrap().unwrap().job.state.is_final());
    let refused = b.update(&id, None, attempt(), 1).await.unwrap_err();
    assert!(refused.to_string().contains("upgrade this server"), "{refused}");
    assert_eq!(b.claim(claim("b", &["a"])).await.unwrap(), [], "a newer server drives it");
    // What this server cannot read is not damaged.
    servers.tamper("UPDATE jobs SET doc = '{\"of\": \"the future\"}'").await;
    assert!(matches!(b.load(&id).await, Err(StoreError::Newer { version: 99, .. })));
    assert_eq!(b.list(JobFilter { limit: 9, ..JobFilter::default() }).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_request_with_an_id_is_recorded_once() {
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
