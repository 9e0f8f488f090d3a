//! When a page that was read with a plain token counts as delivered.
//!
//! A plain token carries no cursor, so the server must know whether its last answer arrived. It may repeat a page,
//! but never skip one. A page counts as delivered when its response was handed to the connection whole, and then
//! - the same connection brings the next Fetch of the job, or
//! - the peer closed the connection in good order, or
//! - the connection is still open after [`SETTLE_TIME`].
//!
//! What is kept here is only a hint: when it is lost with the server, the next Fetch repeats the page.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body::Frame;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::body::Body;
use tonic::transport::server::Connected;
use tower::{Layer, Service};

use crate::job::JobId;

/// After this time on an open connection an answer counts as delivered.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// Pages remembered at the most; older ones are forgotten, and then repeated.
const MAX_PAGES: usize = 10_000;

/// Pages sent to plain tokens and not yet known to be delivered.
#[derive(Default)]
pub(super) struct Deliveries {
    pages: Mutex<HashMap<JobId, Page>>,
}

struct Page {
    from: u64,
    to: u64,
    connection: Arc<Connection>,
    sent: Sent,
}

impl Deliveries {
    /// Called with the next plain Fetch of the job on this connection, while the job's plain cursor is `cursor`:
    /// where the cursor moves, if the page sent from there was delivered.
    pub(super) fn delivered(&self, job: &JobId, cursor: u64, connection: &Arc<Connection>) -> Option<u64> {
        let page = self.lock().remove(job)?;
        (page.from == cursor && page.arrived(connection)).then_some(page.to)
    }

    /// Notes that the page after `from` up to `to` is about to be sent. The mark goes into the response.
    pub(super) fn note(&self, job: &JobId, from: u64, to: u64, connection: Arc<Connection>) -> Sent {
        let sent = Sent::default();
        let mut pages = self.lock();
        if pages.len() >= MAX_PAGES {
            pages.retain(|_, page| page.sent.elapsed().is_none_or(|elapsed| elapsed < SETTLE_TIME));
            if pages.len() >= MAX_PAGES {
                pages.clear();
            }
        }
        pages.insert(job.clone(), Page { from, to, connection, sent: sent.clone() });
        sent
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Page>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    fn arrived(&self, next_fetch: &Arc<Connection>) -> bool {
        let Some(elapsed) = self.sent.elapsed() else { return false };
        match self.connection.state() {
            ConnectionState::Broken => false,
            ConnectionState::ClosedByPeer => true,
            ConnectionState::Open => Arc::ptr_eq(&self.connection, next_fetch) || elapsed >= SETTLE_TIME,
        }
    }
}

/// A mark in a response: set when the response was handed to its connection whole.
#[derive(Clone, Default)]
pub(super) struct Sent(Arc<OnceLock<Instant>>);

impl Sent {
    fn elapsed(&self) -> Option<Duration> {
        self.0.get().map(Instant::elapsed)
    }

    fn set(&self) {
        // A response ends once.
        let _ = self.0.set(Instant::now());
    }
}

/// Watches the bodies of responses that carry a [`Sent`] mark.
#[derive(Clone, Copy)]
pub(super) struct DeliveryLayer;

impl<S> Layer<S> for DeliveryLayer {
    type Service = DeliveryService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeliveryService { inner }
    }
}

#[derive(Clone)]
pub(super) struct DeliveryService<S> {
    inner: S,
}

impl<S, R> Service<http::Request<R>> for DeliveryService<S>
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
        Box::pin(async move {
            let mut response = response.await?;
            Ok(match response.extensions_mut().remove::<Sent>() {
                Some(sent) => response.map(|inner| Body::new(MarkedBody { inner, sent })),
                None => response,
            })
        })
    }
}

struct MarkedBody {
    inner: Body,
    sent: Sent,
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

/// A client's connection, as far as delivery depends on it.
#[derive(Default)]
pub(super) struct Connection {
    state: AtomicU8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionState {
    Open,
    ClosedByPeer,
    Broken,
}

impl Connection {
    fn state(&self) -> ConnectionState {
        match self.state.load(Ordering::Acquire) {
            0 => ConnectionState::Open,
            1 => ConnectionState::ClosedByPeer,
            _ => ConnectionState::Broken,
        }
    }

    /// The first end that is seen stands.
    fn end(&self, state: ConnectionState) {
        let _ = self.state.compare_exchange(0, state as u8, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// A stream that notes how it ends.
pub(super) struct TrackedStream<S> {
    inner: S,
    connection: Arc<Connection>,
}

impl<S> TrackedStream<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, connection: Arc::default() }
    }

    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = &polled {
            self.connection.end(ConnectionState::Broken);
        }
        polled
    }
}

impl<S> Drop for TrackedStream<S> {
    fn drop(&mut self) {
        self.connection.end(ConnectionState::Broken);
    }
}

impl<S> Connected for TrackedStream<S> {
    type ConnectInfo = Arc<Connection>;

    fn connect_info(&self) -> Arc<Connection> {
        Arc::clone(&self.connection)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        if matches!(polled, Poll::Ready(Ok(()))) && buffer.filled().len() == before && buffer.remaining() > 0
        {
            self.connection.end(ConnectionState::ClosedByPeer);
        }
        self.note(polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrackedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.note(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(context);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(context);
        self.note(polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobId {
        JobId::generate()
    }

    #[test]
    fn a_page_is_delivered_when_the_same_connection_asks_again() {
        let (deliveries, job, connection) = (Deliveries::default(), job(), Arc::<Connection>::default());
        let sent = deliveries.note(&job, 0, 7, Arc::clone(&connection));
        sent.set();
        assert_eq!(deliveries.delivered(&job, 0, &connection), Some(7));
        assert_eq!(deliveries.delivered(&job, 7, &connection), None, "only once");
    }

    #[test]
    fn a_page_is_repeated_when_its_response_was_not_handed_over() {
        let (deliveries, job, connection) = (Deliveries::default(), job(), Arc::<Connection>::default());
        let _unsent = deliveries.note(&job, 0, 7, Arc::clone(&connection));
        assert_eq!(deliveries.delivered(&job, 0, &connection), None);
    }

    #[test]
    fn a_broken_connection_delivers_nothing_and_a_closed_one_does() {
        let (deliveries, job, other) = (Deliveries::default(), job(), Arc::<Connection>::default());
        for (end, delivered) in [(ConnectionState::Broken, None), (ConnectionState::ClosedByPeer, Some(7))] {
            let connection = Arc::<Connection>::default();
            deliveries.note(&job, 0, 7, Arc::clone(&connection)).set();
            assert_eq!(deliveries.delivered(&job, 0, &other), None, "too early on another connection");
            deliveries.note(&job, 0, 7, Arc::clone(&connection)).set();
            connection.end(end);
            assert_eq!(deliveries.delivered(&job, 0, &other), delivered);
        }
    }

    #[test]
    fn a_page_from_elsewhere_does_not_move_the_cursor() {
        let (deliveries, job, connection) = (Deliveries::default(), job(), Arc::<Connection>::default());
        deliveries.note(&job, 0, 7, Arc::clone(&connection)).set();
        assert_eq!(deliveries.delivered(&job, 3, &connection), None);
    }
}
