//! Accepted connections of every listener. A failure to accept causes a pause instead of a busy loop. A peer has
//! timeouts and byte limits until it is admitted.

mod admission_limit;
mod limited_connection;
mod places;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

pub use admission_limit::{AdmissionLimit, MAX_UNADMITTED, Unadmitted};
pub use limited_connection::{Bounds, LimitedConnection, admit_by_service};
pub use places::{Place, Places, most_of_process};

/// Timeout for a peer's first bytes, for a TLS handshake, and for the header of an HTTP/1 request.
pub const FIRST_BYTES_TIME: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });
/// Timeout for the admission of a connection's peer: a request of a client or browser with a right, an accepted Hello of
/// an agent. Longer than the timeout above, since a client may connect before it sends a request.
pub const ADMISSION_TIME: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 30 });
/// Timeout of an admitted HTTP/1 connection whose peer takes nothing of what is sent to it. Those of gRPC have keepalive.
pub const UNREAD_TIME: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 60 });
/// Pause after a failure to accept. Without free file descriptors the next try would fail at once.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener.
pub trait Listener: Send + Sync + 'static {
    /// Its connections.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

/// Connections of a listener, with their places. `who` names the peers in the log.
pub fn incoming<L: Listener>(
    listener: Arc<L>,
    who: &'static str,
) -> impl Stream<Item = (L::Stream, Place)> + Send + use<L> {
    futures::stream::unfold((listener, Places::of(who)), move |(listener, places)| async move {
        let place = places.take().await;
        let stream = next(&*listener, who).await;
        Some(((stream, place), (listener, places)))
    })
}

/// Waits for the next connection. A failure is logged once until a connection is accepted again. Cancel safe.
pub async fn next<L: Listener>(listener: &L, who: &'static str) -> L::Stream {
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
                    tracing::warn!(who, %error, "cannot accept connections; will try again");
                }
                failures += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Ends the connection if its peer takes nothing for [`UNREAD_TIME`]. The kernel measures it: a slow link makes progress
/// in its buffers long before more can be written to them.
pub fn end_if_unread(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_tcp_user_timeout(Some(UNREAD_TIME)) {
        tracing::debug!(%error, "cannot limit the time of a connection that nobody reads");
    }
}

/// Connections of a listener. `who` names the peers in the log.
pub fn unadmitted<L: Listener>(
    listener: Arc<L>,
    who: &'static str,
) -> impl Stream<Item = Unadmitted<L::Stream>> + Send + use<L> {
    let limit = AdmissionLimit::of(who);
    incoming(listener, who).map(move |(stream, place)| limit.hold(stream, place))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::errno::Errno;
    use tokio::io::DuplexStream;

    use super::*;

    /// Fails this many times for lack of file descriptors.
    struct Exhausted(AtomicU32);

    impl Listener for Exhausted {
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
    async fn listener_without_descriptors_pauses_and_continues() {
        let begun = tokio::time::Instant::now();
        next(&Exhausted(3.into()), "clients").await;
        assert!(begun.elapsed() >= PAUSE * 3, "{:?}", begun.elapsed());
    }
}
