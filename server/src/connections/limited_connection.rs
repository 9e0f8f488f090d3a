//! A connection with limits until its peer is admitted, for gRPC and for HTTP/1.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::body::Body;
use tonic::transport::server::Connected;
use tower::util::MapRequestLayer;

use sqlflow_sync::lock;

use crate::admission::Slot;

use super::admission_limit::{AdmissionSlot, Unadmitted};
use super::places::Place;
use super::{ADMISSION_TIME, FIRST_BYTES_TIME};

/// First bytes of every gRPC client: the preface of HTTP/2. Shorter than a TLS greeting, and than a request of HTTP/1
/// that names its host.
const HTTP2_PREFACE: usize = 24;
/// Maximum number of bytes from an agent before its Hello is accepted: a TLS greeting, headers, and the Hello with
/// its token. An agent sends nothing more before the answer.
const HELLO_BYTES: usize = 64 * 1024;
/// Maximum number of bytes from a client before it is admitted, which is when the header of a request shows who it is.
/// A client whose access token is in the session is admitted after it, so its first program is shorter than this.
const REQUEST_BYTES: usize = 512 * 1024;

/// Limits of a connection whose peer is not admitted yet. The connection and its requests share them.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    are_lifted: Arc<AtomicBool>,
    /// Of the principal that was admitted, until the connection ends.
    slot: Arc<Mutex<Option<Slot>>>,
}

impl Bounds {
    /// Admits the peer: the connection has no timeout any more.
    pub fn lift(&self) {
        self.are_lifted.store(true, Ordering::Relaxed);
    }

    /// Admits the peer, whose connection counts as this principal's.
    pub fn lift_with(&self, slot: Option<Slot>) {
        // Of two first requests, the second one's is not needed.
        if !self.are_lifted.swap(true, Ordering::Relaxed) {
            *lock(&self.slot) = slot;
        }
    }

    /// Whether the peer is admitted.
    pub fn are_lifted(&self) -> bool {
        self.are_lifted.load(Ordering::Relaxed)
    }
}

/// Connection info: the limits, and the stream's own info.
#[derive(Debug, Clone)]
pub struct ConnectInfo<I> {
    inner: I,
    bounds: Bounds,
}

/// A layer that unwraps the connection info of a [`LimitedConnection`].
pub type ConnectInfoLayer = MapRequestLayer<fn(http::Request<Body>) -> http::Request<Body>>;

/// Leaves the admission of a peer to the service or to another layer: each request gets the [`Bounds`] of its connection, and the
/// connection info of the stream in the [`LimitedConnection`].
#[must_use]
pub fn admit_by_service<I: Clone + Send + Sync + 'static>() -> ConnectInfoLayer {
    MapRequestLayer::new(|mut request| {
        if let Some(info) = request.extensions_mut().remove::<ConnectInfo<I>>() {
            request.extensions_mut().insert(info.bounds);
            request.extensions_mut().insert(info.inner);
        }
        request
    })
}

/// A connection that fails if its first bytes do not arrive in time, its peer is not admitted in time or sends too much
/// before, or too many others wait for their admission.
pub struct LimitedConnection<S> {
    inner: S,
    bounds: Bounds,
    /// Until the limits are lifted.
    waiting: Option<Waiting>,
    /// A connection of its listener.
    _place: Place,
}

/// Limits until the peer is admitted.
struct Waiting {
    /// Number of bytes received.
    read: usize,
    /// Maximum number of bytes.
    allowed: usize,
    first_bytes: Pin<Box<Sleep>>,
    admission: Pin<Box<Sleep>>,
    lost: Pin<Box<WaitForCancellationFutureOwned>>,
    _slot: AdmissionSlot,
}

impl<S> LimitedConnection<S> {
    /// For a peer that is admitted by a request. The timeout starts now.
    pub fn new(connection: Unadmitted<S>) -> Self {
        Self::within(FIRST_BYTES_TIME, ADMISSION_TIME, REQUEST_BYTES, connection)
    }

    /// For a peer that sends only a Hello before its admission. The timeout starts now.
    pub fn of_agent(connection: Unadmitted<S>) -> Self {
        Self::within(FIRST_BYTES_TIME, ADMISSION_TIME, HELLO_BYTES, connection)
    }

    /// The limits, for those who admit the peer.
    pub fn bounds(&self) -> Bounds {
        self.bounds.clone()
    }

    fn within(first_bytes: Duration, admission: Duration, allowed: usize, connection: Unadmitted<S>) -> Self {
        let waiting = Waiting {
            read: 0,
            allowed,
            first_bytes: Box::pin(tokio::time::sleep(first_bytes)),
            admission: Box::pin(tokio::time::sleep(admission)),
            lost: Box::pin(connection.slot.lost.clone().cancelled_owned()),
            _slot: connection.slot,
        };
        Self {
            inner: connection.stream,
            bounds: Bounds::default(),
            waiting: Some(waiting),
            _place: connection.place,
        }
    }

    /// Why the connection must end, if it must.
    fn broken(&mut self, context: &mut Context<'_>) -> Option<io::ErrorKind> {
        let waiting = self.waiting.as_mut()?;
        if self.bounds.are_lifted() {
            self.waiting = None;
            return None;
        }
        if waiting.read > waiting.allowed {
            return Some(io::ErrorKind::QuotaExceeded);
        }
        if waiting.lost.as_mut().poll(context).is_ready() {
            return Some(io::ErrorKind::ConnectionAborted);
        }
        let mut has_passed = |deadline: &mut Pin<Box<Sleep>>| deadline.as_mut().poll(context).is_ready();
        let is_late = waiting.read < HTTP2_PREFACE && has_passed(&mut waiting.first_bytes);
        (is_late || has_passed(&mut waiting.admission)).then_some(io::ErrorKind::TimedOut)
    }
}

