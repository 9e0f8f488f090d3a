//! Connections as every listener takes them: a failure to accept pauses instead of spinning, and a peer that says nothing,
//! or too little for a request, is not waited for.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::transport::server::Connected;
use tower::util::MapRequestLayer;

/// Timeout for a peer's first bytes, for a TLS handshake, and for the header of an HTTP/1 request.
pub const FIRST_BYTES_TIME: Duration = Duration::from_secs(10);
/// Timeout for the admission of a gRPC connection's peer: the first request of a client, an accepted Hello of an agent.
/// Longer than the above, since a client may connect before it has something to ask.
pub const ADMISSION_TIME: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 30 });
/// What every gRPC client sends before it is answered: the preface of HTTP/2. Also less than a TLS greeting.
const HTTP2_PREFACE: usize = 24;

/// After a connection that could not be accepted. Without descriptors the next try would fail at once, again and again.
const PAUSE: Duration = Duration::from_millis(100);

/// Something that connections come to.
pub trait Accept: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

/// The connections of a listener. `who` comes, for the log.
pub fn connections<L: Accept>(
    listener: Arc<L>,
    who: &'static str,
) -> impl Stream<Item = L::Stream> + Send + use<L> {
    futures::stream::unfold(
        listener,
        move |listener| async move { Some((next(&*listener, who).await, listener)) },
    )
}

/// The next connection, however long that takes. A failure is logged once until a connection is accepted again. Safe to
/// cancel.
pub async fn next<L: Accept>(listener: &L, who: &'static str) -> L::Stream {
    let mut failures: u64 = 0;
    loop {
        match listener.accept().await {
            Ok(stream) => {
                if failures > 0 {
                    tracing::info!(who, failures, "connections are accepted again");
                }
                return stream;
            }
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(who, %error, "cannot accept connections now, will try again");
                }
                failures += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The bounds on a connection whose peer is not admitted yet. The connection and its requests share them.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    are_lifted: Arc<AtomicBool>,
}

impl Bounds {
    /// Admits the peer: the connection may stay for as long as it wants.
    pub fn lift(&self) {
        self.are_lifted.store(true, Ordering::Relaxed);
    }

    fn are_lifted(&self) -> bool {
        self.are_lifted.load(Ordering::Relaxed)
    }
}

/// What is known of a connection, beside what its stream knows.
#[derive(Debug, Clone)]
pub struct ConnectInfo<I> {
    inner: I,
    bounds: Bounds,
}

/// A layer that takes the connection info of a [`Prompt`] apart.
pub type ConnectInfoLayer = MapRequestLayer<fn(http::Request<Body>) -> http::Request<Body>>;

/// Admits a peer by its first request, whatever it is. The request gets the connection info of the stream in the
/// [`Prompt`].
#[must_use]
pub fn admit_by_request<I: Clone + Send + Sync + 'static>() -> ConnectInfoLayer {
    MapRequestLayer::new(|mut request| {
        if let Some(info) = request.extensions_mut().remove::<ConnectInfo<I>>() {
            info.bounds.lift();
            request.extensions_mut().insert(info.inner);
        }
        request
    })
}

/// Leaves it to the service to admit a peer: each request gets the [`Bounds`] of its connection, and the connection info of
/// the stream in the [`Prompt`].
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

/// A gRPC connection that ends with an error when its first bytes do not come in time, or its peer is not admitted in time.
pub struct Prompt<S> {
    inner: S,
    /// How many of the first bytes are still to come.
    missing: usize,
    bounds: Bounds,
    /// Until the bounds are lifted.
    deadlines: Option<Deadlines>,
}

struct Deadlines {
    first_bytes: Pin<Box<Sleep>>,
    admission: Pin<Box<Sleep>>,
}

impl<S> Prompt<S> {
    /// The time runs from now on.
    pub fn new(inner: S) -> Self {
        Self::within(FIRST_BYTES_TIME, ADMISSION_TIME, inner)
    }

    fn within(first_bytes: Duration, admission: Duration, inner: S) -> Self {
        let deadlines = Deadlines {
            first_bytes: Box::pin(tokio::time::sleep(first_bytes)),
            admission: Box::pin(tokio::time::sleep(admission)),
        };
        Self { inner, missing: HTTP2_PREFACE, bounds: Bounds::default(), deadlines: Some(deadlines) }
    }

    /// Whether a deadline has passed.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        let Some(deadlines) = &mut self.deadlines else { return false };
        if self.bounds.are_lifted() {
            self.deadlines = None;
            return false;
        }
        let bytes_are_late = self.missing > 0 && deadlines.first_bytes.as_mut().poll(context).is_ready();
        bytes_are_late || deadlines.admission.as_mut().poll(context).is_ready()
    }
}

impl<S: Connected> Connected for Prompt<S> {
    type ConnectInfo = ConnectInfo<S::ConnectInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        ConnectInfo { inner: self.inner.connect_info(), bounds: self.bounds.clone() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prompt<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Before reading: bytes that come without a pause are no request either.
        if self.is_late(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.missing = self.missing.saturating_sub(buffer.filled().len() - before);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prompt<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::errno::Errno;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    /// Has no descriptors for so many calls.
    struct Exhausted(AtomicU32);

    impl Accept for Exhausted {
        type Stream = DuplexStream;

        async fn accept(&self) -> io::Result<DuplexStream> {
            let left = self.0.load(Ordering::Relaxed);
            if left == 0 {
                return Ok(tokio::io::duplex(64).0);
            }
            self.0.store(left - 1, Ordering::Relaxed);
            Err(Errno::EMFILE.into())
        }
    }

    #[tokio::test]
    async fn a_listener_without_descriptors_pauses_and_goes_on() {
        let begun = tokio::time::Instant::now();
        next(&Exhausted(3.into()), "clients").await;
        assert!(begun.elapsed() >= PAUSE * 3, "{:?}", begun.elapsed());
    }

    /// A peer, and its connection with these timeouts.
    fn connection(first_bytes: Duration, admission: Duration) -> (DuplexStream, Prompt<DuplexStream>) {
        let (peer, stream) = tokio::io::duplex(64);
        (peer, Prompt::within(first_bytes, admission, stream))
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_or_too_little_is_not_waited_for() {
        for said in [0, HTTP2_PREFACE - 1] {
            let (mut peer, mut stream) = connection(SHORT, Duration::from_secs(3600));
            peer.write_all(&vec![b'x'; said]).await.unwrap();
            let mut read = Vec::new();
            let error = stream.read_to_end(&mut read).await.unwrap_err();
            assert_eq!((error.kind(), read.len()), (io::ErrorKind::TimedOut, said));
        }
    }

    /// It sends a request byte for byte, and never comes to its end.
    #[tokio::test]
    async fn a_peer_that_goes_on_without_a_request_is_not_waited_for() {
        let (mut peer, mut stream) = connection(SHORT, SHORT * 2);
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
    async fn an_admitted_peer_may_be_silent() {
        let (mut peer, mut stream) = connection(SHORT, SHORT);
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
}
