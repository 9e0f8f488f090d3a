//! The outcome of a job matches what was executed, and comes in time.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{Cause, GetJobRequest, Session, Token, get_job_request::By};
use sqlflow_tests::client::{Client, is_over};
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;
use sqlflow_tests::sqlite_lock;
use sqlflow_tests::stand_in;

/// Timeout, far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

fn setup(dir: &Path) -> Setup {
    Setup::new(dir, python::iris(&dir.join("iris.db")).unwrap())
}

/// The submitter of the job: it has the attempt's environment variable, and is not the agent.
fn submitter(job_id: &str) -> Option<Pid> {
    let mark = format!("SQLFLOW_ATTEMPT={job_id}/");
    let is_it = |pid: &i32| {
        let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let is_marked = read("environ").split(|byte| *byte == 0).any(|it| it.starts_with(mark.as_bytes()));
        is_marked && !String::from_utf8_lossy(&read("cmdline")).contains("sqlflow-agent")
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|it| it.file_name().to_str()?.parse().ok()).find(is_it).map(Pid::from_raw)
}

async fn until_over(client: &mut Client, token: &Token) -> sqlflow_proto::v1::JobStatus {
    let begun = Instant::now();
    loop {
        let by = GetJobRequest { by: Some(By::Token(token.token.clone())) };
        let status = client.api.get_job(by).await.unwrap().into_inner().status.unwrap();
        if is_over(&status) {
            return status;
        }
        assert!(begun.elapsed() < LIMIT, "the job does not end: {status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn submitter_killed_during_an_insert_may_have_executed_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    let mut client = server.client().await.unwrap();
    let slow = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 300000000)";
    let program =
        format!("CREATE TABLE t (x); INSERT INTO t VALUES (1); INSERT INTO t {slow} SELECT count(*) FROM n;");
    let token = client.run(program).await.unwrap();
    let is_last = |it: &Payload| matches!(it, Payload::Started(started) if started.sql.contains("RECURSIVE"));
    let cursor = client.until(&token, is_last).await.unwrap();
    kill(submitter(&token.job_id).expect("the submitter runs"), Signal::SIGKILL).unwrap();
    let ended = client.follow(&cursor).await.unwrap();
    assert_eq!(ended.status.cause(), Cause::MayHaveExecuted, "{:?}", ended.status);
    let message = &ended.status.message;
    assert!(message.contains("SIGKILL") && message.contains("may have executed"), "{message}");
}

/// The database's error is conclusive.
#[tokio::test(flavor = "multi_thread")]
async fn insert_rejected_by_the_database_is_a_failed_statement() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("INSERT INTO no_such_table VALUES (1);").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert_eq!(ended.status.cause(), Cause::StatementFailed, "{:?}", ended.status);
    assert!(!ended.status.message.contains("may have executed"), "{:?}", ended.status);
}

/// A lock is conclusive too, although the statement may succeed later.
#[tokio::test(flavor = "multi_thread")]
async fn insert_into_a_locked_database_is_a_failed_statement() {
    let dir = tempfile::tempdir().unwrap();
    let setup = setup(dir.path());
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let _writer = sqlite_lock::hold(&dir.path().join("iris.db")).await.unwrap();
    let token = client.run("PRAGMA busy_timeout = 1; INSERT INTO iris SELECT * FROM iris;").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert_eq!(ended.status.cause(), Cause::StatementFailed, "{:?}", ended.status);
    let message = &ended.status.message;
    assert!(message.contains("locked") && !message.contains("may have executed"), "{message}");
}

/// The row was inserted, although it cannot be shown. A retry would insert it twice.
#[tokio::test(flavor = "multi_thread")]
async fn insert_whose_rows_cannot_be_shown_may_have_executed() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).start().unwrap();
    let mut client = server.client().await.unwrap();
    let database = format!("sqlite://{}?mode=rwc", dir.path().join("shown.db").display());
    let session = Session { db_conn_str: database, ..Session::default() };
    let made = client.run_in("CREATE TABLE docs (body TEXT);", session.clone()).await.unwrap();
    assert_eq!(client.follow(&made).await.unwrap().status.code(), Code::Succeeded);
    let insert = "INSERT INTO docs VALUES (hex(zeroblob(10000000))) RETURNING body;";
    let token = client.run_in(insert, session).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert!(ended.status.message.contains("too large to be shown"), "{:?}", ended.status);
    assert_eq!(ended.status.cause(), Cause::MayHaveExecuted, "{:?}", ended.status);
    let code = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM docs').fetchone()[0])";
    let file = dir.path().join("shown.db");
    assert_eq!(python::run(code, &[file.to_str().unwrap()]).unwrap().trim(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_that_exits_at_once_fails_its_job_soon() {
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path()).flag("--agent=/bin/false").start().unwrap();
    let mut client = server.client().await.unwrap();
    let begun = Instant::now();
    let token = client.run("SELECT 1;").await.unwrap();
    let status = client.follow(&token).await.unwrap().status;
    assert_eq!(status.cause(), Cause::LaunchFailed, "{status:?}");
    // Without notice of the exit, each of the three attempts would take 30 s.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// A submitter that needs six seconds to exit, of a grace period of thirty.
const SLOW_TO_EXIT: &str = "trap 'sleep 6; touch \"$0.left\"; exit 3' TERM
touch \"$0.started\"
while :; do sleep 0.1; done
";

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_submitter_gets_its_whole_grace_period() {
    let dir = tempfile::tempdir().unwrap();
    // It makes files beside it, which it could not beside the state folder.
    let beside = dir.path().join("beside");
    std::fs::create_dir(&beside).unwrap();
    let program = stand_in::python_that(&beside, "submitter", SLOW_TO_EXIT);
    let server = setup(dir.path()).flag(format!("--python={}", program.display())).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(stand_in::STEP).await.unwrap();
    let begun = Instant::now();
    while !beside.join("submitter.started").exists() {
        assert!(begun.elapsed() < LIMIT, "the submitter does not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.api.cancel(token.clone()).await.unwrap();
    let status = until_over(&mut client, &token).await;
    assert_eq!(status.cause(), Cause::Cancelled, "{status:?}");
    assert!(beside.join("submitter.left").exists(), "it was killed within its grace period");
}
