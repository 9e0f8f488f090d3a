//! One trace for each job, from the client to Python.

use std::process::Command;

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::server::{Setup, program};
use sqlflow_tests::services::Jaeger;
use sqlflow_tests::{python, stand_in};

use crate::MACHINE;

fn collector() -> String {
    format!("http://127.0.0.1:{}", Jaeger::shared().port)
}

/// The program of quickstart.
#[tokio::test(flavor = "multi_thread")]
async fn program_is_one_span_tree_from_client_to_python() {
    let _machine = MACHINE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let datasource = python::iris(&dir.path().join("iris.db")).unwrap();
    let setup = Setup::new(dir.path(), datasource).env("OTEL_EXPORTER_OTLP_ENDPOINT", collector());
    let server = setup.start().unwrap();
    let program_file = python::repository().join("examples/iris.sql");
    let output = Command::new(program("sqlflowctl"))
        .args(["run", "--output", "json", "--no-remember", "--server", &server.address, "-f"])
        .arg(program_file)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let first = output.stdout.split(|it| *it == b'\n').next().unwrap();
    let job: serde_json::Value = serde_json::from_slice(first).unwrap();

    let expected =
        ["sqlflowctl run", "Run", "step train", "step predict", "publish", "statement predict", "save"];
    let spans = Jaeger::shared().trace_of("127.0.0.1", job["job"].as_str().unwrap(), &expected);
    spans.expect_a_tree();
    let run = spans.parts_of(spans.one("sqlflowctl run")).next().unwrap();
    assert_eq!(run["operationName"], "Run");
    for whole in ["Run", "step", "attempt"] {
        spans.expect_parts_of(whole);
    }
    // The submitter records each round of the training.
    let train = spans.one("train");
    let within: Vec<_> =
        spans.parts_of(spans.one("statement train")).map(|it| it["operationName"].clone()).collect();
    assert_eq!(within, ["check ahead", "derive", "load", "train", "save"]);
    let rounds = train["logs"].as_array().unwrap();
    assert!(rounds.len() > 1 && rounds[0].to_string().contains("train-"), "{rounds:?}");
}

/// The server that reconciles the job at its end sends its spans, with the ids that the agent has.
#[tokio::test(flavor = "multi_thread")]
async fn trace_is_complete_after_a_server_was_killed() {
    let _machine = MACHINE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let datasource = python::iris(&dir.path().join("iris.db")).unwrap();
    let setup = Setup::new(dir.path(), datasource).env("OTEL_EXPORTER_OTLP_ENDPOINT", collector());
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let train =
        "SELECT * FROM iris TO TRAIN xgboost.gbtree WITH train.num_boost_round = 300 LABEL class INTO m;";
    let token = client.run(train).await.unwrap();
    let trains = |it: &Payload| matches!(it, Payload::Progress(progress) if progress.phase == "train");
    client.until(&token, trains).await.unwrap();
    server.kill();
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    client.follow(&token).await.unwrap().expect_success();

    let expected = ["Run", "step train", "attempt 1", "run", "report", "statement train"];
    let spans = Jaeger::shared().trace_of("127.0.0.1", &token.job_id, &expected);
    spans.expect_a_tree();
    spans.expect_parts_of("attempt");
}

/// A collector that accepts connections and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn unresponsive_collector_does_not_fail_a_job() {
    let hole = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let datasource = python::iris(&dir.path().join("iris.db")).unwrap();
    let endpoint = format!("http://{}", hole.local_addr().unwrap());
    let server =
        Setup::new(dir.path(), datasource).env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;").await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
    server.stop().unwrap();
}

/// By `TRACEPARENT` and `OTEL_*` in the environment.
#[tokio::test(flavor = "multi_thread")]
async fn user_code_with_opentelemetry_sdk_joins_the_trace() {
    let dir = tempfile::tempdir().unwrap();
    let python =
        std::env::var("SQLFLOW_TEST_S3_PYTHON").expect("`make test` names a Python with OpenTelemetry");
    let code =
        format!("import os\nos.execv({python:?}, [{python:?}, os.path.join({:?}, 'own.py')])", dir.path());
    let own = "import os
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
parent = TraceContextTextMapPropagator().extract({'traceparent': os.environ['TRACEPARENT']})
with trace.get_tracer('own').start_as_current_span('own work', context=parent): pass
";
    std::fs::write(dir.path().join("own.py"), own).unwrap();
    let setup = stand_in::setup(dir.path(), &code, None).env("OTEL_EXPORTER_OTLP_ENDPOINT", collector());
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(stand_in::STEP).await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
    let spans = Jaeger::shared().trace_of("127.0.0.1", &token.job_id, &["Run", "run", "own work"]);
    spans.expect_a_tree();
    assert_eq!(spans.parts_of(spans.one("run")).count(), 1);
}

/// So a log line leads to the trace, and the trace to the log lines.
#[tokio::test(flavor = "multi_thread")]
async fn log_lines_about_a_job_have_its_trace_id() {
    let dir = tempfile::tempdir().unwrap();
    let datasource = python::iris(&dir.path().join("iris.db")).unwrap();
    let setup = Setup::new(dir.path(), datasource).env("OTEL_EXPORTER_OTLP_ENDPOINT", collector());
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;").await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
    let spans = Jaeger::shared().trace_of("127.0.0.1", &token.job_id, &["Run"]);
    let trace = spans.one("Run")["traceID"].as_str().unwrap().to_owned();
    server.stop().unwrap();
    let log = std::fs::read_to_string(dir.path().join("state/server.log")).unwrap();
    let ended = log.lines().find(|it| it.contains("the attempt has ended")).unwrap();
    assert!(ended.contains(&trace), "{ended}");
}
