//! TLS handshakes of listeners, and the reloading of their certificates.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sqlflow_tls::server::ServerTls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::connections::FIRST_BYTES_TIME;

/// A connection with TLS.
pub type TlsStream = tokio_rustls::server::TlsStream<TcpStream>;

/// Limits of what is read from a peer after a failed handshake.
const GOODBYE_TIME: Duration = Duration::from_secs(1);
const GOODBYE_BYTES: u64 = 64 * 1024;
/// Period of checking for renewed files.
const POLL_PERIOD: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(10) };

/// Completes the handshake of a connection, within a time limit.
///
/// # Errors
/// The peer does not speak TLS, is late, or shows a certificate of somebody else.
pub async fn handshake(stream: TcpStream, tls: &ServerTls) -> io::Result<TlsStream> {
    let accepting = TlsAcceptor::from(tls.config()).accept(stream).into_fallible();
    match tokio::time::timeout(FIRST_BYTES_TIME, accepting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err((error, stream))) => {
            let _ = tokio::time::timeout(GOODBYE_TIME, say_goodbye(stream)).await;
            Err(error)
        }
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Reads what the peer has sent meanwhile. If that were unread when the connection is closed, the peer would not get
/// the alert that says why.
async fn say_goodbye(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(GOODBYE_BYTES), &mut tokio::io::sink()).await.map(drop)
}

/// Reloads renewed certificates until it is dropped.
pub struct CertificateReloads(tokio::task::JoinHandle<()>);

impl CertificateReloads {
    /// Of this listener.
    #[must_use]
    pub fn begin(tls: Arc<ServerTls>, who: &'static str, shutdown: CancellationToken) -> Self {
        Self(tokio::spawn(async move {
            while tokio::time::timeout(POLL_PERIOD, shutdown.cancelled()).await.is_err() {
                let files = Arc::clone(&tls);
                let Ok(reloaded) = tokio::task::spawn_blocking(move || files.reload()).await else { return };
                match reloaded {
                    Ok(true) => {
                        tracing::info!(who, certificate = %tls.certificate().display(), "certificate reloaded");
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::error!(who, %error, "cannot reload the certificate; using the previous one");
                    }
                }
            }
        }))
    }
}

impl Drop for CertificateReloads {
    fn drop(&mut self) {
        self.0.abort();
    }
}
