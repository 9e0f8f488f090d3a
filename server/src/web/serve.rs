//! HTTP/1 server with what `axum::serve` does not have: limits of connections until their peers are admitted, a timeout for
//! the header of each request, and the identity of each connection's other end.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use futures::StreamExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use sqlflow_tls::server::ServerTls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::access::{CertifiedStream, LocalUsers, Peer};
use crate::api::peer_of;
use crate::connections::{self, LimitedConnection, Unadmitted};

/// How connections are identified.
pub(super) struct Peers {
    /// Their name in the log.
    pub(super) who: &'static str,
    /// TLS of the listener.
    pub(super) tls: Option<Arc<ServerTls>>,
    /// Users of this machine; `None`: nobody is asked who they are.
    pub(super) users: Option<Arc<LocalUsers>>,
}

impl Peers {
    async fn of(&self, stream: &TcpStream) -> Peer {
        match &self.users {
            Some(users) => peer_of(stream, users).await,
            None => Peer::default(),
        }
    }
}

/// Serves until the shutdown token is cancelled, then until open requests have ended. A connection is closed if the
/// next request's header is not complete within `header_time`, even if it is idle. Every request has the
/// [`connections::Bounds`] of its connection, which `admit` lifts.
pub(super) async fn serve(
    listener: TcpListener,
    routes: Router,
    peers: Peers,
    header_time: Duration,
    shutdown: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_time);
    let (open, peers) = (GracefulShutdown::new(), Arc::new(peers));
    let unadmitted = connections::unadmitted(Arc::new(listener), peers.who);
    let mut unadmitted = pin!(unadmitted.take_until(shutdown.cancelled()));
    while let Some(connection) = unadmitted.next().await {
        let peers = Arc::clone(&peers);
        let server = HttpServer { builder: builder.clone(), routes: routes.clone(), watcher: open.watcher() };
        tokio::spawn(server.identify_and_serve(connection, peers));
    }
    open.shutdown().await;
}

/// Serves one connection.
struct HttpServer {
    builder: Builder<TokioExecutor>,
    routes: Router,
    watcher: Watcher,
}

impl HttpServer {
    /// A peer that disconnects or is late is not an error of this server.
    async fn identify_and_serve(self, connection: Unadmitted<TcpStream>, peers: Arc<Peers>) {
        connections::end_if_unread(connection.stream());
        let identified = connection.try_map(async |stream| {
            let peer = peers.of(&stream).await;
            Ok((stream, peer))
        });
        let Some(connection) = identified.await else { return };
        let Some(tls) = &peers.tls else { return self.serve(connection).await };
        let encrypted = connection.try_map(|(stream, peer)| CertifiedStream::accept(stream, peer, tls));
        if let Some(connection) = encrypted.await {
            self.serve(connection).await;
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self,
        connection: Unadmitted<(S, Peer)>,
    ) {
        let peer = connection.stream().1.clone();
        let connection = LimitedConnection::new(connection.map(|(stream, _)| stream));
        let routes = self.routes.layer(Extension(peer)).layer(Extension(connection.bounds()));
        let service = TowerToHyperService::new(routes);
        let served = self.builder.serve_connection(TokioIo::new(connection), service).into_owned();
        let _ = self.watcher.watch(served).await;
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::Request;
    use axum::middleware::{self, Next};
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::connections::Bounds;

    const HEADER_TIME: Duration = Duration::from_millis(200);

    async fn connect() -> TcpStream {
        connect_to(Router::new().route("/", get(async || "here"))).await
    }

    async fn connect_to(routes: Router) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peers = Peers { who: "browsers", tls: None, users: None };
        tokio::spawn(serve(listener, routes, peers, HEADER_TIME, CancellationToken::new()));
        TcpStream::connect(address).await.unwrap()
    }

    /// Sends requests, and reads no answer, until the server closes the connection.
    async fn read_nothing(mut stream: TcpStream) {
        let asking = async { while stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(60), asking).await.expect("the connection stays open");
    }

    /// More than what two kernels' buffers hold, after few requests.
    fn long_answers() -> Router {
        Router::new().route("/", get(async || "x".repeat(1 << 18)))
    }

    #[tokio::test]
    async fn unadmitted_peer_that_reads_nothing_is_disconnected() {
        read_nothing(connect_to(long_answers()).await).await;
    }

    #[tokio::test]
    async fn admitted_peer_that_reads_nothing_is_disconnected() {
        let admit = middleware::from_fn(async |request: Request, next: Next| {
            request.extensions().get::<Bounds>().expect("every request has them").lift();
            next.run(request).await
        });
        read_nothing(connect_to(long_answers().layer(admit)).await).await;
    }

    #[tokio::test]
    async fn slow_header_times_out() {
        let (mut reader, mut writer) = connect().await.into_split();
        let trickle = tokio::spawn(async move {
            writer.write_all(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
            while writer.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let mut said = Vec::new();
        // An error means that it was closed as well.
        let _ = reader.read_to_end(&mut said).await;
        assert!(!said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
        drop(reader);
        trickle.await.unwrap();
    }

    #[tokio::test]
    async fn keep_alive_serves_requests_and_closes_idle_connections() {
        let mut stream = connect().await;
        let mut said = String::new();
        for _ in 0..2 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            while !said.ends_with("here") {
                said.push(char::from(stream.read_u8().await.unwrap()));
            }
            assert!(said.starts_with("HTTP/1.1 200"), "{said}");
            said.clear();
        }
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    }
}
