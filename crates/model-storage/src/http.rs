//! The HTTP client of storages.

use std::io::{self, Read};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use opendal::layers::{RetryEvent, RetryLayer, TimeoutLayer};
use opendal::{HttpTransporter, Operator};
use opendal_http_transport_reqwest::ReqwestTransport;
use reqwest::Certificate;
use tokio_stream::{Stream, StreamExt as _};

use crate::cache::{Fingerprint, TRAILER};

use super::REPLACED;
use super::retry::Waiting;

const CONNECT: Duration = Duration::from_secs(10);
/// A part of a large file must be through in this time.
const ANSWER: Duration = Duration::from_secs(120);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const TRIES: usize = 3;

/// Where distributions keep the certificates that they trust.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A client that trusts what `SSL_CERT_FILE` holds; without it what the system trusts; in an image with nothing else in
/// it what Mozilla trusts.
pub(super) fn client() -> io::Result<reqwest::Client> {
    // The second time is an error that means nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().connect_timeout(CONNECT).tls_certs_only(trusted()?);
    builder.build().map_err(io::Error::other)
}

fn trusted() -> io::Result<Vec<Certificate>> {
    if let Some(path) = std::env::var_os("SSL_CERT_FILE") {
        let named = |error: String| io::Error::other(format!("SSL_CERT_FILE {}: {error}", path.display()));
        let bundle = std::fs::read(&path).map_err(|error| named(error.to_string()))?;
        return Certificate::from_pem_bundle(&bundle).map_err(|error| named(error.to_string()));
    }
    let system =
        BUNDLES.iter().find_map(|path| Certificate::from_pem_bundle(&std::fs::read(path).ok()?).ok());
    if let Some(certificates) = system.filter(|it| !it.is_empty()) {
        return Ok(certificates);
    }
    webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .map(|certificate| Certificate::from_der(certificate).map_err(io::Error::other))
        .collect()
}

pub(super) fn transporter(client: reqwest::Client) -> HttpTransporter {
    HttpTransporter::new(ReqwestTransport::new(client))
}

/// With our client.
pub(super) fn timed(operator: Operator) -> io::Result<Operator> {
    let context = operator.context().with_http_transport(transporter(client()?));
    let timeout = TimeoutLayer::default().with_timeout(ANSWER).with_io_timeout(ANSWER);
    Ok(operator.with_context(context).layer(timeout))
}

/// And a few tries of its own, which take up in the middle of a file what broke there. A writer of it cannot be aborted any
/// more once what was asked of it was given up.
pub(super) fn retried(operator: Operator) -> Operator {
    let retry = RetryLayer::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_times(TRIES)
        .with_notify(|event: RetryEvent<'_>| tracing::debug!(error = one_line(event.err), "trying again"));
    operator.layer(retry)
}

/// See [`super::ModelStore::fingerprint`].
pub(super) async fn fingerprint(operator: &Operator, path: &str) -> io::Result<Option<Fingerprint>> {
    let found = operator.stat(path).await.map_err(io_error)?;
    let length = found.content_length();
    let tag = found.etag().map(str::to_owned).or_else(|| found.last_modified().map(|time| time.to_string()));
    let (Some(tag), Some(start)) = (tag, length.checked_sub(TRAILER as u64)) else { return Ok(None) };
    let last = operator.read_with(path).range(start..length).await.map_err(io_error)?;
    let trailer = last.to_vec().try_into().ok();
    Ok(trailer.map(|trailer| Fingerprint { tag, length, trailer }))
}

/// A file that is being read, for a thread that may block.
pub(super) struct Reading {
    stream: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    piece: Bytes,
    waiting: Waiting,
}

impl Reading {
    pub(super) fn new(
        stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        waiting: Waiting,
    ) -> Self {
        Self { stream: Box::pin(stream), piece: Bytes::new(), waiting }
    }
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let stream = &mut self.stream;
            let next = self.waiting.wait(async { stream.next().await.transpose().map_err(told) })?;
            match next {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.piece.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

/// The error of a stream of OpenDAL's has the real one within.
fn told(error: io::Error) -> io::Error {
    match error.downcast::<opendal::Error>() {
        Ok(within) => io_error(within),
        Err(other) => other,
    }
}

/// OpenDAL's words for more bytes than the file had when reading began, for fewer, and for either.
const OTHER_LENGTH: &str = "reader got ";
/// In Hadoop's message about an offset behind a file's end.
const SEEK_BEHIND_END: &str = "Cannot seek after EOF";

/// What OpenDAL says, without its contexts, which hold headers and addresses.
pub(super) fn io_error(error: opendal::Error) -> io::Error {
    let kind = match error.kind() {
        opendal::ErrorKind::NotFound => io::ErrorKind::NotFound,
        // A read that goes on after its connection broke, in a file that is shorter than the one in which it began.
        opendal::ErrorKind::RangeNotSatisfied => REPLACED,
        // So WebHDFS says the same, with status 403.
        opendal::ErrorKind::PermissionDenied if error.message().contains(SEEK_BEHIND_END) => REPLACED,
        opendal::ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        opendal::ErrorKind::ConditionNotMatch => REPLACED,
        // Where no condition can be asked for, another length is all there is to see.
        opendal::ErrorKind::Unexpected if error.message().starts_with(OTHER_LENGTH) => REPLACED,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, one_line(&error))
}

fn one_line(error: &opendal::Error) -> String {
    let text = format!("{}: {}", error.kind(), plain(error.message()));
    text.lines().next().unwrap_or_default().to_owned()
}

/// `S3Error { code: "SlowDown", message: "Please …", … }` → `SlowDown: Please …`; anything else as it is.
fn plain(message: &str) -> String {
    let quoted = |name: &str| {
        let (_, rest) = message.split_once(&format!("{name}: \""))?;
        Some(rest.split_once('"')?.0).filter(|it| !it.is_empty())
    };
    match (quoted("code"), quoted("message")) {
        (Some(code), Some(text)) => format!("{code}: {text}"),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model that was replaced is read anew; one that may not be read fails.
    #[test]
    fn another_length_is_a_file_that_was_replaced() {
        let denied = |what: &str| {
            let error = opendal::Error::new(opendal::ErrorKind::PermissionDenied, what.to_owned());
            io_error(error).kind()
        };
        let seek = r#"WebHdfsError { exception: "EOFException", message: "Cannot seek after EOF", java_class_name: "" }"#;
        assert_eq!(denied(seek), REPLACED);
        assert_eq!(denied("AccessControlException"), io::ErrorKind::PermissionDenied);
        let unexpected =
            |what: &'static str| io_error(opendal::Error::new(opendal::ErrorKind::Unexpected, what)).kind();
        for what in
            ["reader got too little data", "reader got too much data", "reader got unexpected data size"]
        {
            assert_eq!(unexpected(what), REPLACED);
        }
        assert_eq!(unexpected("http response got too little data"), io::ErrorKind::Other);
    }

    #[test]
    fn what_a_store_says_is_a_sentence() {
        let said =
            r#"S3Error { code: "SlowDown", message: "Please wait.", resource: "/b/m", request_id: "1" }"#;
        assert_eq!(plain(said), "SlowDown: Please wait.");
        assert_eq!(plain("send http request"), "send http request");
        assert_eq!(plain(r#"code: "#), r#"code: "#);
    }
}
