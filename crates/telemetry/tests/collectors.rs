//! What becomes of spans that a collector does not take. The collectors are fakes: a real one does not fail on demand.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod fakes;

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use sqlflow_telemetry::live::Pipeline;
use sqlflow_telemetry::{Batch, ExportError, Exporter, Settings, SpanData, TraceContext, span};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use fakes::{Variables, http, variables};

fn settings(endpoint: &str, more: Variables<'_>) -> Settings {
    Settings::from_variables(&variables(endpoint, more)).unwrap().unwrap()
}

fn exporter(endpoint: &str, more: Variables<'_>) -> Exporter {
    Exporter::new(settings(endpoint, more)).unwrap()
}

fn spans(count: usize) -> Vec<SpanData> {
    let context = |number: usize| TraceContext::named("trace").child(&number.to_string());
    (0..count).map(|number| span("work", context(number), None, (1, 2))).collect()
}

async fn export(exporter: &Exporter) -> Result<(), ExportError> {
    exporter.export(vec![Batch { service: "test", spans: spans(3), ..Batch::default() }]).await
}

fn partial_success() -> ExportTraceServiceResponse {
    let partial_success =
        ExportTracePartialSuccess { rejected_spans: 2, error_message: "too old".to_owned() };
    ExportTraceServiceResponse { partial_success: Some(partial_success) }
}

struct Collector {
    answers: Mutex<Vec<Result<ExportTraceServiceResponse, Status>>>,
    calls: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        assert_eq!(request.metadata().get("api-key").map(|it| it.to_str().unwrap()), Some("a b"));
        let mut answers = self.answers.lock().unwrap();
        if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() }.map(Response::new)
    }
}

/// A collector that speaks gRPC, and gives these answers, the last one for ever.
async fn grpc(answers: Vec<Result<ExportTraceServiceResponse, Status>>) -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let calls = Arc::new(AtomicUsize::new(0));
    let collector = Collector { answers: Mutex::new(answers), calls: Arc::clone(&calls) };
    let service = TraceServiceServer::new(collector);
    let served = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(served.serve_with_incoming(TcpListenerStream::new(listener)));
    (url, calls)
}

const HEADERS: (&str, &str) = ("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=a%20b");

#[tokio::test(flavor = "multi_thread")]
async fn refusal_is_not_retried_and_names_the_status() {
    let (url, heads) = http(vec![("401 Unauthorized", b"the key is secret".to_vec())]);
    let lost = export(&exporter(&url, &[HEADERS])).await.unwrap_err();
    assert_eq!((lost.spans, lost.reason.as_str()), (3, "the collector answered HTTP status 401"));
    assert!(heads.recv().unwrap().contains("api-key: a b\r\n"));
    assert!(heads.try_recv().is_err(), "it was tried again");

    let (url, calls) = grpc(vec![Err(Status::unauthenticated("the key is secret"))]).await;
    let lost = export(&exporter(&url, &[HEADERS])).await.unwrap_err();
    assert_eq!((lost.spans, lost.reason.as_str()), (3, "the collector answered gRPC status Unauthenticated"));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn throttled_export_is_retried_until_it_is_taken() {
    let ok = ("200 OK", Vec::new());
    let (url, heads) = http(vec![("429 Too Many Requests\r\nretry-after: 0", Vec::new()), ok]);
    export(&exporter(&url, &[])).await.unwrap();
    assert_eq!(heads.try_iter().count(), 2);

    let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(1)));
    let throttled = Status::with_error_details(Code::ResourceExhausted, "slower", details);
    let (url, calls) = grpc(vec![Err(throttled), Ok(ExportTraceServiceResponse::default())]).await;
    export(&exporter(&url, &[HEADERS])).await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_spans_of_a_partial_success_are_lost_and_counted() {
    let (url, _heads) = http(vec![("200 OK", partial_success().encode_to_vec())]);
    let (grpc_url, _calls) = grpc(vec![Ok(partial_success())]).await;
    for url in [url, grpc_url] {
        let lost = export(&exporter(&url, &[HEADERS])).await.unwrap_err();
        assert_eq!((lost.spans, lost.reason.as_str()), (2, "the collector rejected them: too old"), "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_collector_is_named_with_the_cause() {
    for path in ["", "/v1/traces"] {
        let url = format!("http://127.0.0.1:9{path}");
        let lost = export(&exporter(&url, &[])).await.unwrap_err();
        assert!(lost.reason.starts_with("cannot reach the collector: "), "{lost}");
        assert!(lost.reason.contains("Connection refused"), "{lost}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn collector_of_the_other_protocol_is_recognized() {
    let (url, _heads) = http(vec![("200 OK", Vec::new())]);
    let variables = [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let lost = export(&exporter(&url, &variables)).await.unwrap_err();
    assert!(lost.reason.contains("set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"), "{lost}");
}

/// It takes everything and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn silent_collector_costs_no_more_than_the_timeout() {
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    for path in ["", "/v1/traces"] {
        let url = format!("http://{}{path}", hole.local_addr().unwrap());
        let lost = export(&exporter(&url, &[("OTEL_EXPORTER_OTLP_TIMEOUT", "300")])).await.unwrap_err();
        assert_eq!(lost.spans, 3, "{lost}");
    }
}

/// The server must not end later because of a collector, and what waits is counted.
#[tokio::test(flavor = "multi_thread")]
async fn pipeline_ends_in_time_and_counts_what_waits() {
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", hole.local_addr().unwrap());
    let pipeline = Pipeline::start("test", settings(&url, &[("OTEL_BSP_MAX_QUEUE_SIZE", "10")])).unwrap();
    let lost = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lost);
    pipeline.count_losses(move |count| {
        counted.fetch_add(count, Ordering::SeqCst);
    });
    pipeline.take(spans(15));
    assert_eq!(lost.load(Ordering::SeqCst), 5, "there is room for ten");
    let ended = tokio::time::timeout(Duration::from_secs(60), pipeline.finish(Duration::from_millis(200)));
    ended.await.expect("it ends");
    assert_eq!(lost.load(Ordering::SeqCst), 15);
}

#[test]
fn unsampled_spans_are_not_sent() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let unsampled = TraceContext::named("trace").sampled(false);
        let batch =
            Batch { service: "test", spans: vec![span("work", unsampled, None, (1, 2))], ..Batch::default() };
        exporter("http://127.0.0.1:9", &[]).export(vec![batch]).await.unwrap();
    });
}
