//! A submitter that exits with 0 and did not report the end of its statement, as one that user code ended. The agent then
//! reports success.

use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::{Cause, GetJobRequest, get_job_request::By};
use sqlflow_tests::server::Setup;
use sqlflow_tests::stand_in::{STEP, python_that};

#[tokio::test(flavor = "multi_thread")]
async fn success_without_the_end_of_its_statement_fails_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let python = python_that(dir.path(), "python", "echo early; exit 0");
    let server = Setup::new(dir.path(), format!("sqlite://{}", dir.path().join("none.db").display()))
        .flag(format!("--python={}", python.display()))
        .start()
        .unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(STEP).await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert_eq!(
        (ended.status.code(), ended.status.cause()),
        (Code::Failed, Cause::Lost),
        "{:?}",
        ended.status
    );
    assert!(ended.status.message.contains("the log lacks the end of statement 1"), "{:?}", ended.status);
    assert!(ended.log().contains("early"), "{}", ended.log());
    let by = GetJobRequest { by: Some(By::Token(token.token)) };
    let job = client.api.get_job(by).await.unwrap().into_inner();
    assert_eq!(job.steps[0].attempts.len(), 1, "it is not run again: {job:?}");
}
