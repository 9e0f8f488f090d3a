//! Limit of the bytes of clients' requests that are being received, over all connections. A request is held until it
//! is complete, and one may be as long as a program.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tower::util::MapRequestLayer;

/// Maximum number of bytes: some programs of the maximum length at a time.
const MAX_HELD: usize = 256 << 20;

/// Bytes that are held.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// The layer.
pub(super) fn layer() -> MapRequestLayer<fn(http::Request<Body>) -> http::Request<Body>> {
    MapRequestLayer::new(|request| request.map(|inner| Body::new(Counted { inner, held: 0, budget: &HELD })))
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
            if self.budget.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_HELD {
                let why = "cannot receive the request: too many long requests arrive at once; try again";
                return Poll::Ready(Some(Err(Status::resource_exhausted(why))));
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
        assert_eq!(read(&mut second).await.unwrap_err().code(), tonic::Code::ResourceExhausted);
        drop((first, second));
        assert_eq!(BUDGET.load(Ordering::Relaxed), 0);
        read(&mut body(1)).await.unwrap();
    }
}
