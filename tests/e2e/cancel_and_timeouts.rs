//! Jobs that are ended early: cancelled, not fetched, or over a limit.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{
    Cause, GetJobRequest, ListJobsRequest, Session, Token, get_job_request::By, job_status,
};
use sqlflow_tests::client::{Client, is_over};
use sqlflow_tests::python;
use sqlflow_tests::server::{Server, Setup, program};

/// Runs long enough to be ended early on any machine.
const LONG: &str = "SELECT * FROM iris TO TRAIN xgboost.gbtree
WITH objective = \"multi:softmax\", num_class = 3, train.num_boost_round = 1000000 LABEL class INTO m;";

struct World {
    setup: Setup,
    server: Server,
    client: Client,
    _dir: tempfile::TempDir,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap()).flag("--grace=2s");
    let server = setup.start().unwrap();
    let client = server.client().await.unwrap();
    World { setup, server, client, _dir: dir }
}

/// Processes with the environment variable of one of the job's attempts.
fn processes_of(job_id: &str) -> usize {
    let mark = format!("SQLFLOW_ATTEMPT={job_id}/");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("environ")).ok())
        .filter(|environ| environ.split(|byte| *byte == 0).any(|entry| entry.starts_with(mark.as_bytes())))
        .count()
}

/// Reads until the training has begun.
async fn until_it_trains(client: &mut Client, token: &Token) -> Token {
    client.until(token, |it| matches!(it, Payload::Metrics(_))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_job_leaves_no_process_and_no_model() {
    let World { setup, server: _server, mut client, _dir } = world().await;
    let token = client.run(format!("{LONG} SELECT 1;")).await.unwrap();
    let cursor = until_it_trains(&mut client, &token).await;
    assert!(processes_of(&token.job_id) > 0);
    client.api.cancel(token.clone()).await.unwrap();
    client.api.cancel(token.clone()).await.unwrap();
    let ended = client.follow(&cursor).await.unwrap();
    assert_eq!(ended.status.code(), job_status::Code::Failed, "{:?}", ended.status);
    assert_eq!(ended.status.cause(), Cause::Cancelled, "{:?}", ended.status);
    assert_eq!(processes_of(&token.job_id), 0);
    assert!(!setup.state_dir.join("models/m").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn unfetched_job_is_cancelled_and_fetched_job_continues() {
    let World { setup: _setup, server: _server, mut client, _dir } = world().await;
    let session = Session { fetch_timeout_seconds: Some(4), ..Session::default() };
    let unread = client.run_in(LONG, session.clone()).await.unwrap();
    let read = client.run_in(LONG, session).await.unwrap();
    let mut cursor = read.clone();
    let state = async |client: &mut Client| {
        let by = GetJobRequest { by: Some(By::Token(unread.token.clone())) };
        client.api.get_job(by).await.unwrap().into_inner().status.unwrap()
    };
    // GetJob does not count as a fetch.
    let mut looks = 0;
    let ended = loop {
        let status = state(&mut client).await;
        if is_over(&status) {
            break status;
        }
        looks += 1;
        assert!(looks < 200, "the job is not cancelled: {status:?}");
        cursor = client.api.fetch(cursor).await.unwrap().into_inner().next.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(ended.cause(), Cause::NotFetched, "{ended:?}");
    let running = client.api.fetch(cursor).await.unwrap().into_inner().job_status.unwrap();
    assert!(!is_over(&running), "{running:?}");
    client.api.cancel(read.clone()).await.unwrap();
    // Without a server its agent would finish the training, and then wait for another server.
    client.follow(&read).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn server_outage_does_not_count_towards_the_fetch_timeout() {
    let World { setup, server, mut client, _dir } = world().await;
    let session = Session { fetch_timeout_seconds: Some(60), ..Session::default() };
    let token = client.run_in(LONG, session).await.unwrap();
    let cursor = until_it_trains(&mut client, &token).await;
    server.kill();
    // Runs SQL on the state. Returns the time of the last heartbeat.
    let in_state = |statements: &str| {
        let code = format!(
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.executescript('{statements}')
print(c.execute('SELECT alive_ms FROM presence').fetchone()[0])"
        );
        python::run(&code, &[setup.state_dir.join("state.db").to_str().unwrap()]).unwrap()
    };
    // As if an hour had passed.
    let mut alive = in_state(
        "UPDATE jobs SET fetched_ms = fetched_ms - 3600000; UPDATE presence SET alive_ms = alive_ms - 3600000",
    );
    let server = setup.start().unwrap();
    // The server looks for unfetched jobs after each heartbeat. After the second one it has looked at least once.
    for _ in 0..2 {
        let before = std::mem::replace(&mut alive, in_state(""));
        let begun = std::time::Instant::now();
        while alive == before {
            assert!(begun.elapsed() < Duration::from_secs(60), "the server has no heartbeat");
            alive = in_state("");
        }
    }
    let mut client = server.client().await.unwrap();
    let status = client.api.fetch(cursor).await.unwrap().into_inner().job_status.unwrap();
    assert!(!is_over(&status), "{status:?}");
    let by = GetJobRequest { by: Some(By::Token(token.token.clone())) };
    let job = client.api.get_job(by).await.unwrap().into_inner();
    assert_eq!(job.status.unwrap().cause(), Cause::Unspecified);
    client.api.cancel(token.clone()).await.unwrap();
    client.follow(&token).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_after_success_changes_nothing() {
    let World { setup: _setup, server: _server, mut client, _dir } = world().await;
    let token = client.run("SELECT 1").await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
    let job = client.api.cancel(token.clone()).await.unwrap().into_inner();
    assert_eq!(job.status.unwrap().code(), job_status::Code::Succeeded);
    client.follow(&token).await.unwrap().expect_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_beyond_the_log_limit_fail_the_job_with_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap());
    let server = setup.flag("--max-log=64KiB").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT * FROM iris, iris AS other; SELECT 1;").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert_eq!(ended.status.cause(), Cause::Limit, "{:?}", ended.status);
    assert!(
        ended.payloads().any(|it| matches!(it, Payload::Gap(_))),
        "a gap record stands for the rejected rows"
    );
    // A smaller job still succeeds.
    let token = client.run("SELECT * FROM iris").await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_sqlflowctl_cancels_the_job_and_waits_for_its_end() {
    let World { setup: _setup, server, mut client, _dir } = world().await;
    // The test runner may ignore SIGINT, as in the background of a script. Then sqlflowctl would ignore it too.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").arg(program("sqlflowctl"));
    command.args(["run", "-e", LONG, "--server", &server.address]).stderr(Stdio::piped());
    let mut run = command.spawn().unwrap();
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines().map_while(Result::ok);
    lines.find(|line| line.contains("round")).expect("it trains");
    kill(Pid::from_raw(i32::try_from(run.id()).unwrap()), Signal::SIGINT).unwrap();
    let said = lines.last();
    assert_eq!(run.wait().unwrap().code(), Some(130), "{said:?}");
    let jobs = client.api.list_jobs(ListJobsRequest::default()).await.unwrap().into_inner().jobs;
    assert_eq!(jobs[0].status.as_ref().unwrap().cause(), Cause::Cancelled, "{said:?}");
    assert_eq!(processes_of(&jobs[0].job_id), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn job_with_a_deleted_state_folder_ends() {
    let World { setup, server, mut client, _dir } = world().await;
    let token = client.run(LONG).await.unwrap();
    until_it_trains(&mut client, &token).await;
    server.kill();
    std::fs::remove_dir_all(&setup.state_dir).unwrap();
    let begun = std::time::Instant::now();
    while processes_of(&token.job_id) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the job still runs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// As in a Pod that ends with its main container. Without the option jobs continue.
#[tokio::test(flavor = "multi_thread")]
async fn server_with_on_exit_cancel_ends_after_its_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap());
    let setup = setup.flag("--grace=2s").flag("--on-exit=cancel");
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(LONG).await.unwrap();
    let cursor = until_it_trains(&mut client, &token).await;
    server.stop().unwrap();
    assert_eq!(processes_of(&token.job_id), 0);

    let server = setup.start().unwrap();
    let ended = server.client().await.unwrap().follow(&cursor).await.unwrap();
    assert_eq!(ended.status.cause(), Cause::Cancelled, "{:?}", ended.status);
    assert!(ended.status.message.contains("--on-exit cancel"), "{:?}", ended.status);
}
