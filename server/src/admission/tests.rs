//! Each principal, and each link and token of a job, has limits of its own.

use sqlflow_identity::{Method, Policy, Principal};
use sqlflow_job_store::SqliteStore;
use sqlflow_proto::record::{Notice, Record, record::Payload};
use sqlflow_result_log::{Entry, Producer, TieredLog};
use tonic_types::StatusExt as _;

use super::*;
use crate::fixture;

fn caller(name: &str) -> Caller {
    let known = |it: &str| vec![it.parse().unwrap()];
    let policy = Policy { allowed: known("token:*"), admins: known("token:op"), ..Policy::default() };
    policy.caller(Some(Principal::new(Method::Token, name)))
}

#[test]
fn each_principal_has_its_own_limit_and_administrators_none() {
    let admission = Admission::new(PrincipalLimits { pages: 2, ..PrincipalLimits::default() });
    let take = |name| admission.take(Resource::Page, &caller(name));
    let held = [take("ana").unwrap(), take("ana").unwrap(), take("bob").unwrap()];
    let refused = Status::from(take("ana").unwrap_err());
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("--limit-pages"), "{refused}");
    assert_eq!(refused.get_details_retry_info().unwrap().retry_delay, Some(RETRY_AFTER));
    assert!(admission.take(Resource::Search, &caller("ana")).is_ok(), "another resource");
    for _ in 0..3 {
        assert!(take("op").unwrap().is_none());
    }
    drop(held);
    assert!(take("ana").is_ok());
    assert_eq!(lock(&admission.inner).used.len(), 0, "nothing is remembered");
}

#[test]
fn links_of_jobs_have_their_own_limits() {
    let limits = PrincipalLimits { pages: 2, searches: 1, ..PrincipalLimits::default() };
    let admission = Admission::new(limits);
    let (one, other) = (JobId::generate(), JobId::generate());
    let stranger = Policy::default().caller(None);
    // A name without a right is no way around the limit of the link.
    let known = Policy::default().caller(Some(Principal::new(Method::Token, "eve")));
    let take = |resource, caller: &Caller, job| admission.take_of_reader(resource, caller, job);
    let held = [take(Resource::Page, &stranger, &one).unwrap(), take(Resource::Page, &known, &one).unwrap()];
    let refused = take(Resource::Page, &stranger, &one).unwrap_err().to_string();
    assert!(refused.contains("with this link have 2 open pages of jobs, the most for one link"), "{refused}");
    assert!(take(Resource::Page, &stranger, &other).is_ok(), "the link of another job");
    assert!(take(Resource::Page, &caller("ana"), &one).is_ok(), "a user of the server");
    assert!(take(Resource::Page, &caller("op"), &one).unwrap().is_none(), "an administrator");
    let searching = take(Resource::Search, &stranger, &one).unwrap();
    assert!(take(Resource::Search, &stranger, &one).is_err());
    assert!(take(Resource::Search, &stranger, &other).is_ok());
    drop((held, searching));
    assert_eq!(lock(&admission.inner).used.len(), 0, "nothing is remembered");
}

#[test]
fn tokens_of_jobs_have_their_own_limits_and_one_for_all() {
    let limits = PrincipalLimits { connections: 3, ..PrincipalLimits::default() };
    let admission = Admission { token_connections: 8, ..Admission::new(limits) };
    let jobs: Vec<_> = (0..5).map(|_| JobId::generate()).collect();
    let take = |job: usize| admission.take_of_token(&jobs[job]);
    let mut held = vec![take(0).unwrap(), take(0).unwrap()];
    let refused = take(0).unwrap_err().to_string();
    assert!(
        refused.contains("this job's token or link have 2 connections, the most for one job"),
        "{refused}"
    );
    for job in 1..4 {
        held.extend([take(job).unwrap(), take(job).unwrap()]);
    }
    let refused = Status::from(take(4).unwrap_err());
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("8 connections, the most for all of them"), "{refused}");
    assert!(admission.take(Resource::Connection, &caller("ana")).is_ok(), "a user of the server");
    drop(held.pop());
    held.push(take(4).unwrap());
    drop(held);
    assert_eq!(lock(&admission.inner).used.len(), 0, "nothing is remembered");
}

