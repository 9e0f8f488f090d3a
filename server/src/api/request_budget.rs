//! Limit of the bytes of clients' requests that are being received, and of long programs until they are recorded, over
//! all connections. A request is held until it is complete, and one may be as long as a program.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::util::MapRequestLayer;

use crate::retry_hint;

/// Maximum number of bytes: some programs of the maximum length at a time.
const MAX_HELD: usize = 256 << 20;
/// Time after which a refused call may succeed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bytes that are held.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// The layer.
pub(super) fn layer() -> MapRequestLayer<fn(http::Request<Body>) -> http::Request<Body>> {
    MapRequestLayer::new(|request| request.map(|inner| Body::new(Counted { inner, held: 0, budget: &HELD })))
}

/// A long program that was received, which counts until this is dropped.
pub(super) struct HeldProgram {
    bytes: usize,
    budget: &'static AtomicUsize,
}

impl HeldProgram {
    /// Counts a program of this length: many may wait for others to be compiled.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED: all together hold too much.
    pub(super) fn of(bytes: usize) -> Result<Self, Status> {
        Self::within(bytes, &HELD)
    }

    fn within(bytes: usize, budget: &'static AtomicUsize) -> Result<Self, Status> {
        // Dropped on an error.
        let held = Self { bytes, budget };
        hold(budget, bytes).map(|()| held)
    }
}

impl Drop for HeldProgram {
    fn drop(&mut self) {
        self.budget.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Adds to what is held, also beyond the limit: who is refused takes it away again.
fn hold(budget: &AtomicUsize, bytes: usize) -> Result<(), Status> {
    if budget.fetch_add(bytes, Ordering::Relaxed) + bytes <= MAX_HELD {
        return Ok(());
    }
    let message = format!(
        "cannot take the request: the long requests that are being received hold {} MiB; try again in {} s, or send \
         shorter programs",
        MAX_HELD >> 20,
        RETRY_AFTER.as_secs()
    );
    Err(retry_hint::status(Code::ResourceExhausted, message, RETRY_AFTER))
}

/// A body that ends with an error once all together hold too much.
struct Counted {
    inner: Body,
    held: usize,
    budget: &'static AtomicUsize,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.held += bytes;
            if let Err(refused) = hold(self.budget, bytes) {
                return Poll::Ready(Some(Err(refused)));
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.budget.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body::Body as _;
    use tonic_types::StatusExt as _;

    use super::*;

    #[tokio::test]
    async fn requests_beyond_the_limit_are_refused_until_others_are_complete() {
        static BUDGET: AtomicUsize = AtomicUsize::new(0);
        let body = |bytes: usize| Counted {
            inner: Body::new(axum::body::Body::from(vec![0; bytes])),
            held: 0,
            budget: &BUDGET,
        };
        let read = async |body: &mut Counted| {
            poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await.unwrap().map(drop)
        };
        let (mut first, mut second) = (body(MAX_HELD), body(1));
        read(&mut first).await.unwrap();
        let refused = read(&mut second).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.get_details_retry_info().unwrap().retry_delay, Some(RETRY_AFTER));
        drop((first, second));
        assert_eq!(BUDGET.load(Ordering::Relaxed), 0);
        read(&mut body(1)).await.unwrap();
    }

    #[test]
    fn programs_count_until_they_are_dropped() {
        static BUDGET: AtomicUsize = AtomicUsize::new(0);
        let hold = |bytes| HeldProgram::within(bytes, &BUDGET);
        let held = hold(MAX_HELD - 1).ok();
        assert!(hold(2).is_err() && hold(1).is_ok(), "a refused one holds nothing");
        drop(held);
        assert_eq!(BUDGET.load(Ordering::Relaxed), 0);
    }
}
