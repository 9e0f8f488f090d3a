//! Log lines and metrics, as a collector receives them.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric, metric};
use sqlflow_tests::http::get;
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;
use sqlflow_tests::until::until;

use crate::collector::{Collector, attribute, text, value};

const FAILS: &str = "SELECT nothing FROM iris;";

fn setup(dir: &std::path::Path, url: String) -> Setup {
    let datasource = python::iris(&dir.join("iris.db")).unwrap();
    Setup::new(dir, datasource).env("OTEL_EXPORTER_OTLP_ENDPOINT", url)
}

fn find<'a>(metrics: &'a [Metric], name: &str) -> &'a Metric {
    metrics.iter().find(|it| it.name == name).unwrap_or_else(|| panic!("no metric {name}"))
}

/// The page of a Prometheus server has histograms of the same buckets.
fn bounds(page: &str, histogram: &str) -> Vec<f64> {
    let lines = page.lines().filter(|it| it.starts_with(&format!("{histogram}_bucket{{")));
    let bounds = lines.filter_map(|it| it.split_once("le=\"")?.1.split('"').next());
    let bounds: BTreeSet<_> =
        bounds.filter(|it| *it != "+Inf").map(|it| it.parse::<f64>().unwrap().to_bits()).collect();
    // Positive numbers are ordered as their bits are.
    bounds.into_iter().map(f64::from_bits).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_and_metrics_arrive_over_grpc_and_http() {
    for protocol in ["grpc", "http/protobuf"] {
        let collector = Collector::default();
        let url = if protocol == "grpc" { collector.grpc().await } else { collector.http() };
        let dir = tempfile::tempdir().unwrap();
        let server = setup(dir.path(), url)
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_LOGS_EXPORTER", "otlp")
            .env("OTEL_METRICS_EXPORTER", "otlp")
            .env("OTEL_METRIC_EXPORT_INTERVAL", "100")
            // Then the libraries that send the lines write some, too.
            .env("RUST_LOG", "debug")
            .start()
            .unwrap();
        let mut client = server.client().await.unwrap();
        let token = client.run(FAILS).await.unwrap();
        client.follow(&token).await.unwrap();
        until("metrics are sent while the server runs", || {
            let received = collector.received();
            let last = received.metrics.last();
            let ended = last.and_then(|it| it.iter().find(|it| it.name == "sqlflow_jobs_ended_total"));
            ended.and_then(|it| value(it, &[("state", "failed")])) == Some(1.0)
        });
        let page = get(&server.http, "/metrics").body;
        // Its last lines and values are sent.
        server.stop().unwrap();
        let received = collector.received();

        // A line of the job names its span.
        let mut lines = received.lines.iter().map(|(_, line)| line);
        let ended = lines.find(|it| text(it.body.as_ref()) == "the job has ended").expect("the line arrives");
        let run = received.spans.iter().find(|it| it.name == "Run").unwrap();
        assert_eq!((&ended.trace_id, &ended.span_id, ended.flags), (&run.trace_id, &run.span_id, 1));
        assert_eq!(attribute(&ended.attributes, "job"), token.job_id);
        assert_eq!(attribute(&ended.attributes, "state"), "failed");
        assert_eq!(ended.severity_text, "INFO");
        let targets: BTreeSet<_> = received.lines.iter().map(|(target, _)| target.as_str()).collect();
        assert!(targets.contains("sqlflow_server::reconciler::job::ending"), "{targets:?}");
        let senders = ["h2", "hyper", "opentelemetry", "reqwest", "rustls", "tonic", "tower"];
        assert!(!targets.iter().any(|it| senders.iter().any(|sender| it.starts_with(sender))), "{targets:?}");

        // Each metric of the page has the same name there.
        let metrics = received.metrics.last().unwrap();
        let sent: BTreeSet<_> = metrics.iter().map(|it| it.name.as_str()).collect();
        let shown =
            page.lines().filter(|it| !it.starts_with('#')).filter_map(|it| it.split(['{', ' ']).next());
        let shown = shown.map(|it| {
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|part| it.strip_suffix(part));
            of_histogram.unwrap_or(it)
        });
        // Nothing was observed of some histograms.
        let is_empty = |name: &str| page.contains(&format!("\n{name}_count 0\n"));
        let missing: Vec<_> = shown.filter(|it| !sent.contains(it) && !is_empty(it)).collect();
        assert!(missing.is_empty(), "{missing:?} of {sent:?}");

        let Some(metric::Data::Sum(ended)) = &find(metrics, "sqlflow_jobs_ended_total").data else {
            panic!()
        };
        assert!(ended.is_monotonic);
        assert_eq!(ended.aggregation_temporality(), AggregationTemporality::Cumulative);
        assert_eq!(value(find(metrics, "sqlflow_jobs_ended_total"), &[("state", "failed")]), Some(1.0));
        assert_eq!(value(find(metrics, "sqlflow_jobs_taken_total"), &[]), Some(1.0));
        assert_eq!(value(find(metrics, "sqlflow_jobs"), &[("state", "failed")]), Some(1.0));
        assert_eq!(find(metrics, "sqlflow_log_appended_bytes_total").unit, "By");
        let calls = find(metrics, "sqlflow_rpc_duration_seconds");
        let Some(metric::Data::Histogram(histogram)) = &calls.data else { panic!("{calls:?}") };
        let run = |it: &[_]| attribute(it, "method") == "Run" && attribute(it, "code") == "ok";
        let run = histogram.data_points.iter().find(|it| run(&it.attributes)).unwrap();
        assert_eq!((run.count, calls.unit.as_str()), (1, "s"));
        assert_eq!(run.explicit_bounds, bounds(&page, "sqlflow_rpc_duration_seconds"));

        // All of the server comes from one service.
        let of_server = received.resources.iter().map(|it| &it.attributes);
        let of_server = of_server.filter(|it| attribute(it, "service.name") == "sqlflow-server");
        let ids: BTreeSet<_> = of_server.map(|it| attribute(it, "service.instance.id")).collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_and_metrics_are_off_by_default() {
    let collector = Collector::default();
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path(), collector.grpc().await).start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run(FAILS).await.unwrap();
    client.follow(&token).await.unwrap();
    server.stop().unwrap();
    let received = collector.received();
    assert!(received.spans.iter().any(|it| it.name == "Run"));
    assert_eq!((received.lines.len(), received.metrics.len()), (0, 0));
}

/// A collector that accepts connections and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn unresponsive_collector_of_all_signals_does_not_fail_a_job() {
    let hole = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let server = setup(dir.path(), format!("http://{}", hole.local_addr().unwrap()))
        .env("OTEL_LOGS_EXPORTER", "otlp")
        .env("OTEL_METRICS_EXPORTER", "otlp")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "100")
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "300")
        .start()
        .unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SELECT 1;").await.unwrap();
    client.follow(&token).await.unwrap().expect_success();
    until("losses are counted", || {
        let page = get(&server.http, "/metrics").body;
        let counts = |name: &str| page.lines().any(|it| it.starts_with(name) && !it.ends_with(" 0"));
        counts("sqlflow_log_lines_lost_total ") && counts("sqlflow_metric_values_lost_total ")
    });
    server.stop().unwrap();
    let log = std::fs::read_to_string(dir.path().join("state/server.log")).unwrap();
    for lost in ["dropped log lines", "dropped values of metrics", "dropped spans"] {
        assert!(log.contains(lost), "{lost}: {log}");
    }
}

/// Like every malformed variable.
#[test]
fn unknown_exporter_or_missing_collector_is_one_clear_line() {
    for (variables, expected) in [
        (
            vec![("OTEL_LOGS_EXPORTER", "console")],
            "cannot use OTEL_LOGS_EXPORTER=\"console\": supported: otlp, none",
        ),
        (
            vec![("OTEL_METRICS_EXPORTER", "otlp")],
            "cannot use OTEL_METRICS_EXPORTER=\"otlp\": set OTEL_EXPORTER_OTLP_ENDPOINT, too",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let output = std::process::Command::new(sqlflow_tests::server::program("sqlflow-server"))
            .args(["--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0"])
            .arg(format!("--state-dir={}", dir.path().display()))
            .envs(variables)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.contains(expected), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}
