//! OTLP over HTTP/1.1.

use std::fmt::Write as _;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError};

use super::tls;
use crate::Collector;

/// The library's client, with the headers, and with causes in its errors.
#[derive(Debug)]
pub(super) struct Client {
    inner: HyperClient<HttpsConnector<HttpConnector>>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Client {
    pub(super) fn new(collector: &Collector) -> anyhow::Result<Self> {
        let config = tls::rustls_config(collector)?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        let inner = HyperClient::new(connector, collector.timeout, None);
        Ok(Self { inner, headers: collector.headers.clone() })
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        for (name, value) in &self.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        self.inner.send_bytes(request).await.map_err(with_causes)
    }
}

/// Adds the causes to an error's text, because the library prints errors without them.
fn with_causes(error: HttpError) -> HttpError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text.into()
}
