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
use super::retry::Calls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for one part of a large file.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_RETRIES: usize = 3;

/// A client that trusts the certificates in `SSL_CERT_FILE`, or those of the system, or Mozilla's in an image that has
/// none.
pub(super) fn client() -> io::Result<reqwest::Client> {
    sqlflow_tls::install_provider();
    let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).tls_certs_only(trusted()?);
    builder.build().map_err(io::Error::other)
}

fn trusted() -> io::Result<Vec<Certificate>> {
    let certificates = sqlflow_tls::trusted_certificates()?;
    certificates.iter().map(|it| Certificate::from_der(it).map_err(io::Error::other)).collect()
}

pub(super) fn transporter(client: reqwest::Client) -> HttpTransporter {
    HttpTransporter::new(ReqwestTransport::new(client))
}

/// Sets the HTTP client and the timeouts.
pub(super) fn timed(operator: Operator) -> io::Result<Operator> {
    let context = operator.context().with_http_transport(transporter(client()?));
    let timeout = TimeoutLayer::default().with_timeout(RESPONSE_TIMEOUT).with_io_timeout(RESPONSE_TIMEOUT);
    Ok(operator.with_context(context).layer(timeout))
}

/// Adds a few retries, which resume a read in the middle of a file. A writer under this layer cannot be aborted after a
/// call of it was dropped.
pub(super) fn retried(operator: Operator) -> Operator {
    let retry = RetryLayer::default()
        .with_min_delay(FIRST_BACKOFF)
        .with_max_times(MAX_RETRIES)
        .with_notify(|event: RetryEvent<'_>| tracing::debug!(error = one_line(event.err), "retrying"));
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

/// Reads a stream on a thread that may block.
pub(super) struct Reading {
    stream: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    piece: Bytes,
    calls: Calls,
}

impl Reading {
    pub(super) fn new(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static, calls: Calls) -> Self {
        Self { stream: Box::pin(stream), piece: Bytes::new(), calls }
    }
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let stream = &mut self.stream;
            let next = self.calls.wait(async { stream.next().await.transpose().map_err(stream_error) })?;
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

/// Unwraps the error of a stream of OpenDAL.
fn stream_error(error: io::Error) -> io::Error {
    match error.downcast::<opendal::Error>() {
        Ok(within) => io_error(within),
        Err(other) => other,
    }
}

/// OpenDAL's message for more bytes than the file had when reading began, for fewer, and for either. It has no code.
const OTHER_LENGTH: &str = "reader got ";

/// An error of a storage: the code by which to classify it, and a line for people.
#[derive(Debug, thiserror::Error)]
#[error("{line}")]
pub(super) struct StorageError {
    code: Option<String>,
    line: String,
}

/// The error code of a storage, such as `NoSuchUpload`.
#[cfg_attr(not(any(feature = "objects", test)), expect(dead_code, reason = "object stores classify by it"))]
pub(super) fn code(error: &io::Error) -> Option<&str> {
    error.get_ref()?.downcast_ref::<StorageError>()?.code.as_deref()
}

/// OpenDAL's error without its contexts, which contain headers and addresses.
pub(super) fn io_error(error: opendal::Error) -> io::Error {
    let code = code_in(error.message());
    let kind = match error.kind() {
        opendal::ErrorKind::NotFound => io::ErrorKind::NotFound,
        // A read goes on after its connection broke, in a file that is shorter than the one in which it began.
        opendal::ErrorKind::RangeNotSatisfied => REPLACED,
        // WebHDFS reports the same with status 403.
        opendal::ErrorKind::PermissionDenied if code == Some("EOFException") => REPLACED,
        opendal::ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        opendal::ErrorKind::ConditionNotMatch => REPLACED,
        // Without conditional reads, another length is the only sign.
        opendal::ErrorKind::Unexpected if error.message().starts_with(OTHER_LENGTH) => REPLACED,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, StorageError { code: code.map(str::to_owned), line: one_line(&error) })
}

/// The storage's own code in a message of OpenDAL, which shows the decoded response (`S3Error { code: "SlowDown", …`,
/// `GcsErrorResponse { error: GcsError { code: 404, …`, `WebHdfsError { exception: "EOFException", …`), or the XML that
/// it did not decode.
fn code_in(message: &str) -> Option<&str> {
    if message.starts_with('<') {
        return Some(message.split_once("<Code>")?.1.split_once("</Code>")?.0);
    }
    let (name, fields) = message.split_once(" { ")?;
    if !name.chars().all(|it| it.is_ascii_alphanumeric()) {
        return None;
    }
    let fields = fields.strip_prefix("error: GcsError { ").unwrap_or(fields);
    let value = fields.strip_prefix("code: ").or_else(|| fields.strip_prefix("exception: "))?;
    let value = value.split([',', ' ']).next()?.trim_matches('"');
    (!value.is_empty()).then_some(value)
}

fn one_line(error: &opendal::Error) -> String {
    let text = format!("{}: {}", error.kind(), plain(error.message()));
    text.lines().next().unwrap_or_default().to_owned()
}

/// `S3Error { code: "SlowDown", message: "Please …", … }` → `SlowDown: Please …`; other messages unchanged.
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

    /// A model that was replaced is read again; one that may not be read fails.
    #[test]
    fn changed_length_means_replaced() {
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
    fn code_is_found_in_every_form_of_an_error_response() {
        for (message, code) in [
            (
                r#"S3Error { code: "NoSuchUpload", message: "code: x", resource: "/bucket/m" }"#,
                Some("NoSuchUpload"),
            ),
            (r#"AzblobError { code: "ContainerNotFound", message: "" }"#, Some("ContainerNotFound")),
            (
                r#"GcsErrorResponse { error: GcsError { code: 404, message: "The specified bucket" } }"#,
                Some("404"),
            ),
            ("<?xml version='1.0'?><Error><Code>NoSuchBucket</Code></Error>", Some("NoSuchBucket")),
            (r#"S3Error { code: "", message: "" }"#, None),
            ("<html>502</html>", None),
            ("send http request", None),
            ("", None),
        ] {
            assert_eq!(code_in(message), code, "{message}");
            let error = io_error(opendal::Error::new(opendal::ErrorKind::NotFound, message));
            assert_eq!(super::code(&error), code, "{message}");
        }
    }

    #[test]
    fn error_response_is_shown_as_a_sentence() {
        let said =
            r#"S3Error { code: "SlowDown", message: "Please wait.", resource: "/b/m", request_id: "1" }"#;
        assert_eq!(plain(said), "SlowDown: Please wait.");
        assert_eq!(plain("send http request"), "send http request");
        assert_eq!(plain(r#"code: "#), r#"code: "#);
    }
}
