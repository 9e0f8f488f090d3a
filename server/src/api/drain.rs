//! Ends the calls that are still open at the end of the drain, with UNAVAILABLE and a hint when to retry. Otherwise the end
//! of the process would cut them, and some client libraries report that as an error which is not temporary.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::retry_hint;

/// Time after which a call may succeed: at another server of the same state, or after a restart.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The layer. Its token is cancelled at the end of the drain.
#[derive(Clone)]
pub(super) struct DrainLayer(pub(super) CancellationToken);

impl<S> Layer<S> for DrainLayer {
    type Service = Drain<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Drain { inner, ended: self.0.clone() }
    }
}

/// A service behind the layer.
#[derive(Clone)]
pub(super) struct Drain<S> {
    inner: S,
    ended: CancellationToken,
}

impl<S, R> Service<http::Request<R>> for Drain<S>
where
    S: Service<http::Request<R>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<R>) -> Self::Future {
        let response = self.inner.call(request);
        let ended = self.ended.clone();
        Box::pin(async move {
            let response = tokio::select! {
                biased;
                response = response => response?,
                () = ended.cancelled() => return Ok(stopping().into_http()),
            };
            Ok(response.map(|inner| Body::new(DrainedBody { inner, ended, end: None })))
        })
    }
}

fn stopping() -> Status {
    retry_hint::status(
        Code::Unavailable,
        "cannot complete the call: the server is stopping, and jobs continue; try again at another server or after its \
         restart",
        RETRY_AFTER,
    )
}

/// A response that ends with the error at the end of the drain.
struct DrainedBody {
    inner: Body,
    ended: CancellationToken,
    /// The end of the drain, once the response has been waited for. Most never are.
    end: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl http_body::Body for DrainedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { inner, ended, end } = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut *inner).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let end = end.get_or_insert_with(|| Box::pin(ended.clone().cancelled_owned()));
        if end.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        *inner = Body::empty();
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(stopping().add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{pending, poll_fn, ready};

    use http_body::Body as _;
    use tonic_types::StatusExt as _;
    use tower::ServiceExt as _;

    use super::*;

    /// A response that never goes on.
    struct Endless;

    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Pending
        }
    }

    fn expect_hint(status: &Status) {
        assert_eq!(status.code(), Code::Unavailable);
        let retry = status.get_details_retry_info().unwrap();
        assert_eq!(retry.retry_delay, Some(RETRY_AFTER));
    }

    #[tokio::test]
    async fn call_without_an_answer_ends_with_a_retry_hint() {
        let ended = CancellationToken::new();
        let never =
            tower::service_fn(|_: http::Request<()>| pending::<Result<http::Response<Body>, Infallible>>());
        let call = DrainLayer(ended.clone()).layer(never).oneshot(http::Request::new(()));
        ended.cancel();
        let response = call.await.unwrap();
        expect_hint(&Status::from_header_map(response.headers()).unwrap());
    }

    #[tokio::test]
    async fn stream_without_an_end_ends_with_a_retry_hint() {
        let ended = CancellationToken::new();
        let streams = tower::service_fn(|_: http::Request<()>| {
            ready(Ok::<_, Infallible>(http::Response::new(Body::new(Endless))))
        });
        let call = DrainLayer(ended.clone()).layer(streams).oneshot(http::Request::new(()));
        let mut body = call.await.unwrap().into_body();
        ended.cancel();
        let mut next = async || poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let trailers = next().await.unwrap().unwrap().into_trailers().unwrap();
        expect_hint(&Status::from_header_map(&trailers).unwrap());
        assert!(next().await.is_none(), "nothing follows");
    }
}
