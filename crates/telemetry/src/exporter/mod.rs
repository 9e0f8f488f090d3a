//! Export of spans to a collector, by the SDK's OTLP exporter.

mod connection;
mod grpc;
mod http;
mod observer;
mod tls;

use std::sync::{Arc, Mutex};

use opentelemetry::InstrumentationScope;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use sqlflow_sync::lock;

use crate::batch::{Batch, ExportError};
use crate::resource;
use crate::settings::Settings;

pub(crate) use connection::{Connection, Lost};

/// Sends spans to a collector, over one connection. Clones share it.
#[derive(Debug, Clone)]
pub struct Exporter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    connection: Connection,
    /// The SDK's exporter of each service.
    services: Mutex<Vec<(&'static str, Arc<SpanExporter>)>>,
}

impl Exporter {
    /// Creates an exporter. Its resource has the attributes of this process.
    ///
    /// # Errors
    /// A certificate, a key or the endpoint cannot be used. The message names the variable.
    pub fn new(settings: Settings) -> anyhow::Result<Self> {
        let connection = Connection::new(settings.collector.clone())?;
        Ok(Self(Arc::new(Shared { settings, connection, services: Mutex::default() })))
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
        if tokio::time::timeout(self.0.settings.collector.timeout, exported).await.is_err() {
            let reason = "no response from the collector within the timeout".to_owned();
            lost = Some(join(lost, ExportError { spans: waiting, reason }));
        }
        lost.map_or(Ok(()), Err)
    }

    async fn export_one(&self, batch: Batch) -> Result<(), ExportError> {
        let count = batch.spans.len();
        let exporter = self
            .of_service(batch.service, batch.process)
            .map_err(|error| ExportError { spans: count, reason: error.to_string() })?;
        self.0.connection.wait(count, exporter.export(batch.spans)).await.map_err(ExportError::from)
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
        let mut new = self.0.connection.exporter(
            || SpanExporter::builder().with_tonic(),
            |it| it.build(),
            || SpanExporter::builder().with_http(),
            |it| it.build(),
        )?;
        new.set_resource(&resource::of_service(service, process, &self.0.settings.identity));
        let new = Arc::new(new);
        all.push((service, Arc::clone(&new)));
        Ok(new)
    }
}

impl From<Lost> for ExportError {
    fn from(lost: Lost) -> Self {
        Self { spans: lost.count, reason: lost.reason }
    }
}

#[cfg(feature = "live")]
impl From<ExportError> for Lost {
    fn from(error: ExportError) -> Self {
        Self { count: error.spans, reason: error.reason }
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
