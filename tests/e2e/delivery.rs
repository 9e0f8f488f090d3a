//! Delivery to a reader with a plain token: pages may be repeated, and none is skipped, whatever happens to calls and
//! connections.

use std::time::Duration;

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{Response, Token};
use sqlflow_tests::client::{Client, is_over};
use sqlflow_tests::python;
use sqlflow_tests::server::{Server, Setup};
use sqlflow_tests::slow_link::SlowLink;
use tonic::Request;

/// Latency of each direction, longer than [`DEADLINE`].
const DELAY: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_millis(200);

/// A server with a job that has ended.
async fn world() -> (tempfile::TempDir, Server, Token) {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap()).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT * FROM iris; SELECT * FROM iris;").await.unwrap();
    // With a cursor, so that the plain token stays at the beginning.
    client.follow(&from_the_beginning(&token)).await.unwrap().expect_success();
    (dir, server, token)
}

fn from_the_beginning(token: &Token) -> Token {
    Token { token: format!("{}.0", token.token), ..Token::default() }
}

/// Reads with the plain token to the end, and checks that all records were received, in order.
async fn expect_all(client: &mut Client, token: &Token, mut received: Vec<Response>) {
    let ended = client.follow_plainly(token).await.unwrap();
    received.extend(ended.results);
    let mut last = 0;
    for it in &received {
        assert!(it.position <= last + 1, "record {} came after {last}", it.position);
        last = last.max(it.position);
    }
    let whole = client.follow(&from_the_beginning(token)).await.unwrap();
    assert_eq!(whole.results.last().unwrap().position, last);
}

