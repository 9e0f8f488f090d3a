//! TCP port for agents on other machines. It always uses TLS, because assignments hold secrets. The certificate is
//! reloaded when it is renewed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tonic::transport::{self, Identity, Server, ServerTlsConfig};

use super::{KEEPALIVE, agents_server};
use crate::connections::{self, FIRST_BYTES_TIME, LimitedConnection};

/// Period of checking for a renewed certificate.
const POLL_PERIOD: Duration = Duration::from_secs(10);

/// The bound port, and its certificate.
pub struct AgentTls {
    listener: TcpListener,
    pair: Pair,
    server: Server,
    poll_period: Duration,
}

impl AgentTls {
    /// Loads the certificate chain and the key from PEM files, and again when they change.
    ///
    /// # Errors
    /// They cannot be read, or do not match.
    pub fn new(listener: TcpListener, certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let mut pair = Pair::of(certificate, key);
        let server = pair.changed()?.context("it has no certificate")?;
        Ok(Self { listener, pair, server, poll_period: POLL_PERIOD })
    }

    pub(super) async fn serve(
        mut self,
        routes: Routes,
        shutdown: CancellationToken,
    ) -> Result<(), transport::Error> {
        let listener = Arc::new(self.listener);
        let mut older = JoinSet::new();
        loop {
            // A tonic server's certificate is fixed, so each certificate has its own server on the same listener.
            let end = shutdown.child_token();
            let connections = connections::unadmitted(Arc::clone(&listener), "agents");
            let mut serving = Box::pin(
                self.server
                    .layer(connections::admit_by_service::<TcpConnectInfo>())
                    .add_routes(routes.clone())
                    .serve_with_incoming_shutdown(
                        connections
                            .map(|connection| Ok::<_, io::Error>(LimitedConnection::of_agent(connection))),
                        end.clone().cancelled_owned(),
                    ),
            );
            self.server = tokio::select! {
                served = &mut serving => {
                    served?;
                    break;
                }
                renewed = self.pair.renewed(self.poll_period) => renewed,
            };
            // It accepts no more connections; attached agents stay until their streams end.
            end.cancel();
            older.spawn(serving);
        }
        while older.join_next().await.is_some() {}
        Ok(())
    }
}

/// A certificate and its key, in files that are renewed by another program.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
    /// Certificate and key in use.
    used: Option<[Vec<u8>; 2]>,
    /// Why the current files cannot be used, as it was last logged.
    last_error: String,
}

impl Pair {
    fn of(certificate: &Path, key: &Path) -> Self {
        Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            used: None,
            last_error: String::new(),
        }
    }

    /// Waits for a renewed pair.
    async fn renewed(&mut self, poll_period: Duration) -> Server {
        loop {
            tokio::time::sleep(poll_period).await;
            if let Some(server) = self.reload() {
                tracing::info!(certificate = %self.certificate.display(), "agents' certificate reloaded");
                return server;
            }
        }
    }

    /// A server with the renewed pair. A pair that cannot be used leaves the previous one in use.
    fn reload(&mut self) -> Option<Server> {
        match self.changed() {
            Ok(server) => {
                self.last_error.clear();
                server
            }
            Err(error) => {
                let error = format!("{error:#}");
                if error != self.last_error {
                    tracing::error!(error, "cannot reload the agents' certificate; using the previous one");
                    self.last_error = error;
                }
                None
            }
        }
    }

    fn changed(&mut self) -> anyhow::Result<Option<Server>> {
        let read =
            |file: &Path| std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        let found = [read(&self.certificate)?, read(&self.key)?];
        if self.used.as_ref() == Some(&found) {
            return Ok(None);
        }
        let [certificate, key] = &found;
        let config =
            ServerTlsConfig::new().timeout(FIRST_BYTES_TIME).identity(Identity::from_pem(certificate, key));
        let server = Server::builder().tls_config(config).with_context(|| {
            format!("{} with the key {} cannot be used", self.certificate.display(), self.key.display())
        })?;
        self.used = Some(found);
        let server = agents_server(server);
        Ok(Some(server.http2_keepalive_interval(Some(KEEPALIVE)).http2_keepalive_timeout(Some(KEEPALIVE))))
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use tonic::service::interceptor::InterceptedService;
    use tonic::transport::{Certificate, Channel, ClientTlsConfig};
    use tonic::{Request, Status};
    use tonic_health::ServingStatus;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    use super::*;

    const HOST: &str = "sqlflow-server";

    /// A folder with the self-signed pairs `one` and `two`; `tls` is a copy of the first.
    fn pairs() -> tempfile::TempDir {
        sqlflow_tls::install_provider();
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            let output = Command::new("openssl")
                .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
                .args(["-days", "30", "-subj", "/CN=test", "-keyout", &format!("{name}.key"), "-out"])
                .args([&format!("{name}.crt"), "-addext", &format!("subjectAltName=DNS:{HOST}")])
                .args(["-addext", "basicConstraints=critical,CA:FALSE"])
                .current_dir(dir.path())
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        renew(dir.path(), "one");
        dir
    }

    fn renew(dir: &Path, name: &str) {
        for kind in ["key", "crt"] {
            std::fs::copy(dir.join(format!("{name}.{kind}")), dir.join(format!("tls.{kind}"))).unwrap();
        }
    }

    #[test]
    fn invalid_certificate_keeps_the_previous_one() {
        let dir = pairs();
        let mut pair = Pair::of(&dir.path().join("tls.crt"), &dir.path().join("tls.key"));
        assert!(pair.reload().is_some());
        assert!(pair.reload().is_none(), "it is the same");
        std::fs::copy(dir.path().join("two.crt"), dir.path().join("tls.crt")).unwrap();
        assert!(pair.reload().is_none(), "its key does not exist yet");
        std::fs::write(dir.path().join("tls.crt"), "no certificate").unwrap();
        assert!(pair.reload().is_none());
        std::fs::remove_file(dir.path().join("tls.crt")).unwrap();
        assert!(pair.reload().is_none());
        renew(dir.path(), "two");
        assert!(pair.reload().is_some());
        assert!(pair.reload().is_none());
    }

    /// Admits every peer, as the service of agents admits an agent.
    fn admit(request: Request<()>) -> Result<Request<()>, Status> {
        request.extensions().get::<connections::Bounds>().expect("the listener's layer gives them").lift();
        Ok(request)
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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let [certificate, key] = ["tls.crt", "tls.key"].map(|name| dir.path().join(name));
        let mut tls = AgentTls::new(listener, &certificate, &key).unwrap();
        tls.poll_period = Duration::from_millis(10);
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
    async fn peer_silent_after_the_handshake_times_out() {
        let dir = pairs();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let [certificate, key] = ["tls.crt", "tls.key"].map(|name| dir.path().join(name));
        let tls = AgentTls::new(listener, &certificate, &key).unwrap();
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

    /// Agents stay connected while their attempts run, possibly for days.
    #[tokio::test]
    async fn stream_of_an_admitted_peer_outlives_the_timeout() {
        let dir = pairs();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let [certificate, key] = ["tls.crt", "tls.key"].map(|name| dir.path().join(name));
        let tls = AgentTls::new(listener, &certificate, &key).unwrap();
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
