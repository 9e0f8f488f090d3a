//! One trace for each job, from the client to Python.

use std::process::Command;

use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::agent::Exec;
use sqlflow_tests::server::{Setup, program};
use sqlflow_tests::services::Jaeger;
use sqlflow_tests::{python, stand_in};

use crate::MACHINE;

fn collector() -> String {
    format!("http://127.0.0.1:{}", Jaeger::shared().port)
}

/// How spans come to the collector.
fn transports() -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let jaeger = Jaeger::shared();
    let [tls, tls_http] = jaeger.tls_ports.map(|port| format!("https://127.0.0.1:{port}"));
    let file = |name: &str| jaeger.dir.path().join(name).display().to_string();
    let certificates = || {
        vec![
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", file("ca.crt")),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", file("client.crt")),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", file("client.key")),
        ]
    };
    let http = || ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned());
    let gzip = || ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip".to_owned());
    let to = |url: String| ("OTEL_EXPORTER_OTLP_ENDPOINT", url);
    let by_http = format!("http://127.0.0.1:{}", jaeger.http_port);
    vec![
        ("grpc", vec![to(collector())]),
        ("http", vec![to(by_http.clone()), http()]),
        // The path says which protocol it is.
        ("http with gzip", vec![("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", by_http + "/v1/traces"), gzip()]),
        ("grpc with gzip, TLS and a client's certificate", [vec![to(tls), gzip()], certificates()].concat()),
        ("http with TLS and a client's certificate", [vec![to(tls_http), http()], certificates()].concat()),
    ]
}

/// What quickstart runs.
#[tokio::test(flavor = "multi_thread")]
async fn program_is_one_tree_of_spans_over_every_transport() {
    let _machine = MACHINE.lock().await;
    for (name, variables) in transports() {
        eprintln!("by {name}");
        expect_one_tree(variables).await;
    }
}

async fn expect_one_tree(variables: Vec<(&'static str, String)>) {
    let dir = tempfile::tempdir().unwrap();
    let datasource = python::iris(&dir.path().join("iris.db")).unwrap();
    let setup = Setup::new(dir.path(), datasource).envs(variables.clone());
    let server = setup.start().unwrap();
    let program_file = python::repository().join("examples/iris.sql");
    let output = Command::new(program("sqlflowctl"))
        .args(["run", "--output", "json", "--no-remember", "--server", &server.address, "-f"])
        .arg(program_file)
        .envs(variables)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let first = output.stdout.split(|it| *it == b'\n').next().unwrap();
    let job: serde_json::Value = serde_json::from_slice(first).unwrap();
    // Its last spans are sent.
    server.stop().unwrap();

    let expected =
        ["sqlflowctl run", "Run", "step train", "step predict", "publish", "statement predict", "save"];
    let spans = Jaeger::shared().trace_of("127.0.0.1", job["job"].as_str().unwrap(), &expected);
    spans.expect_a_tree();
    let run = spans.parts_of(spans.one("sqlflowctl run")).next().unwrap();
    assert_eq!(run["operationName"], "Run");
    // What the server did for it is in traces of its own.
    assert!(spans.names().iter().all(|it| !it.contains('/') && *it != "reconcile"), "{:?}", spans.names());
    for whole in ["Run", "step"] {
        spans.expect_parts_of(whole);
    }
    // Python is a process of its own.
    let (agents, submitters) = (spans.one("publish"), spans.one("statement train"));
    assert_eq!(spans.resource(submitters, "process.runtime.name"), "cpython");
    let pid = |it| spans.resource(it, "process.pid").as_i64().expect("every process says it");
    assert_ne!(pid(agents), pid(submitters));
    assert_eq!(spans.resource(agents, "service.version"), env!("CARGO_PKG_VERSION"));
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

#[tokio::test(flavor = "multi_thread")]
async fn untrusted_collector_is_named_and_affects_no_exit_code() {
    for (port, path) in Jaeger::shared().tls_ports.into_iter().zip(["", "/v1/traces"]) {
        let collector = format!("https://127.0.0.1:{port}{path}");
        let exec = Exec::new().flags(["--trace", &collector]);
        let ended = tokio::task::spawn_blocking(|| exec.shell("exit 3").end()).await.unwrap();
        assert_eq!(ended.code, Some(3));
        assert!(ended.stderr.contains("cannot reach the collector"), "{}", ended.stderr);
        assert!(ended.stderr.contains("UnknownIssuer"), "{}", ended.stderr);
    }
}

/// A module of the user's. Nothing in it is about the job. The server's check of its Python imports it, too.
const USER_CODE: &str = "import atexit, os
if 'TRACEPARENT' in os.environ:
    from opentelemetry import baggage, trace
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    trace.set_tracer_provider(TracerProvider())
    if 'OTEL_EXPORTER_OTLP_ENDPOINT' in os.environ:
        trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    def work():
        with trace.get_tracer('own').start_as_current_span('own work') as span:
            span.set_attribute('team', str(baggage.get_baggage('team')))
    atexit.register(work)
";

#[tokio::test(flavor = "multi_thread")]
async fn user_code_joins_the_trace_if_the_operator_lets_it() {
    for is_allowed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let python =
            std::env::var("SQLFLOW_TEST_S3_PYTHON").expect("`make test` names a Python with OpenTelemetry");
        std::fs::write(dir.path().join("sitecustomize.py"), USER_CODE).unwrap();
        let datasource = python::iris(&dir.path().join("iris.db")).unwrap();
        let mut setup = Setup::new(dir.path(), datasource)
            .flag(format!("--python={python}"))
            .env("PYTHONPATH", format!("{}:{}", dir.path().display(), python::package_path().display()))
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector());
        if is_allowed {
            setup = setup.flag("--trace-user-code");
        }
        let server = setup.start().unwrap();
        let output = Command::new(program("sqlflowctl"))
            .args([
                "run",
                "--output",
                "json",
                "--no-remember",
                "--server",
                &server.address,
                "-e",
                "SHOW MODELS",
            ])
            .env("BAGGAGE", "team=ml")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let first = output.stdout.split(|it| *it == b'\n').next().unwrap();
        let job: serde_json::Value = serde_json::from_slice(first).unwrap();
        server.stop().unwrap();
        let expected: &[&str] = if is_allowed { &["Run", "run", "own work"] } else { &["Run", "run"] };
        let spans = Jaeger::shared().trace_of("127.0.0.1", job["job"].as_str().unwrap(), expected);
        spans.expect_a_tree();
        assert_eq!(spans.names().contains(&"own work"), is_allowed);
        if is_allowed {
            let own = spans.one("own work");
            assert!(spans.parts_of(spans.one("run")).any(|it| it == own));
            assert!(own["tags"].to_string().contains("\"ml\""), "{own}");
        }
    }
}

