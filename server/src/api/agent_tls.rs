//! TCP port for agents on other machines. It always uses TLS, because assignments hold secrets. The certificate is
//! reloaded when it is renewed; attached agents keep their connections.

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt as _;
use sqlflow_tls::server::{ServerFiles, ServerTls};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::transport::{self, Server};

use super::{KEEPALIVE, agents_server};
use crate::access::{CertificateReloads, handshake};
use crate::connections::{self, LimitedConnection, MAX_UNADMITTED};

/// The bound port, and its certificate.
pub struct AgentTls {
    listener: TcpListener,
    tls: Arc<ServerTls>,
}

impl AgentTls {
    /// Loads the certificate chain and the key from PEM files, and again when they change.
    ///
    /// # Errors
    /// They cannot be read, or do not match.
    pub fn new(listener: TcpListener, certificate: &Path, key: &Path) -> io::Result<Self> {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        let files = ServerFiles { certificate, key, client_ca: None, client_crl: None };
        Ok(Self { listener, tls: Arc::new(ServerTls::open(files, &["h2"])?) })
    }

    pub(super) async fn serve(
        self,
        routes: Routes,
        shutdown: CancellationToken,
    ) -> Result<(), transport::Error> {
        let Self { listener, tls } = self;
        let _reloads = CertificateReloads::begin(Arc::clone(&tls), "agents", shutdown.clone());
        // A slow handshake delays nobody else's, and a peer that does not complete it is not an error of this server.
        let connections = connections::unadmitted(Arc::new(listener), "agents")
            .map(move |connection| {
                let tls = Arc::clone(&tls);
                async move {
                    // Small answers must not wait for more to say.
                    let _ = connection.stream().set_nodelay(true);
                    connection.try_map(|stream| handshake(stream, &tls)).await
                }
            })
            .buffer_unordered(2 * MAX_UNADMITTED)
            .filter_map(std::future::ready)
            .map(|connection| Ok::<_, io::Error>(LimitedConnection::of_agent(connection)));
        agents_server(Server::builder())
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .layer(connections::admit_by_service::<TlsConnectInfo<TcpConnectInfo>>())
            .add_routes(routes)
            .serve_with_incoming_shutdown(connections, shutdown.cancelled_owned())
            .await
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;
    use std::time::Duration;

    use sqlflow_tls::fixture::{HOST, pairs, renew};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tonic::service::interceptor::InterceptedService;
    use tonic::transport::{Certificate, Channel, ClientTlsConfig};
    use tonic::{Request, Status};
    use tonic_health::ServingStatus;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    use super::*;
    use crate::agents_certificate;

    /// Admits every peer, as the service of agents admits an agent.
    fn admit(request: Request<()>) -> Result<Request<()>, Status> {
        request.extensions().get::<connections::Bounds>().expect("the listener's layer gives them").lift();
        Ok(request)
    }

    /// A port for agents and its address, with a certificate and a key in this folder.
    async fn port(dir: &Path, files: [&str; 2]) -> (String, AgentTls) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let [certificate, key] = files.map(|name| dir.join(name));
        (address, AgentTls::new(listener, &certificate, &key).unwrap())
    }

