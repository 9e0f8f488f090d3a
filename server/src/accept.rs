//! Connections as every listener takes them: a failure to accept pauses instead of spinning, and a peer that says nothing
//! is not waited for.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

/// How long a peer may take for its first bytes, and for a TLS handshake.
pub const FIRST_BYTES_TIME: Duration = Duration::from_secs(10);
/// What every gRPC client sends before it is answered: the preface of HTTP/2. Also less than a TLS greeting.
pub const HTTP2_PREFACE: usize = 24;
/// The shortest request line: `GET / HTTP/1.1` and the end of the line.
const HTTP1_REQUEST_LINE: usize = 16;

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

/// The connections of a listener, for tonic. `who` comes, for the log.
pub fn connections<L: Accept>(
    listener: Arc<L>,
    who: &'static str,
) -> impl Stream<Item = io::Result<Prompt<L::Stream>>> + Send + use<L> {
    futures::stream::unfold(listener, move |listener| async move {
        let stream = next(&*listener, who).await;
        Some((Ok(Prompt::new(stream, HTTP2_PREFACE)), listener))
    })
}

/// The next connection, however long that takes. A failure is logged once until a connection is accepted again.
async fn next<L: Accept>(listener: &L, who: &'static str) -> L::Stream {
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

/// The HTTP side's listener, for axum.
pub struct HttpListener(pub TcpListener);

impl axum::serve::Listener for HttpListener {
    type Io = Prompt<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let stream = next(&self.0, "browsers").await;
            // One that is gone already has no address.
            if let Ok(address) = stream.peer_addr() {
                return (Prompt::new(stream, HTTP1_REQUEST_LINE), address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A connection that ends with an error when its first bytes do not come in time.
pub struct Prompt<S> {
    inner: S,
    /// How many bytes are still to come before its deadline.
    missing: usize,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Prompt<S> {
    /// The time runs from now on until so many bytes have come.
    pub fn new(inner: S, bytes: usize) -> Self {
        Self::within(FIRST_BYTES_TIME, inner, bytes)
    }

    fn within(time: Duration, inner: S, bytes: usize) -> Self {
        let deadline = Some(Box::pin(tokio::time::sleep(time)));
        Self { inner, missing: bytes, deadline }
    }

    /// The connection itself.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: Connected> Connected for Prompt<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prompt<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        let Some(deadline) = &mut self.deadline else { return polled };
        if polled.is_pending() && deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.missing = self.missing.saturating_sub(buffer.filled().len() - before);
        if self.missing == 0 {
            self.deadline = None;
        }
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

    #[tokio::test]
    async fn a_peer_that_says_nothing_or_too_little_is_not_waited_for() {
        for said in [0, HTTP2_PREFACE - 1] {
            let (mut peer, stream) = tokio::io::duplex(64);
            let mut stream = Prompt::within(SHORT, stream, HTTP2_PREFACE);
            peer.write_all(&vec![b'x'; said]).await.unwrap();
            let mut read = Vec::new();
            let error = stream.read_to_end(&mut read).await.unwrap_err();
            assert_eq!((error.kind(), read.len()), (io::ErrorKind::TimedOut, said));
        }
    }

    #[tokio::test]
    async fn a_peer_that_has_said_its_first_bytes_may_be_silent() {
        let (mut peer, stream) = tokio::io::duplex(64);
        let mut stream = Prompt::within(SHORT, stream, HTTP2_PREFACE);
        peer.write_all(&[b'x'; HTTP2_PREFACE]).await.unwrap();
        let ended = tokio::spawn(async move {
            tokio::time::sleep(SHORT * 4).await;
            drop(peer);
        });
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.unwrap();
        assert_eq!(read.len(), HTTP2_PREFACE);
        ended.await.unwrap();
    }
}
