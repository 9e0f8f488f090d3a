//! Connection to a collector, for the SDK's exporter of any signal.

use std::sync::Arc;

use opentelemetry_otlp::{Compression, Protocol as Wire, RetryPolicy};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use tracing::instrument::WithSubscriber as _;

use super::observer::Observer;
use super::{grpc, http};
use crate::collector::{Collector, Protocol};

/// What the collector did not accept.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) count: usize,
    pub(crate) reason: String,
}

/// Connection to a collector.
#[derive(Debug)]
pub(crate) struct Connection {
    collector: Collector,
    transport: Transport,
    observer: Observer,
}

#[derive(Debug)]
enum Transport {
    Grpc(Box<grpc::Connection>),
    Http(Arc<http::Client>),
}

impl Connection {
    /// Reads the files of the settings. Does not connect.
    pub(crate) fn new(collector: Collector) -> anyhow::Result<Self> {
        let transport = match collector.protocol {
            Protocol::Grpc => Transport::Grpc(Box::new(grpc::Connection::new(&collector)?)),
            Protocol::Http => Transport::Http(Arc::new(http::Client::new(&collector)?)),
        };
        Ok(Self { collector, transport, observer: Observer::new() })
    }

    /// The SDK's exporter, from its builder for either transport.
    pub(crate) fn exporter<G: WithExportConfig + WithTonicConfig, H: WithExportConfig + WithHttpConfig, E>(
        &self,
        for_grpc: impl FnOnce() -> G,
        build_grpc: impl FnOnce(G) -> E,
        for_http: impl FnOnce() -> H,
        build_http: impl FnOnce(H) -> E,
    ) -> E {
        let collector = &self.collector;
        match &self.transport {
            Transport::Grpc(connection) => {
                let builder = for_grpc()
                    .with_channel(connection.channel())
                    .with_interceptor(grpc::headers(collector))
                    .with_timeout(collector.timeout);
                let builder = WithTonicConfig::with_retry_policy(builder, RetryPolicy::recommended());
                let compressed = |it| WithTonicConfig::with_compression(it, Compression::Gzip);
                build_grpc(if collector.gzip { compressed(builder) } else { builder })
            }
            Transport::Http(client) => {
                let builder = for_http()
                    .with_protocol(Wire::HttpBinary)
                    .with_endpoint(collector.endpoint.to_string())
                    .with_shared_http_client(Arc::<http::Client>::clone(client))
                    .with_timeout(collector.timeout);
                let builder = WithHttpConfig::with_retry_policy(builder, RetryPolicy::recommended());
                let compressed = |it| WithHttpConfig::with_compression(it, Compression::Gzip);
                build_http(if collector.gzip { compressed(builder) } else { builder })
            }
        }
    }

    /// Waits for an export of this number of items. Must not be called concurrently: the reason of a failure could be that of
    /// the other export.
    pub(crate) async fn wait(
        &self,
        count: usize,
        export: impl Future<Output = OTelSdkResult>,
    ) -> Result<(), Lost> {
        self.observer.clear();
        let export = export.with_subscriber(self.observer.dispatch());
        let Ok(exported) = tokio::time::timeout(self.collector.timeout, export).await else {
            return Err(Lost {
                count,
                reason: "no response from the collector within the timeout".to_owned(),
            });
        };
        match (exported, self.observer.rejected()) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(rejected)) => Err(rejected),
            (Err(error), _) => Err(Lost { count, reason: reason(&error, self.observer.cause()) }),
        }
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