    async fn connect(address: &str, dir: &Path, trusted: &str) -> Result<Channel, transport::Error> {
        let certificate = std::fs::read(dir.join(format!("{trusted}.crt"))).unwrap();
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificate)).domain_name(HOST);
        let endpoint = Channel::from_shared(format!("https://{address}")).unwrap().tls_config(tls)?;
        endpoint.connect().await
    }

    /// New connections get the renewed certificate. Existing ones stay, since attempts of their agents may run for
    /// days.
    #[tokio::test]
    async fn renewed_certificate_is_used_for_new_connections_only() {
        let dir = pairs();
        let (address, tls) = port(dir.path(), ["tls.crt", "tls.key"]).await;
        let (health, service) = tonic_health::server::health_reporter();
        let routes = Routes::new(InterceptedService::new(service, admit));
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(tls.serve(routes, shutdown.clone()));

        let mut client = HealthClient::new(connect(&address, dir.path(), "one").await.unwrap());
        assert!(connect(&address, dir.path(), "two").await.is_err());
        let all = HealthCheckRequest { service: String::new() };
        let mut stream = client.watch(all).await.unwrap().into_inner();
        assert!(stream.message().await.unwrap().is_some());

        renew(dir.path(), "two");
        while connect(&address, dir.path(), "two").await.is_err() {}
        assert!(connect(&address, dir.path(), "one").await.is_err());
        health.set_service_status("", ServingStatus::NotServing).await;
        assert!(stream.message().await.unwrap().is_some(), "the earlier stream continues");

        shutdown.cancel();
        drop((stream, client));
        served.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn certificate_that_the_server_made_is_trusted_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["own", "other"] {
            let file = dir.path().join(format!("{name}.pem"));
            let certificate = agents_certificate::open(&file, HOST).unwrap();
            std::fs::write(dir.path().join(format!("{name}.crt")), certificate).unwrap();
        }
        let (address, tls) = port(dir.path(), ["own.pem"; 2]).await;
        let (_, service) = tonic_health::server::health_reporter();
        tokio::spawn(tls.serve(Routes::new(service), CancellationToken::new()));
        connect(&address, dir.path(), "own").await.unwrap();
        assert!(connect(&address, dir.path(), "other").await.is_err());
    }

    #[tokio::test]
    async fn peer_silent_after_the_handshake_times_out() {
        let dir = pairs();
        let (address, tls) = port(dir.path(), ["tls.crt", "tls.key"]).await;
        let (_, service) = tonic_health::server::health_reporter();
        tokio::spawn(tls.serve(Routes::new(service), CancellationToken::new()));
        let mut peer = tokio::process::Command::new("openssl")
            .args(["s_client", "-quiet", "-alpn", "h2", "-connect", &address])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // Not `wait`, which would close its stdin: it ends when the server closes the connection.
        let _stdin = peer.stdin.take();
        let ended = tokio::time::timeout(Duration::from_secs(60), peer.wait()).await;
        ended.expect("the server keeps the connection").unwrap();
    }

    #[tokio::test]
    async fn peer_that_does_not_complete_the_handshake_times_out() {
        let dir = pairs();
        let (address, tls) = port(dir.path(), ["tls.crt", "tls.key"]).await;
        let (_, service) = tonic_health::server::health_reporter();
        tokio::spawn(tls.serve(Routes::new(service), CancellationToken::new()));
        // The beginning of a ClientHello.
        let mut peer = tokio::net::TcpStream::connect(&address).await.unwrap();
        peer.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
        let closed = tokio::time::timeout(Duration::from_secs(60), peer.read_to_end(&mut Vec::new())).await;
        // A reset is as good.
        let _ = closed.expect("the server keeps the connection");
    }

    /// Agents stay connected while their attempts run, possibly for days.
    #[tokio::test]
    async fn stream_of_an_admitted_peer_outlives_the_timeout() {
        let dir = pairs();
        let (address, tls) = port(dir.path(), ["tls.crt", "tls.key"]).await;
        let (health, service) = tonic_health::server::health_reporter();
        let routes = Routes::new(InterceptedService::new(service, admit));
        tokio::spawn(tls.serve(routes, CancellationToken::new()));
        let mut client = HealthClient::new(connect(&address, dir.path(), "one").await.unwrap());
        let all = HealthCheckRequest { service: String::new() };
        let mut stream = client.watch(all).await.unwrap().into_inner();
        assert!(stream.message().await.unwrap().is_some());
        tokio::time::sleep(connections::ADMISSION_TIME * 2).await;
        health.set_service_status("", ServingStatus::NotServing).await;
        assert!(stream.message().await.unwrap().is_some());
    }
}