#[test]
fn token_of_a_job_has_no_more_connections_than_a_principal() {
    let of = |connections, token_connections| {
        let limits = PrincipalLimits { connections, ..PrincipalLimits::default() };
        Admission { token_connections, ..Admission::new(limits) }.connections_of_token()
    };
    assert_eq!([of(3, 100), of(256, 100), of(0, 100), of(3, 0), of(0, 0)], [3, 25, 25, 3, 0]);
}

/// A store with a job of ana's: a program of 100 bytes, and a log.
async fn world() -> (tempfile::TempDir, SqliteStore, TieredLog, u64) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("state.db")).await.unwrap();
    let mut new = fixture::new_job(fixture::job(true), &sqlflow_job_store::ServerId::generate());
    new.principal = "token:ana".to_owned();
    new.sql = "x".repeat(100);
    let job = new.job.id.clone();
    store.create(new).await.unwrap();
    let log = fixture::tiered_log(&store, dir.path());
    let notice = Payload::Notice(Notice { text: "hello".to_owned(), ..Notice::default() });
    let producer = Producer { step: 0, attempt: 1, rank: 0 };
    let record = Record { seq: 1, payload: Some(notice), ..Record::default() };
    log.append(&job, vec![Entry { producer, record }]).await.unwrap();
    let log_bytes = log.bytes(&[job]).await.unwrap();
    (dir, store, log, log_bytes)
}

/// The code and message of a refusal.
fn refusal<T>(admitted: Result<T, NotAdmitted>) -> Result<(), String> {
    match admitted {
        Ok(_) => Ok(()),
        Err(NotAdmitted::Exceeded(exceeded)) => Err(exceeded.option.to_owned()),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn programs_and_logs_are_counted_with_those_in_the_store() {
    let (_dir, store, log, log_bytes) = world().await;
    assert!(log_bytes > 0);
    let program = async |limits, name: &str, length| {
        refusal(Admission::new(limits).program(&store, &log, &caller(name), length).await)
    };
    let refused_by = |option: &str| Err(option.to_owned());
    let jobs = |jobs| PrincipalLimits { jobs, ..PrincipalLimits::default() };
    assert_eq!(program(jobs(2), "ana", 1).await, Ok(()));
    assert_eq!(program(jobs(1), "ana", 1).await, refused_by("--limit-jobs"));
    assert_eq!(program(jobs(1), "bob", 1).await, Ok(()));
    assert_eq!(program(jobs(1), "op", 1).await, Ok(()));
    let bytes = |program_bytes| PrincipalLimits { program_bytes, ..PrincipalLimits::default() };
    assert_eq!(program(bytes(150), "ana", 50).await, Ok(()));
    assert_eq!(program(bytes(150), "ana", 51).await, refused_by("--limit-programs"));
    let logs = |log_bytes| PrincipalLimits { log_bytes, ..PrincipalLimits::default() };
    assert_eq!(program(logs(log_bytes), "ana", 1).await, Ok(()));
    assert_eq!(program(logs(log_bytes - 1), "ana", 1).await, refused_by("--limit-logs"));
    assert_eq!(program(logs(log_bytes - 1), "bob", 1).await, Ok(()));
}

#[tokio::test]
async fn sizes_are_remembered() {
    let (_dir, store, log, _) = world().await;
    let admission =
        |program_bytes| Admission::new(PrincipalLimits { program_bytes, ..PrincipalLimits::default() });
    let add = async |admission: &Admission, length| {
        refusal(admission.program(&store, &log, &caller("ana"), length).await).is_ok()
    };
    let known = |admission: &Admission| {
        let size = lock(&admission.inner).sizes[&(Stored::Programs, "token:ana".to_owned())];
        (size.bytes, size.added)
    };
    // What it adds meanwhile counts.
    let enough = admission(170);
    assert_eq!((add(&enough, 30).await, add(&enough, 30).await), (true, true));
    assert_eq!(known(&enough), (100, 60));
    // The store has none of what was added, and is asked before a refusal.
    let scarce = admission(150);
    assert_eq!((add(&scarce, 30).await, add(&scarce, 30).await), (true, true));
    assert_eq!(known(&scarce), (100, 30));
    // What is refused by a fresh size is not measured again at once.
    let full = admission(120);
    assert!(!add(&full, 30).await);
    let measured = |it: &Admission| lock(&it.inner).sizes.values().next().unwrap().measured;
    let before = measured(&full);
    assert!(!add(&full, 30).await);
    assert_eq!(measured(&full), before);
    assert!(add(&full, 20).await, "this much fits");
}
