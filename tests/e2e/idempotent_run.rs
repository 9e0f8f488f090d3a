//! Run with a request id is idempotent.

use sqlflow_proto::v1::{ListJobsRequest, Request, Session};
use sqlflow_tests::{python, server::Setup};
use tonic::Code;

fn request(sql: &str, user: &str) -> Request {
    Request {
        sql: sql.to_owned(),
        session: Some(Session { user_id: user.to_owned(), ..Session::default() }),
        request_id: "5f0c2f3e-6d0b-4a53-9d1c-0f6f6a2b7c11".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_request_id_returns_the_same_token() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap());
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let sql = "SELECT * FROM iris LIMIT 3;";
    let first = client.api.run(request(sql, "ada")).await.unwrap().into_inner();
    let again = client.api.run(request(sql, "ada")).await.unwrap().into_inner();
    assert_eq!((&first.token, &first.job_id), (&again.token, &again.job_id));

    let other = client.api.run(request("SELECT 1;", "ada")).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists, "{other}");
    assert!(other.message().contains("request_id"), "{other}");
    let guessed = Request { request_id: "1".to_owned(), ..request(sql, "ada") };
    assert_eq!(client.api.run(guessed).await.unwrap_err().code(), Code::InvalidArgument);
    client.follow(&first).await.unwrap().expect_success();

    // Also after the job's end, from another server on the same state.
    server.kill();
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let after = client.api.run(request(sql, "ada")).await.unwrap().into_inner();
    assert_eq!(after.job_id, first.job_id);
    let jobs = client.api.list_jobs(ListJobsRequest::default()).await.unwrap().into_inner().jobs;
    assert_eq!(jobs.len(), 1, "{jobs:?}");

    // Request ids are separate for each user.
    let another = client.api.run(request(sql, "grace")).await.unwrap().into_inner();
    assert_ne!(another.token, first.token);
}
