//! Two servers on one state folder.

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{GetJobRequest, Response, get_job_request::By, job_status::Code};
use sqlflow_tests::client::is_over;
use sqlflow_tests::positions;
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;
use sqlflow_tests::stand_in::{self, STEP};

/// Less than the five minutes after which a server reads all jobs again.
const SOON: std::time::Duration = std::time::Duration::from_secs(30);

const PROGRAM: &str = "SELECT * FROM iris; SELECT * FROM iris TO TRAIN xgboost.gbtree
WITH objective = \"multi:softmax\", num_class = 3, train.num_boost_round = 1000 LABEL class INTO m; SELECT * FROM iris;";

/// Kills the server that started first and listens to the agents, while a job runs. Results come from the other one.
async fn take_over(run_through_the_first: bool) {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap());
    let (first, second) = (setup.start().unwrap(), setup.start().unwrap());
    let through = if run_through_the_first { &first } else { &second };
    let token = through.client().await.unwrap().run(PROGRAM).await.unwrap();

    let mut client = second.client().await.unwrap();
    let (mut cursor, mut results) = (token.clone(), Vec::new());
    let is_training = |it: &Response| matches!(it.response, Some(Payload::Metrics(_)));
    while !results.iter().any(is_training) {
        let page = client.api.fetch(cursor).await.unwrap().into_inner();
        let status = page.job_status.unwrap();
        assert!(!is_over(&status), "{status:?}");
        results.extend(page.results);
        cursor = page.next.unwrap();
    }
    first.kill();
    let ended = client.follow(&cursor).await.unwrap();
    ended.expect_success();
    results.extend(ended.results);
    positions::expect_all(results.iter().map(|it| it.position));
    let rows = results.iter().filter_map(|it| match &it.response {
        Some(Payload::Rows(rows)) => Some(rows.count),
        _ => None,
    });
    assert_eq!(rows.sum::<u32>(), 300, "each row once");
    let by = GetJobRequest { by: Some(By::Token(token.token)) };
    let job = client.api.get_job(by).await.unwrap().into_inner();
    assert!(job.steps.iter().all(|step| step.attempts.len() == 1), "an attempt was disturbed: {job:?}");
    assert!(setup.state_dir.join("models/m/m.tar.gz").is_file());
    second.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn job_of_a_killed_server_is_taken_over() {
    take_over(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn job_continues_when_the_server_with_the_agents_socket_is_killed() {
    take_over(false).await;
}

/// The first server reconciles the job, which waits there for a run slot. It learns of the cancel by the store only.
#[tokio::test(flavor = "multi_thread")]
async fn cancel_through_one_server_ends_a_job_queued_at_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let setup = stand_in::setup(dir.path(), "import time; time.sleep(1000)", None).flag("--max-running=1");
    let (first, second) = (setup.start().unwrap(), setup.start().unwrap());
    let (mut at_first, mut at_second) = (first.client().await.unwrap(), second.client().await.unwrap());
    let running = at_first.run(STEP).await.unwrap();
    let waiting = at_first.run(STEP).await.unwrap();
    let says_place = |it: &Payload| matches!(it, Payload::Message(said) if said.message.contains("run slot"));
    let cursor = at_second.until(&waiting, says_place).await.unwrap();
    for (job, cursor) in [(&waiting, &cursor), (&running, &running)] {
        at_second.api.cancel(job.clone()).await.unwrap();
        let ended = tokio::time::timeout(SOON, at_second.follow(cursor)).await.expect("it ends").unwrap();
        assert_eq!(ended.status.code(), Code::Failed, "{:?}", ended.status);
    }
    first.stop().unwrap();
    second.stop().unwrap();
}
