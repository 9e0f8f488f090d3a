//! Refusals that say when to try again.

use std::time::Duration;

use axum::http::{HeaderValue, header::RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// A status with a `google.rpc.RetryInfo`.
pub(crate) fn status(code: Code, message: impl Into<String>, after: Duration) -> Status {
    Status::with_error_details(code, message, ErrorDetails::with_retry_info(Some(after)))
}

/// The same for a page: the header is in whole seconds.
pub(crate) fn response(refused: impl IntoResponse, after: Duration) -> Response {
    let mut response = refused.into_response();
    let seconds = after.as_secs().max(1);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}
