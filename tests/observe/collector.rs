//! A collector that keeps what it receives. It is a fake, on the generated services of the protocol: Jaeger takes spans only.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// What a collector has received.
#[derive(Debug, Default)]
pub struct Received {
    pub spans: Vec<Span>,
    /// Log lines with their targets.
    pub lines: Vec<(String, LogRecord)>,
    /// The requests with metrics.
    pub metrics: Vec<Vec<Metric>>,
    /// Of each request.
    pub resources: Vec<Resource>,
}

/// A collector.
#[derive(Debug, Clone, Default)]
pub struct Collector(Arc<Mutex<Received>>);

impl Collector {
    /// Serves gRPC. Returns its URL.
    pub async fn grpc(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(self.clone()))
            .add_service(LogsServiceServer::new(self.clone()))
            .add_service(MetricsServiceServer::new(self.clone()));
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        url
    }

    /// Serves HTTP/1.1. Returns its URL.
    pub fn http(&self) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let collector = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let collector = collector.clone();
                std::thread::spawn(move || collector.serve(stream.unwrap()));
            }
        });
        url
    }

    /// What it has received until now.
    pub fn received(&self) -> std::sync::MutexGuard<'_, Received> {
        self.0.lock().unwrap()
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).unwrap_or(0) == 0 {
                    return;
                }
            }
            let lower = head.to_lowercase();
            let length = lower.lines().find_map(|it| it.strip_prefix("content-length: ")).unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            match head.split(' ').nth(1).unwrap() {
                "/v1/traces" => self.take_spans(ExportTraceServiceRequest::decode(&*body).unwrap()),
                "/v1/logs" => self.take_lines(ExportLogsServiceRequest::decode(&*body).unwrap()),
                "/v1/metrics" => self.take_metrics(ExportMetricsServiceRequest::decode(&*body).unwrap()),
                other => panic!("a request for {other}"),
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    }

    fn take_spans(&self, request: ExportTraceServiceRequest) {
        let mut received = self.received();
        for of_resource in request.resource_spans {
            received.resources.extend(of_resource.resource);
            received.spans.extend(of_resource.scope_spans.into_iter().flat_map(|it| it.spans));
        }
    }

    fn take_lines(&self, request: ExportLogsServiceRequest) {
        let mut received = self.received();
        for of_resource in request.resource_logs {
            received.resources.extend(of_resource.resource);
            for of_target in of_resource.scope_logs {
                let target = of_target.scope.map(|it| it.name).unwrap_or_default();
                received.lines.extend(of_target.log_records.into_iter().map(|it| (target.clone(), it)));
            }
        }
    }

    fn take_metrics(&self, request: ExportMetricsServiceRequest) {
        let mut received = self.received();
        for of_resource in request.resource_metrics {
            received.resources.extend(of_resource.resource);
            let metrics = of_resource.scope_metrics.into_iter().flat_map(|it| it.metrics).collect();
            received.metrics.push(metrics);
        }
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take_spans(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.take_lines(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.take_metrics(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

/// The text of a value.
pub fn text(value: Option<&AnyValue>) -> &str {
    match value.and_then(|it| it.value.as_ref()) {
        Some(any_value::Value::StringValue(it)) => it,
        _ => "",
    }
}

/// The text of this attribute.
pub fn attribute<'a>(all: &'a [KeyValue], key: &str) -> &'a str {
    text(all.iter().find(|it| it.key == key).and_then(|it| it.value.as_ref()))
}

/// Value of a counter or a gauge with these attributes.
pub fn value(metric: &Metric, attributes: &[(&str, &str)]) -> Option<f64> {
    let points = match metric.data.as_ref()? {
        metric::Data::Sum(it) => &it.data_points,
        metric::Data::Gauge(it) => &it.data_points,
        _ => return None,
    };
    let is_it = |all: &[KeyValue]| attributes.iter().all(|(key, value)| attribute(all, key) == *value);
    match points.iter().find(|it| is_it(&it.attributes))?.value? {
        number_data_point::Value::AsDouble(it) => Some(it),
        number_data_point::Value::AsInt(it) => Some(it as f64),
    }
}
