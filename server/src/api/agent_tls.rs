//! The TCP port that agents on other machines attach to. There is no form of it without TLS: assignments hold secrets.

use std::path::Path;

use anyhow::Context as _;
use sqlflow_proto::agent::agent_server::AgentServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{self, Identity, Server, ServerTlsConfig};

use super::KEEPALIVE;
use super::attach::AgentApi;

/// The port, bound, and what it shows.
pub struct AgentTls {
    listener: TcpListener,
    config: ServerTlsConfig,
}

impl AgentTls {
    /// Takes the certificate chain and the key from PEM files.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn new(listener: TcpListener, certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let read =
            |file: &Path| std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        let identity = Identity::from_pem(read(certificate)?, read(key)?);
        Ok(Self { listener, config: ServerTlsConfig::new().identity(identity) })
    }

    pub(super) async fn serve(
        self,
        service: AgentServer<AgentApi>,
        shutdown: CancellationToken,
    ) -> Result<(), transport::Error> {
        Server::builder()
            .tls_config(self.config)?
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .add_service(service)
            .serve_with_incoming_shutdown(TcpListenerStream::new(self.listener), shutdown.cancelled_owned())
            .await
    }
}
