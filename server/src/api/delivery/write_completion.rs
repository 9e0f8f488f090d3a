//! Detects when a response was written to its connection completely.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use http_body::Frame;
use tonic::body::Body;

use super::connection::{Connection, Receipt};

/// A mark in a response, set when the response was written completely.
#[derive(Debug, Clone)]
pub(in crate::api) struct WriteCompletion {
    connection: Arc<Connection>,
    receipt: Arc<OnceLock<Receipt>>,
}

impl WriteCompletion {
    /// Mark of a response on this connection.
    pub(super) fn on(connection: &Arc<Connection>) -> Self {
        Self { connection: Arc::clone(connection), receipt: Arc::default() }
    }

    /// The receipt that will prove that the client has the response, once it was written.
    pub(super) fn receipt(&self) -> Option<Receipt> {
        self.receipt.get().copied()
    }

    pub(super) fn set(&self) {
        self.receipt.get_or_init(|| self.connection.page_written());
    }
}

/// Watches the body of a response with a [`WriteCompletion`] mark.
pub(in crate::api) fn watched(mut response: http::Response<Body>) -> http::Response<Body> {
    match response.extensions_mut().remove::<WriteCompletion>() {
        Some(sent) => response.map(|inner| Body::new(MarkedBody { inner, sent })),
        None => response,
    }
}

struct MarkedBody {
    inner: Body,
    sent: WriteCompletion,
}

impl http_body::Body for MarkedBody {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, tonic::Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Ready(None) => self.sent.set(),
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => self.sent.set(),
            Poll::Ready(Some(_)) | Poll::Pending => {}
        }
        polled
    }
}
