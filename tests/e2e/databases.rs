//! Plain SQL through a server, in real databases.

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{Cause, job_status::Code};
use sqlflow_tests::client::Client;
use sqlflow_tests::server::{Server, Setup};
use sqlflow_tests::services::{Mariadb, Postgresql};

struct World {
    server: Server,
    client: Client,
    _dir: tempfile::TempDir,
}

/// A server without a Python.
async fn world(dsn: &str) -> World {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path(), dsn).flag("--python=/no/python").start().unwrap();
    let client = server.client().await.unwrap();
    World { server, client, _dir: dir }
}

/// Waits until so many statements with this text run in the database.
async fn await_running(client: &mut Client, count_running: &str, count: &str) {
    loop {
        let token = client.run(count_running).await.unwrap();
        let ended = client.follow(&token).await.unwrap();
        ended.expect_success();
        if ended.rows() == [[count]] {
            return;
        }
    }
}

/// `sleep`: a statement that takes long. `count_running`: counts those that run.
async fn statements_run_and_end(dsn: &str, sleep: &str, count_running: &str) {
    let World { server: _server, mut client, _dir } = world(dsn).await;
    let program = "CREATE TABLE things (a INT, b VARCHAR(9)); INSERT INTO things VALUES (1, 'é'), (2, NULL);
        SELECT a, b FROM things ORDER BY a; SELECT count(*) FROM things WHERE a = 9;";
    let token = client.run(program).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    ended.expect_success();
    assert_eq!(ended.rows(), [vec!["1", "é"], vec!["2", ""], vec!["0"]]);
    let changed: Vec<_> = ended
        .payloads()
        .filter_map(|it| if let Payload::Eoe(it) = it { Some(it.rows_affected) } else { None })
        .collect();
    assert_eq!(changed[1], Some(2), "{changed:?}");

    // What was executed before the error stays.
    let token = client.run("INSERT INTO things VALUES (3, 'x'); SELECT *\nFROM thinsg;").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert_eq!((ended.status.code(), ended.status.cause()), (Code::Failed, Cause::StatementFailed));
    assert!(ended.status.message.contains("did you mean things?"), "{}", ended.status.message);
    let token = client.run("SELECT count(*) FROM things").await.unwrap();
    assert_eq!(client.follow(&token).await.unwrap().rows(), [["3"]]);

    let token = client.run(sleep).await.unwrap();
    await_running(&mut client, count_running, "1").await;
    client.api.cancel(token.clone()).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert_eq!((ended.status.code(), ended.status.cause()), (Code::Failed, Cause::Cancelled));
    await_running(&mut client, count_running, "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_run_and_end_in_mariadb() {
    let database = Mariadb::start_on("127.0.0.1");
    let count = "SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'";
    statements_run_and_end(&database.dsn, "SELECT SLEEP(1000)", count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_run_and_end_in_postgresql() {
    let database = Postgresql::start();
    let count =
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'";
    statements_run_and_end(&database.dsn, "SELECT pg_sleep(1000)", count).await;
}
