//! An agent that is killed during its attempt: its child ends too, and the step is retried if that is safe. Also an
//! agent that exits because no server runs.

use std::path::PathBuf;

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{Cause, GetJobRequest, Token, get_job_request::By, job_status};
use sqlflow_tests::client::Client;
use sqlflow_tests::python;
use sqlflow_tests::server::{Server, Setup};

struct World {
    setup: Setup,
    server: Server,
    client: Client,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

async fn world(flag: &str) -> World {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("iris.db");
    let setup = Setup::new(dir.path(), python::iris(&file).unwrap()).flag(flag);
    let server = setup.start().unwrap();
    let client = server.client().await.unwrap();
    World { setup, server, client, file, _dir: dir }
}

/// The agent of the job's step, by its run folder; `None` if it does not run.
pub(super) fn find_agent(job_id: &str, step: u32, attempt: u32) -> Option<nix::unistd::Pid> {
    let folder = format!("{job_id}/{step}-{attempt}");
    let is_it = |pid: &i32| {
        let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.contains("sqlflow-agent") && arguments.contains(&folder)
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|it| it.file_name().to_str()?.parse().ok()).find(is_it).map(nix::unistd::Pid::from_raw)
}

pub(super) fn kill_agent(job_id: &str, step: u32, attempt: u32) {
    let agent = find_agent(job_id, step, attempt).expect("the agent runs");
    nix::sys::signal::kill(agent, nix::sys::signal::Signal::SIGKILL).unwrap();
}

async fn attempts(client: &mut Client, token: &Token, step: usize) -> usize {
    let by = GetJobRequest { by: Some(By::Token(token.token.clone())) };
    client.api.get_job(by).await.unwrap().into_inner().steps[step].attempts.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_training_is_retried_and_publishes_once() {
    let World { setup, server: _server, mut client, _dir, .. } = world("--linger=1h").await;
    let train = "SELECT * FROM iris TO TRAIN xgboost.gbtree
        WITH objective = \"multi:softmax\", num_class = 3, train.num_boost_round = 500 LABEL class INTO m;";
    let token = client.run(train).await.unwrap();
    let cursor = client.until(&token, |it| matches!(it, Payload::Metrics(_))).await.unwrap();
    kill_agent(&token.job_id, 0, 1);
    let ended = client.follow(&cursor).await.unwrap();
    ended.expect_success();
    assert_eq!(attempts(&mut client, &token, 0).await, 2);
    assert!(
        ended.payloads().any(|it| matches!(it, Payload::Gap(_))),
        "a gap record stands for undelivered records"
    );
    let models = ended.payloads().filter(|it| matches!(it, Payload::Model(_))).count();
    assert_eq!(models, 1);
    let files = std::fs::read_dir(setup.state_dir.join("models/m")).unwrap().count();
    assert_eq!(files, 2, "the first attempt's staging is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_insert_is_not_retried_and_may_have_executed() {
    let World { setup: _setup, server: _server, mut client, file, _dir } = world("--linger=1h").await;
    let slow = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 300000000)";
    let program =
        format!("CREATE TABLE t (x); INSERT INTO t VALUES (1); INSERT INTO t {slow} SELECT count(*) FROM n;");
    let token = client.run(program).await.unwrap();
    let is_last = |it: &Payload| matches!(it, Payload::Started(started) if started.sql.contains("RECURSIVE"));
    let cursor = client.until(&token, is_last).await.unwrap();
    kill_agent(&token.job_id, 0, 1);
    let ended = client.follow(&cursor).await.unwrap();
    assert_eq!(ended.status.code(), job_status::Code::Failed);
    assert_eq!(ended.status.cause(), Cause::MayHaveExecuted, "{:?}", ended.status);
    assert_eq!(attempts(&mut client, &token, 0).await, 1);
    let count = python::run(
        "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM t').fetchone()[0])",
        &[file.to_str().unwrap()],
    );
    assert_eq!(count.unwrap().trim(), "1");
}

/// A job whose agent exited without a server, with rows of this many bytes: its first cursor, and its spool.
async fn unattended(world: World, row_bytes: u32) -> (Setup, tempfile::TempDir, Token, PathBuf) {
    let World { setup, server, mut client, _dir: dir, .. } = world;
    let slow = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 3000000)";
    let rows = format!("{slow} SELECT n, printf('%.*c', {row_bytes}, 'x') FROM n WHERE n % 10000 = 0");
    let token = client.run(format!("{rows}; SELECT 7;")).await.unwrap();
    client.until(&token, |it| matches!(it, Payload::Started(_))).await.unwrap();
    server.kill();
    while find_agent(&token.job_id, 0, 1).is_some() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let left = setup.state_dir.join("run").join(&token.job_id).join("0-1");
    assert!(left.join("outcome").is_file());
    let begin = Token { token: format!("{}.0", token.token), ..token };
    (setup, dir, begin, left.join("spool"))
}

/// The spool is larger than what the server may hold in memory.
#[tokio::test(flavor = "multi_thread")]
async fn spool_of_an_exited_agent_is_read_with_bounded_memory() {
    let (setup, _dir, cursor, spool) = unattended(world("--linger=3s").await, 400_000).await;
    assert!(spool.metadata().unwrap().len() > 100_000_000);
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let ended = client.follow(&cursor).await.unwrap();
    ended.expect_success();
    assert_eq!(ended.row_count(), 301);
    let memory = server.memory_peak();
    assert!(memory < 90_000_000, "{memory} bytes");
    assert!(!ended.payloads().any(|it| matches!(it, Payload::Gap(_))));
    assert_eq!(attempts(&mut client, &cursor, 0).await, 1);
}

/// Without all results the attempt has not succeeded.
#[tokio::test(flavor = "multi_thread")]
async fn truncated_spool_fails_the_job_with_a_gap() {
    let (setup, _dir, cursor, spool) = unattended(world("--linger=3s").await, 4_000).await;
    let file = std::fs::OpenOptions::new().write(true).open(&spool).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let ended = client.follow(&cursor).await.unwrap();
    assert_eq!(ended.status.cause(), Cause::Lost, "{:?}", ended.status);
    assert!(ended.status.message.starts_with("results lost"), "{:?}", ended.status);
    assert!(ended.payloads().any(|it| matches!(it, Payload::Gap(_))));
    assert_eq!(attempts(&mut client, &cursor, 0).await, 1, "not retried: its rows may have been read");
}
