//! Calls at their limits: a deadline, the size of messages, and the end of the server meanwhile.

use std::path::Path;
use std::time::Duration;

use sqlflow_proto::published::Request as Program;
use sqlflow_proto::published::sql_flow_client::SqlFlowClient as PublishedClient;
use sqlflow_proto::v1::get_job_request::By;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::sql_flow_client::SqlFlowClient;
use sqlflow_proto::v1::{GetJobRequest, ListJobsRequest, Token};
use sqlflow_tests::client::Client;
use sqlflow_tests::python;
use sqlflow_tests::raw_codec::Raw;
use sqlflow_tests::server::{Server, Setup};
use sqlflow_tests::stand_in::{self, STEP};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

/// A job that is quiet after its first line.
const QUIET: &str = "import time; print('ready', flush=True); time.sleep(600)";

fn quiet(dir: &Path) -> Setup {
    stand_in::setup(dir, QUIET, None)
}

async fn connect(server: &Server) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    endpoint.connect().await.unwrap()
}

/// Cancels the job. Its server may be gone.
async fn end(setup: &Setup, job_id: String) {
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    // Its owner may write the id in place of the token.
    let job = Token { token: job_id, ..Token::default() };
    client.api.cancel(job.clone()).await.unwrap();
    client.follow(&job).await.unwrap();
}

/// Sends SIGTERM, and waits for the end.
async fn terminate(server: Server) {
    tokio::task::spawn_blocking(move || server.stop()).await.unwrap().unwrap();
}

/// A client with a short deadline gets an empty page, and no error.
#[tokio::test(flavor = "multi_thread")]
async fn fetch_without_news_answers_before_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let setup = quiet(dir.path());
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let job = client.run(STEP).await.unwrap();
    let cursor = client.until(&job, |it| matches!(it, Payload::Log(_))).await.unwrap();
    // Less than a Fetch waits without a deadline. On a busy machine some calls may take longer.
    let mut errors = Vec::new();
    while errors.len() < 20 {
        let mut request = Request::new(cursor.clone());
        request.set_timeout(Duration::from_millis(900));
        match client.api.fetch(request).await {
            Ok(_) => break,
            Err(error) => errors.push(error),
        }
    }
    assert!(errors.len() < 20, "no call was answered: {errors:?}");
    drop(server);
    end(&setup, job.job_id).await;
}

/// 15 MB, of which a client decodes 4 MiB at a time.
#[tokio::test(flavor = "multi_thread")]
async fn large_result_is_read_with_the_default_limits_of_clients() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap()).start().unwrap();
    let mut client = Client { api: SqlFlowClient::new(connect(&server).await) };
    let token = client.run("SELECT hex(zeroblob(50000)) AS x FROM iris").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    ended.expect_success();
    assert_eq!(ended.row_count(), 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn fetch_that_waits_at_term_returns_its_page() {
    let dir = tempfile::tempdir().unwrap();
    let setup = quiet(dir.path());
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let job = client.run(STEP).await.unwrap();
    let cursor = client.until(&job, |it| matches!(it, Payload::Log(_))).await.unwrap();
    let mut later = client.clone();
    let ending = async {
        // On the same connection: the server has Fetch once it has answered a later call.
        let by = Some(By::Token(job.token.clone()));
        later.api.get_job(GetJobRequest { by }).await.unwrap();
        terminate(server).await;
    };
    let (page, ()) = tokio::join!(client.api.fetch(cursor.clone()), ending);
    assert!(page.unwrap().into_inner().next.is_some());
    end(&setup, job.job_id.clone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn call_without_an_end_gets_unavailable_and_a_retry_hint_at_term() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path(), "sqlite:///:memory:").start().unwrap();
    let mut calls = tonic::client::Grpc::new(connect(&server).await);
    calls.ready().await.unwrap();
    let path = "/grpc.health.v1.Health/Watch".parse().unwrap();
    let watched = calls.server_streaming(Request::new(Vec::new()), path, Raw).await;
    let mut health = watched.unwrap().into_inner();
    // A `HealthCheckResponse`: SERVING, then NOT_SERVING.
    assert_eq!(health.message().await.unwrap(), Some(vec![8, 1]));
    let last = async {
        assert_eq!(health.message().await.unwrap(), Some(vec![8, 2]));
        health.message().await.unwrap_err()
    };
    let (error, ()) = tokio::join!(last, terminate(server));
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    assert!(String::from_utf8_lossy(error.details()).contains("google.rpc.RetryInfo"), "{error:?}");
}

/// No hint: another Run would start the program again.
#[tokio::test(flavor = "multi_thread")]
async fn call_that_follows_a_job_gets_unavailable_at_term_and_the_job_continues() {
    let dir = tempfile::tempdir().unwrap();
    let setup = quiet(dir.path());
    let server = setup.start().unwrap();
    let mut published = PublishedClient::new(connect(&server).await);
    let program = Program { sql: STEP.to_owned(), ..Program::default() };
    let mut responses = published.run(program).await.unwrap().into_inner();
    assert!(responses.message().await.unwrap().is_some());
    let jobs = server.client().await.unwrap().api.list_jobs(ListJobsRequest::default()).await.unwrap();
    let job = jobs.into_inner().jobs.remove(0).job_id;
    let last = async {
        loop {
            match responses.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the call ended as if its job had"),
                Err(error) => break error,
            }
        }
    };
    let (error, ()) = tokio::join!(last, terminate(server));
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    assert!(error.message().contains(&format!("job {job} goes on")), "{error:?}");
    end(&setup, job).await;
}