/// The decision is taken when the job is recorded, and holds for agents and programs, too.
#[tokio::test(flavor = "multi_thread")]
async fn sampler_decides_once_for_a_whole_job() {
    let dir = tempfile::tempdir().unwrap();
    let code = "import os\nprint(os.environ['TRACEPARENT'])";
    let setup = stand_in::setup(dir.path(), code, None).env("OTEL_EXPORTER_OTLP_ENDPOINT", collector());
    for (sampler, flags) in [("always_off", "-00"), ("always_on", "-01")] {
        let server = setup.clone().env("OTEL_TRACES_SAMPLER", sampler).start().unwrap();
        let mut client = server.client().await.unwrap();
        let token = client.run(stand_in::STEP).await.unwrap();
        let outcome = client.follow(&token).await.unwrap();
        outcome.expect_success();
        let printed = outcome.log();
        assert!(printed.trim_end().ends_with(flags), "{sampler}: {printed}");
        server.stop().unwrap();
    }
}

/// Who reads a line of a log finds the span, and the other way round.
#[tokio::test(flavor = "multi_thread")]
async fn log_lines_about_a_job_have_its_trace_id() {
    let dir = tempfile::tempdir().unwrap();
    let datasource = python::iris(&dir.path().join("iris.db")).unwrap();
    let setup = Setup::new(dir.path(), datasource).flag("--log-format=json");
    let server = setup.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector()).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;").await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
    let spans = Jaeger::shared().trace_of("127.0.0.1", &token.job_id, &["Run"]);
    let run = spans.one("Run");
    server.stop().unwrap();
    let log = std::fs::read_to_string(dir.path().join("state/server.log")).unwrap();
    let ended = log.lines().find(|it| it.contains("the attempt has ended")).unwrap();
    let ended: serde_json::Value = serde_json::from_str(ended).unwrap();
    let context = &ended["span"];
    assert_eq!((&context["trace_id"], &context["span_id"]), (&run["traceID"], &run["spanID"]), "{ended}");
    assert_eq!(context["trace_flags"], "01", "{ended}");
}
