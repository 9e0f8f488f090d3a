//! What becomes of log lines and values of metrics that a collector does not take. The collectors are fakes.
//! `tests/observe/exported.rs` has what arrives.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod fakes;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use sqlflow_telemetry::logs::Logs;
use sqlflow_telemetry::metrics::{Metrics, Running};
use sqlflow_telemetry::{LogSettings, MetricSettings};
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;

use fakes::{Variables, http, variables};

const END: Duration = Duration::from_millis(200);
/// For what must not wait.
const LIMIT: Duration = Duration::from_secs(60);

fn on(endpoint: &str, more: Variables<'_>) -> impl Fn(&str) -> Option<String> {
    let get = variables(endpoint, more);
    move |name: &str| match name {
        "OTEL_LOGS_EXPORTER" | "OTEL_METRICS_EXPORTER" => Some("otlp".to_owned()),
        name => get(name),
    }
}

/// A count of losses.
fn counter() -> (Arc<AtomicUsize>, impl Fn(usize) + Send + Sync + 'static) {
    let lost = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lost);
    (lost, move |count| {
        counted.fetch_add(count, Ordering::SeqCst);
    })
}

fn logs(endpoint: &str, more: Variables<'_>) -> (Logs, Arc<AtomicUsize>) {
    let logs =
        Logs::start("test", LogSettings::from_variables(&on(endpoint, more)).unwrap().unwrap()).unwrap();
    let (lost, count) = counter();
    logs.count_losses(count);
    (logs, lost)
}

/// Runs `work`, whose lines go to the collector.
fn log(logs: &Logs, work: impl FnOnce()) {
    let layer = logs.layer(LevelFilter::DEBUG, &["job"]);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
}

struct LineCollector(mpsc::UnboundedSender<LogRecord>);

