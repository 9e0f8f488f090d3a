//! The published clients, and the design document's client, with jobs in Pods: Run returns the job at once.

use serde_json::json;
use sqlflow_proto::published::sql_flow_client::SqlFlowClient;
use sqlflow_proto::published::{FetchRequest, Request, Session, response, task_status::Code};
use sqlflow_tests::cluster::Namespace;
use sqlflow_tests::published::{CLIENTS, run, shown};

use crate::SQLITE;

const PROGRAM: &str = "SELECT 1 AS a; SELECT 'x' AS b, NULL AS c;";

#[tokio::test(flavor = "multi_thread")]
async fn published_clients_poll_jobs_in_pods() {
    let namespace = Namespace::new("published");
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    for name in CLIENTS {
        let (tables, _) = shown(&run(name, &server.address, "run", PROGRAM));
        assert_eq!(tables, json!([[["a"], [[1]]], [["b", "c"], [["x", null]]]]), "{name}");
        let failed = run(name, &server.address, "run", "SELECT abs(-9223372036854775807 - 1);");
        let error = String::from_utf8_lossy(&failed.stderr);
        assert!(
            error.contains("FAILED_PRECONDITION") && error.contains("integer overflow"),
            "{name}: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn job_in_a_pod_is_followed_by_the_address_of_its_page() {
    let namespace = Namespace::new("finished");
    let server = namespace.setup(SQLITE, "{}").start().unwrap();
    let mut client = SqlFlowClient::connect(format!("http://{}", server.address)).await.unwrap();
    let request = Request { sql: PROGRAM.to_owned(), ..Request::default() };
    let mut responses = client.run(request).await.unwrap().into_inner();
    let Some(response::Response::Job(job)) = responses.message().await.unwrap().unwrap().response else {
        panic!("the first response is not the job")
    };
    assert_eq!(responses.message().await.unwrap(), None, "nothing follows the job");
    let session = Session { job_tracer_url: job.job_tracer_url.clone(), ..Session::default() };
    let request = Request { session: Some(session), ..Request::default() };
    let mut is_over = async || loop {
        let mut states = client.is_finished(request.clone()).await.unwrap().into_inner();
        match states.message().await.unwrap().unwrap().code() {
            Code::Pending => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            over => break over,
        }
    };
    let over = tokio::time::timeout(std::time::Duration::from_secs(90), is_over()).await;
    assert_eq!(over.expect("the job does not end"), Code::Completed);

    // Another client reads it from its beginning.
    let mut client = SqlFlowClient::connect(format!("http://{}", server.address)).await.unwrap();
    let (mut since, mut ends, mut rows) = (FetchRequest { job: Some(job), ..FetchRequest::default() }, 0, 0);
    loop {
        let page = client.fetch(since).await.unwrap().into_inner();
        for response in page.responses.unwrap().response {
            match response.response {
                Some(response::Response::Row(_)) => rows += 1,
                Some(response::Response::Eoe(_)) => ends += 1,
                _ => {}
            }
        }
        since = page.updated_fetch_since.unwrap();
        if page.eof {
            break;
        }
    }
    assert_eq!((rows, ends), (2, 2));
}