#[tokio::test(flavor = "multi_thread")]
async fn deadline_shorter_than_the_latency_skips_no_page() {
    let (_dir, server, token) = world().await;
    let link = SlowLink::to(&server.address, DELAY).await.unwrap();
    let mut client = Client::connect(&link.address).await.unwrap();
    for _ in 0..5 {
        let mut request = Request::new(token.clone());
        request.set_timeout(DEADLINE);
        client.api.fetch(request).await.expect_err("the answer comes after the deadline");
    }
    expect_all(&mut client, &token, Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_call_skips_no_page() {
    let (_dir, server, token) = world().await;
    let link = SlowLink::to(&server.address, DELAY).await.unwrap();
    let mut client = Client::connect(&link.address).await.unwrap();
    for _ in 0..3 {
        let dropped = tokio::time::timeout(DEADLINE, client.api.fetch(token.clone())).await;
        assert!(dropped.is_err(), "the answer comes later");
    }
    expect_all(&mut client, &token, Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_closed_before_the_response_skips_no_page() {
    let (_dir, server, token) = world().await;
    let link = SlowLink::to(&server.address, DELAY).await.unwrap();
    let mut client = Client::connect(&link.address).await.unwrap();
    let dropped = tokio::time::timeout(DEADLINE, client.api.fetch(token.clone())).await;
    assert!(dropped.is_err(), "the answer comes later");
    drop(client);
    // Longer than a round trip.
    tokio::time::sleep(DELAY * 3).await;
    expect_all(&mut server.client().await.unwrap(), &token, Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_client_skips_no_page() {
    let (_dir, server, token) = world().await;
    let link = SlowLink::to(&server.address, Duration::ZERO).await.unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (address, plain) = (link.address.clone(), token.clone());
    let ready = runtime.spawn(async move { Client::connect(&address).await.unwrap() }).await.unwrap();
    link.swallow_answers(true);
    let mut client = ready.clone();
    let call = runtime.spawn(async move { client.api.fetch(plain).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!call.is_finished());
    // As for a killed process, the connection ends without GOAWAY.
    runtime.shutdown_background();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    expect_all(&mut server.client().await.unwrap(), &token, Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_two_connections_advance_and_skip_no_page() {
    let (_dir, server, token) = world().await;
    let link = SlowLink::to(&server.address, Duration::from_millis(50)).await.unwrap();
    let mut clients =
        [Client::connect(&link.address).await.unwrap(), Client::connect(&link.address).await.unwrap()];
    let mut received = Vec::new();
    for turn in 0..20 {
        let page = clients[turn % 2].api.fetch(token.clone()).await.unwrap().into_inner();
        received.extend(page.results);
        if page.job_status.as_ref().is_some_and(is_over) && turn > 3 {
            break;
        }
    }
    let last = received.last().unwrap().position;
    let after = clients[0].api.fetch(token.clone()).await.unwrap().into_inner();
    assert!(after.results.is_empty(), "not read to the end, {last}: {after:?}");
    expect_all(&mut clients[1], &token, received).await;
}

/// As in scripts.
#[tokio::test(flavor = "multi_thread")]
async fn one_connection_per_call_advances() {
    let (_dir, server, token) = world().await;
    let first = server.client().await.unwrap().api.fetch(token.clone()).await.unwrap().into_inner();
    assert!(!first.results.is_empty());
    for _ in 0..100 {
        let page = server.client().await.unwrap().api.fetch(token.clone()).await.unwrap().into_inner();
        if page.results.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the same page is repeated forever");
}

/// A generated client with gRPC's default limits.
#[tokio::test(flavor = "multi_thread")]
async fn row_over_the_clients_message_limit_is_an_error_and_not_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path(), "sqlite:///:memory:").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT hex(zeroblob(3000000)) AS x").await.unwrap();
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let mut plain = sqlflow_proto::v1::sql_flow_client::SqlFlowClient::new(channel.connect().await.unwrap());
    let refused = loop {
        match plain.fetch(token.clone()).await {
            Ok(page) => assert!(!page.into_inner().job_status.as_ref().is_some_and(is_over)),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
    for word in ["4194304", "sqlflow-max-message-bytes"] {
        assert!(refused.message().contains(word), "{refused:?}");
    }
    assert_eq!(
        plain.fetch(token.clone()).await.unwrap_err().message(),
        refused.message(),
        "nothing is skipped"
    );
    let (mut cursor, mut rows) = (token, 0);
    loop {
        let mut request = Request::new(cursor.clone());
        request.metadata_mut().insert("sqlflow-max-message-bytes", (64 << 20).into());
        let page = client.api.fetch(request).await.unwrap().into_inner();
        let is_row = |it: &&Response| matches!(it.response, Some(Payload::Rows(_)));
        rows += page.results.iter().filter(is_row).count();
        if page.job_status.as_ref().is_some_and(is_over) {
            break;
        }
        cursor = page.next.unwrap();
    }
    assert_eq!(rows, 1, "a client that can decode it gets it");
}

/// As if the log had been restored from an older backup than the state.
#[tokio::test(flavor = "multi_thread")]
async fn plain_token_ahead_of_the_log_continues_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap());
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT * FROM iris").await.unwrap();
    client.follow(&from_the_beginning(&token)).await.unwrap().expect_success();
    server.stop().unwrap();
    let code = "import sqlite3, sys\nwith sqlite3.connect(sys.argv[1]) as db: db.execute('UPDATE jobs SET plain_cursor = 1000')";
    python::run(code, &[setup.state_dir.join("state.db").to_str().unwrap()]).unwrap();
    let server = setup.start().unwrap();
    let ended = server.client().await.unwrap().follow_plainly(&token).await.unwrap();
    ended.expect_success();
}

#[tokio::test(flavor = "multi_thread")]
async fn small_message_limit_splits_results_into_more_pages() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap()).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;".repeat(300)).await.unwrap();
    client.follow(&from_the_beginning(&token)).await.unwrap().expect_success();
    let (mut cursor, mut pages) = (from_the_beginning(&token), 0);
    loop {
        let mut request = Request::new(cursor);
        request.metadata_mut().insert("sqlflow-max-message-bytes", 4096.into());
        let page = client.api.fetch(request).await.unwrap().into_inner();
        pages += 1;
        if is_over(page.job_status.as_ref().unwrap()) {
            break;
        }
        cursor = page.next.unwrap();
    }
    assert!(pages > 3, "{pages}");
}