impl<S: Connected> Connected for LimitedConnection<S> {
    type ConnectInfo = ConnectInfo<S::ConnectInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        ConnectInfo { inner: self.inner.connect_info(), bounds: self.bounds.clone() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LimitedConnection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Before reading: a continuous stream of bytes is not a request either.
        if let Some(why) = self.broken(context) {
            return Poll::Ready(Err(why.into()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        if let Some(waiting) = &mut self.waiting {
            waiting.read += buffer.filled().len() - before;
        }
        polled
    }
}

/// A peer that reads nothing must end as well: while answers to it wait, nothing is read from it.
impl<S: AsyncWrite + Unpin> AsyncWrite for LimitedConnection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.broken(context) {
            Some(why) => Poll::Ready(Err(why.into())),
            None => Pin::new(&mut self.inner).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.broken(context) {
            Some(why) => Poll::Ready(Err(why.into())),
            None => Pin::new(&mut self.inner).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.broken(context) {
            Some(why) => Poll::Ready(Err(why.into())),
            None => Pin::new(&mut self.inner).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.broken(context) {
            Some(why) => Poll::Ready(Err(why.into())),
            None => Pin::new(&mut self.inner).poll_write_vectored(context, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;
    use crate::connections::AdmissionLimit;
    use crate::connections::admission_limit::MAX_UNADMITTED;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(3600);

    /// A peer, and its connection with these limits.
    fn connection(
        first_bytes: Duration,
        admission: Duration,
        allowed: usize,
    ) -> (DuplexStream, LimitedConnection<DuplexStream>) {
        let (peer, stream) = tokio::io::duplex(64);
        (
            peer,
            LimitedConnection::within(
                first_bytes,
                admission,
                allowed,
                AdmissionLimit::new("clients", MAX_UNADMITTED).hold(stream, Place::default()),
            ),
        )
    }

    #[tokio::test]
    async fn silent_peer_times_out() {
        for said in [0, HTTP2_PREFACE - 1] {
            let (mut peer, mut stream) = connection(SHORT, LONG, usize::MAX);
            peer.write_all(&vec![b'x'; said]).await.unwrap();
            let mut read = Vec::new();
            let error = stream.read_to_end(&mut read).await.unwrap_err();
            assert_eq!((error.kind(), read.len()), (io::ErrorKind::TimedOut, said));
        }
    }

    /// While an answer to it waits, nothing is read from it.
    #[tokio::test]
    async fn peer_that_reads_nothing_times_out() {
        let (peer, mut stream) = connection(LONG, SHORT, usize::MAX);
        let written = tokio::time::timeout(SHORT * 100, stream.write_all(&[b'x'; 1000])).await;
        assert_eq!(written.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(peer);
    }

    /// It sends a request byte for byte, and never completes it.
    #[tokio::test]
    async fn peer_without_a_request_times_out() {
        let (mut peer, mut stream) = connection(SHORT, SHORT * 2, usize::MAX);
        let trickle = async { while peer.write_all(b"x").await.is_ok() {} };
        let read = async {
            let mut read = Vec::new();
            let error = stream.read_to_end(&mut read).await.unwrap_err();
            drop(stream);
            (error.kind(), read.len() > HTTP2_PREFACE)
        };
        assert_eq!(tokio::join!(trickle, read).1, (io::ErrorKind::TimedOut, true));
    }

    #[tokio::test]
    async fn admitted_peer_does_not_time_out() {
        let (mut peer, mut stream) = connection(SHORT, SHORT, 0);
        stream.bounds.lift();
        let ended = tokio::spawn(async move {
            tokio::time::sleep(SHORT * 4).await;
            peer.write_all(b"x").await.unwrap();
        });
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"x");
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn peer_over_the_byte_limit_before_admission_is_refused() {
        let (mut peer, mut stream) = connection(LONG, LONG, 100);
        let talk = async { while peer.write_all(&[b'x'; 10]).await.is_ok() {} };
        let read = async {
            let mut read = Vec::new();
            let error = stream.read_to_end(&mut read).await.unwrap_err();
            drop(stream);
            (error.kind(), read.len() <= 100 + 64)
        };
        assert_eq!(tokio::join!(talk, read).1, (io::ErrorKind::QuotaExceeded, true));
    }

    #[tokio::test]
    async fn peer_that_lost_its_slot_is_disconnected() {
        let limit = AdmissionLimit::new("agents", MAX_UNADMITTED);
        let (_peer, stream) = tokio::io::duplex(64);
        let mut first =
            LimitedConnection::within(LONG, LONG, usize::MAX, limit.hold(stream, Place::default()));
        let (others, error) = tokio::join!(
            async { (0..MAX_UNADMITTED).map(|_| limit.hold((), Place::default())).collect::<Vec<_>>() },
            first.read_u8()
        );
        assert_eq!(
            (others.len(), error.unwrap_err().kind()),
            (MAX_UNADMITTED, io::ErrorKind::ConnectionAborted)
        );
    }
}
