//! HTTP/1 server with a timeout for the header of each request, which `axum::serve` does not have, and with the identity of
//! each connection's other end.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use futures::StreamExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use sqlflow_tls::server::ServerTls;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::identity::Peer;
use crate::access::{LocalUsers, handshake, holder};
use crate::api::user_behind;
use crate::connections;

/// How connections are identified.
pub(super) struct Peers {
    /// TLS of the listener.
    pub(super) tls: Option<Arc<ServerTls>>,
    /// Users of this machine; `None`: nobody is asked who they are.
    pub(super) users: Option<Arc<LocalUsers>>,
}

impl Peers {
    async fn local_user(&self, stream: &TcpStream) -> Peer {
        match &self.users {
            Some(users) => Peer(user_behind(stream, users).await),
            None => Peer(None),
        }
    }
}

/// Serves until the shutdown token is cancelled, then until open requests have ended. A connection is closed if the
/// next request's header is not complete within `header_time`, even if it is idle.
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
    let mut connections =
        pin!(connections::incoming(Arc::new(listener), "browsers").take_until(shutdown.cancelled()));
    while let Some((stream, place)) = connections.next().await {
        let (peers, routes, builder) = (Arc::clone(&peers), routes.clone(), builder.clone());
        let watcher = open.watcher();
        // A peer that disconnects or is late is not an error of this server.
        tokio::spawn(async move {
            let _place = place;
            let peer = peers.local_user(&stream).await;
            match &peers.tls {
                None => {
                    let service = TowerToHyperService::new(routes.layer(Extension(peer)));
                    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
                    let _ = watcher.watch(connection).await;
                }
                Some(tls) => {
                    let Ok(stream) = handshake(stream, tls).await else { return };
                    let peer = Peer(holder(&stream).or(peer.0));
                    let service = TowerToHyperService::new(routes.layer(Extension(peer)));
                    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
                    let _ = watcher.watch(connection).await;
                }
            }
        });
    }
    open.shutdown().await;
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    const HEADER_TIME: Duration = Duration::from_millis(200);

    async fn connect() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/", get(async || "here"));
        let peers = Peers { tls: None, users: None };
        tokio::spawn(serve(listener, routes, peers, HEADER_TIME, CancellationToken::new()));
        TcpStream::connect(address).await.unwrap()
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
