//! OTLP over gRPC.

use std::sync::OnceLock;

use anyhow::Context as _;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::tls;
use crate::Collector;

/// A connection that is opened on first use, because opening it needs a Tokio runtime.
#[derive(Debug)]
pub(super) struct Connection {
    endpoint: Endpoint,
    channel: OnceLock<Channel>,
}

impl Connection {
    pub(super) fn new(collector: &Collector) -> anyhow::Result<Self> {
        let uri = collector.endpoint.clone();
        let mut endpoint = Endpoint::from(uri).timeout(collector.timeout).connect_timeout(collector.timeout);
        if collector.is_encrypted() {
            let config = tls::tonic_config(&collector.tls)?;
            endpoint = endpoint.tls_config(config).context("cannot use the collector's TLS settings")?;
        }
        Ok(Self { endpoint, channel: OnceLock::new() })
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.get_or_init(|| self.endpoint.connect_lazy()).clone()
    }
}

/// Sets the headers. They replace those that the library read from the process's environment.
pub(super) fn headers(collector: &Collector) -> impl Interceptor + Send + Sync + Clone + 'static {
    let mut headers = MetadataMap::new();
    for (name, value) in &collector.headers {
        let key = MetadataKey::from_bytes(name.as_str().as_bytes());
        if let (Ok(key), Ok(value)) = (key, MetadataValue::try_from(value.as_bytes())) {
            headers.insert(key, value);
        }
    }
    move |mut request: Request<()>| -> Result<Request<()>, Status> {
        for pair in headers.iter() {
            if let tonic::metadata::KeyAndValueRef::Ascii(key, value) = pair {
                request.metadata_mut().insert(key.clone(), value.clone());
            }
        }
        Ok(request)
    }
}
