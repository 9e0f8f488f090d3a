//! An open web page counts as a reader: a job without readers is cancelled.

use std::time::Duration;

use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::{Cause, GetJobRequest, JobStatus, Session, Token, get_job_request::By};
use sqlflow_tests::client::{Client, is_over};
use sqlflow_tests::server::Setup;
use sqlflow_tests::{http, python};

/// Takes longer than the fetch timeout on any machine.
const PROGRAM: &str = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 60000000)
SELECT count(*) FROM c;";

/// Polls GetJob, which does not count as reading.
async fn end(client: &mut Client, token: &Token) -> JobStatus {
    loop {
        let by = GetJobRequest { by: Some(By::Token(token.token.clone())) };
        let status = client.api.get_job(by).await.unwrap().into_inner().status.unwrap();
        if is_over(&status) {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn job_with_an_open_page_is_not_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap()).start().unwrap();
    let mut client = server.client().await.unwrap();
    let session = Session { fetch_timeout_seconds: Some(3), ..Session::default() };
    let watched = client.run_in(PROGRAM, session.clone()).await.unwrap();
    let page = http::path_of(&watched.job_tracer_url);
    let (address, path) = (server.http.clone(), page.replace('?', "/live?"));
    let page = tokio::task::spawn_blocking(move || http::get(&address, &path));
    let unwatched = client.run_in(PROGRAM, session).await.unwrap();

    let status = end(&mut client, &unwatched).await;
    assert_eq!(status.cause(), Cause::NotFetched, "{status:?}");
    let status = end(&mut client, &watched).await;
    assert_eq!(status.code(), Code::Succeeded, "{status:?}");
    let page = page.await.unwrap();
    assert!(page.body.contains("event: end"), "{}", page.body);
}
