//! The trace of a job on a cluster.

use sqlflow_tests::cluster::{HOST, Namespace};
use sqlflow_tests::services::Jaeger;

use crate::SQLITE;

/// Some seconds of work.
const COUNT: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000000) SELECT count(*) FROM n;";

/// One tree, though the server was killed in the middle and the agent sends its spans from inside of its Pod.
#[tokio::test(flavor = "multi_thread")]
async fn a_pods_spans_join_those_of_the_server_that_comes_after() {
    let namespace = Namespace::new("traced");
    let jaeger = Jaeger::start_on(HOST);
    let collector = format!("http://{HOST}:{}", jaeger.port);
    let setup = namespace.setup(SQLITE, "{}").env("OTEL_EXPORTER_OTLP_ENDPOINT", collector);
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(COUNT).await.unwrap();
    namespace.running_pod();
    server.kill();
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
    let expected = [
        "Run",
        "step standard",
        "attempt 1",
        "schedule",
        "pull",
        "start",
        "run",
        "report",
        "statement standard",
    ];
    let spans = jaeger.trace_of(HOST, &token.job_id, &expected);
    spans.expect_a_tree();
    // Other tests run beside this one.
    for whole in ["attempt", "step", "Run"] {
        spans.expect_parts_within(20, whole);
    }
}