#[tonic::async_trait]
impl LogsService for LineCollector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let resources = request.into_inner().resource_logs.into_iter();
        for line in resources.flat_map(|it| it.scope_logs).flat_map(|it| it.log_records) {
            let _ = self.0.send(line);
        }
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn line_has_the_trace_context_of_the_nearest_span_that_names_one() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, mut lines) = mpsc::unbounded_channel();
    let service = LogsServiceServer::new(LineCollector(sender));
    let served = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(served.serve_with_incoming(TcpListenerStream::new(listener)));
    let (logs, lost) = logs(&url, &[]);
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    log(&logs, || {
        let job = tracing::info_span!(
            "job",
            job = "j1",
            trace_id = tracing::field::Empty,
            span_id = span,
            trace_flags = "01"
        );
        job.record("trace_id", trace);
        let _job = job.enter();
        let _inner = tracing::info_span!("inner").entered();
        tracing::warn!(cause = "disk", "in the job");
        tracing::info!(target: "h2::client", "of the transport");
        tracing::info!(target: "opentelemetry-otlp", "of the library");
        tracing::info!(parent: None, "outside");
    });
    logs.finish(LIMIT).await;
    assert_eq!(lost.load(Ordering::SeqCst), 0);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let line = lines.recv().await.unwrap();
    assert_eq!((hex(&line.trace_id).as_str(), hex(&line.span_id).as_str(), line.flags), (trace, span, 1));
    let names: Vec<_> = line.attributes.iter().map(|it| it.key.as_str()).collect();
    assert_eq!((names, line.severity_text.as_str()), (vec!["job", "cause"], "WARN"));
    let outside = lines.recv().await.unwrap();
    assert!(outside.trace_id.is_empty() && outside.attributes.is_empty(), "{outside:?}");
    lines.try_recv().expect_err("those of the transport are left out");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_end_in_time_and_count_what_waits() {
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", hole.local_addr().unwrap());
    let (logs, lost) = logs(&url, &[("OTEL_BLRP_MAX_QUEUE_SIZE", "10")]);
    log(&logs, || (0..15).for_each(|number| tracing::info!(number, "line")));
    assert_eq!(lost.load(Ordering::SeqCst), 5, "there is room for ten");
    tokio::time::timeout(LIMIT, logs.finish(END)).await.expect("it ends");
    assert_eq!(lost.load(Ordering::SeqCst), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_lines_are_lost_and_counted() {
    let partial = ExportLogsPartialSuccess { rejected_log_records: 2, error_message: "too old".to_owned() };
    let answer = ExportLogsServiceResponse { partial_success: Some(partial) };
    let (url, _heads) = http(vec![("200 OK", answer.encode_to_vec())]);
    let (logs, lost) = logs(&url, &[]);
    log(&logs, || (0..3).for_each(|number| tracing::info!(number, "line")));
    logs.finish(LIMIT).await;
    assert_eq!(lost.load(Ordering::SeqCst), 2);
}

/// Metrics with one counter and one gauge, which are sent at the end.
fn metrics(endpoint: &str) -> (Running, Arc<AtomicUsize>) {
    // Any number is an interval.
    let interval = [("OTEL_METRIC_EXPORT_INTERVAL", "18446744073709551615")];
    let settings = MetricSettings::from_variables(&on(endpoint, &interval)).unwrap().unwrap();
    let metrics = Metrics::new("test", settings).unwrap();
    let (lost, count) = counter();
    metrics.count_losses(count);
    let meter = metrics.meter().clone();
    let _counter = meter.u64_observable_counter("jobs").with_callback(|it| it.observe(1, &[])).build();
    // It appears later.
    let prepare = move || {
        let _gauge = meter.f64_observable_gauge("age").with_callback(|it| it.observe(0.5, &[])).build();
    };
    (metrics.start(prepare), lost)
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_and_undelivered_values_are_lost_and_counted() {
    let partial =
        ExportMetricsPartialSuccess { rejected_data_points: 1, error_message: "too old".to_owned() };
    let answer = ExportMetricsServiceResponse { partial_success: Some(partial) };
    let (url, heads) = http(vec![("200 OK", answer.encode_to_vec())]);
    let (running, lost) = metrics(&url);
    running.finish(LIMIT).await;
    assert!(heads.try_recv().unwrap().starts_with("POST /v1/metrics "));
    assert_eq!(lost.load(Ordering::SeqCst), 1);

    let (running, lost) = metrics("http://127.0.0.1:9");
    running.finish(LIMIT).await;
    assert_eq!(lost.load(Ordering::SeqCst), 2);

    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let (running, lost) = metrics(&format!("http://{}", hole.local_addr().unwrap()));
    tokio::time::timeout(LIMIT, running.finish(END)).await.expect("it ends");
    assert_eq!(lost.load(Ordering::SeqCst), 2);
}

/// Each signal may have a collector of its own.
#[test]
fn signal_is_off_by_default_and_its_own_variables_win() {
    let of = |more: Variables<'_>| {
        LogSettings::from_variables(&variables("http://host:4318/v1/traces", more)).unwrap()
    };
    assert!(of(&[]).is_none());
    assert!(of(&[("OTEL_LOGS_EXPORTER", "none")]).is_none());
    assert!(of(&[("OTEL_LOGS_EXPORTER", "otlp"), ("OTEL_SDK_DISABLED", "true")]).is_none());
    let all = of(&[("OTEL_LOGS_EXPORTER", "otlp")]).unwrap().collector;
    assert_eq!(all.endpoint.to_string(), "http://host:4318/v1/logs");
    let own = of(&[
        ("OTEL_LOGS_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://other:4318/mine"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
        ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "b=2"),
        ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "gzip"),
        ("OTEL_BLRP_EXPORT_TIMEOUT", "7"),
    ]);
    let own = own.unwrap().collector;
    assert_eq!((own.endpoint.to_string().as_str(), own.gzip), ("http://other:4318/mine", true));
    assert_eq!(own.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b"]);
    // One timeout, the shorter one.
    assert_eq!(own.timeout, Duration::from_millis(7));
}
