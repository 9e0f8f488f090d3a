//! Export of spans to a collector, by the SDK's OTLP exporter.

mod grpc;
mod http;
mod observer;
mod tls;

use std::sync::{Arc, Mutex};

use opentelemetry::InstrumentationScope;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{Compression, ExporterBuildError, Protocol as Wire, RetryPolicy};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use sqlflow_sync::lock;
use tracing::instrument::WithSubscriber as _;

use crate::batch::{Batch, ExportError};
use crate::resource;
use crate::settings::{Protocol, Settings};

use observer::Observer;

/// Sends spans to a collector, over one connection. Clones share it.
#[derive(Debug, Clone)]
pub struct Exporter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    transport: Transport,
    /// Attributes of this process.
    process: Vec<KeyValue>,
    /// The SDK's exporter of each service.
    services: Mutex<Vec<(&'static str, Arc<SpanExporter>)>>,
    observer: Observer,
}

#[derive(Debug)]
enum Transport {
    Grpc(Box<grpc::Connection>),
    Http(Arc<http::Client>),
}

impl Exporter {
    /// Creates an exporter. Its resource has the attributes of this process.
    ///
    /// # Errors
    /// A certificate, a key or the endpoint cannot be used. The message names the variable.
    pub fn new(settings: Settings) -> anyhow::Result<Self> {
        let transport = match settings.protocol {
            Protocol::Grpc => Transport::Grpc(Box::new(grpc::Connection::new(&settings)?)),
            Protocol::Http => Transport::Http(Arc::new(http::Client::new(&settings)?)),
        };
        let (process, services, observer) = (resource::process(), Mutex::default(), Observer::new());
        Ok(Self(Arc::new(Shared { settings, transport, process, services, observer })))
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Sends the sampled spans, and waits for the response. Must not be called concurrently, also not on clones: the reason of
    /// a failure could be that of the other call.
    ///
    /// # Errors
    /// The number of spans that the collector did not accept, and the reason.
    pub async fn export(&self, batches: Vec<Batch>) -> Result<(), ExportError> {
        let limits = &self.0.settings.limits;
        let kept = batches.into_iter().map(|batch| {
            let kept = batch.spans.into_iter().filter(|it| it.span_context.is_sampled());
            let spans = kept.map(|it| limits.apply(scoped(it, batch.service))).collect();
            Batch { spans, ..batch }
        });
        let all: Vec<_> = kept.filter(|it| !it.spans.is_empty()).collect();
        let mut waiting: usize = all.iter().map(|it| it.spans.len()).sum();
        let mut lost = None;
        let exported = async {
            for batch in all {
                let count = batch.spans.len();
                if let Err(error) = self.export_one(batch).await {
                    lost = Some(join(lost.take(), error));
                }
                waiting -= count;
            }
        };
        if tokio::time::timeout(self.0.settings.timeout, exported).await.is_err() {
            let reason = "no response from the collector within the timeout".to_owned();
            lost = Some(join(lost, ExportError { spans: waiting, reason }));
        }
        lost.map_or(Ok(()), Err)
    }

    async fn export_one(&self, batch: Batch) -> Result<(), ExportError> {
        let count = batch.spans.len();
        let lost = |reason: String| ExportError { spans: count, reason };
        let exporter =
            self.of_service(batch.service, batch.process).map_err(|error| lost(error.to_string()))?;
        let observer = &self.0.observer;
        observer.clear();
        let exported = exporter.export(batch.spans).with_subscriber(observer.dispatch()).await;
        match (exported, observer.rejected()) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(rejected)) => Err(rejected),
            (Err(error), _) => Err(lost(reason(&error, observer.cause()))),
        }
    }

    fn of_service(
        &self,
        service: &'static str,
        process: Vec<KeyValue>,
    ) -> Result<Arc<SpanExporter>, ExporterBuildError> {
        let mut all = lock(&self.0.services);
        if let Some((_, known)) = all.iter().find(|(name, _)| *name == service) {
            return Ok(Arc::clone(known));
        }
        let mut new = self.0.build()?;
        new.set_resource(&self.0.resource(service, process));
        let new = Arc::new(new);
        all.push((service, Arc::clone(&new)));
        Ok(new)
    }
}

impl Shared {
    fn build(&self) -> Result<SpanExporter, ExporterBuildError> {
        let settings = &self.settings;
        match &self.transport {
            Transport::Grpc(connection) => {
                let builder = SpanExporter::builder()
                    .with_tonic()
                    .with_channel(connection.channel())
                    .with_interceptor(grpc::headers(settings))
                    .with_retry_policy(RetryPolicy::recommended())
                    .with_timeout(settings.timeout);
                if settings.gzip { builder.with_compression(Compression::Gzip) } else { builder }.build()
            }
            Transport::Http(client) => {
                let builder = SpanExporter::builder()
                    .with_http()
                    .with_protocol(Wire::HttpBinary)
                    .with_endpoint(settings.endpoint.to_string())
                    .with_shared_http_client(Arc::<http::Client>::clone(client))
                    .with_retry_policy(RetryPolicy::recommended())
                    .with_timeout(settings.timeout);
                if settings.gzip { builder.with_compression(Compression::Gzip) } else { builder }.build()
            }
        }
    }

    /// Resource of a service. Attributes from variables override detected ones.
    fn resource(&self, service: &'static str, process: Vec<KeyValue>) -> Resource {
        let name = self.settings.service.clone().unwrap_or_else(|| service.to_owned());
        Resource::builder_empty()
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attributes(self.process.iter().cloned())
            .with_attributes(process)
            .with_attributes(self.settings.resource.iter().cloned())
            .with_service_name(name)
            .build()
    }
}

/// Reason of a failure, for an operator: the status of the response, or the cause of a failed connection. The library has
/// both only in the text of its error and in its log events. Nothing is decided by these words.
fn reason(error: &OTelSdkError, cause: Option<String>) -> String {
    let text = match error {
        OTelSdkError::InternalFailure(text) => text.clone(),
        other => other.to_string(),
    };
    let code = text.split_once("gRPC code: ").map(|(_, rest)| rest);
    let (code, cause) = match (code.map(|it| it.split_once(": ").unwrap_or((it, ""))), cause) {
        (Some((code, "")), _) => (format!("gRPC status {code}"), None),
        (Some((code, cause)), _) => (code.to_owned(), Some(cause.to_owned())),
        (None, cause) => (text.replace("HTTP export failed with status code: ", "HTTP status "), cause),
    };
    match cause {
        // A server of HTTP/1.1 answers with something that is not HTTP/2, or closes the connection.
        Some(it) if it.contains("http2 error") || it.contains("connection error") => format!(
            "cannot reach the collector: {it}; if it does not support OTLP over gRPC, set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
        ),
        Some(it) => format!("cannot reach the collector: {it}"),
        None => format!("the collector answered {code}"),
    }
}

fn scoped(mut span: SpanData, service: &'static str) -> SpanData {
    if span.instrumentation_scope.name().is_empty() {
        let scope = InstrumentationScope::builder(service).with_version(env!("CARGO_PKG_VERSION"));
        span.instrumentation_scope = scope.build();
    }
    span
}

fn join(first: Option<ExportError>, second: ExportError) -> ExportError {
    match first {
        Some(first) => ExportError { spans: first.spans + second.spans, ..second },
        None => second,
    }
}
