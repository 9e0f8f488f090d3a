//! The trace of a job on a cluster.

use sqlflow_tests::cluster::{HOST, Namespace};
use sqlflow_tests::services::Jaeger;

use crate::SQLITE;

/// Runs for some seconds.
const COUNT: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000000) SELECT count(*) FROM n;";

/// One tree, although the server was killed during the job. The agent sends its spans from its Pod.
#[tokio::test(flavor = "multi_thread")]
async fn spans_of_a_pod_join_the_trace_of_the_next_server() {
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
    let sent = spans.one("run");
    for key in ["k8s.namespace.name", "k8s.pod.name", "k8s.pod.uid", "k8s.node.name", "container.id"] {
        assert!(spans.resource(sent, key).as_str().is_some_and(|it| !it.is_empty()), "{key}");
    }
    assert_eq!(spans.resource(sent, "k8s.namespace.name"), namespace.name.as_str());
    // Other tests run in parallel.
    for whole in ["attempt", "step", "Run"] {
        spans.expect_parts_within(20, whole);
    }
}
