//! A client's connection with TLS, which ends with the client's certificate: when that has expired or was revoked, or its
//! authority is not trusted any more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use sqlflow_identity::{Principal, certificate};
use sqlflow_tls::server::ServerTls;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::Peer;
use super::tls::{TlsStream, handshake};

/// Period of verifying the certificate again. One verification takes a tenth of a millisecond.
const VERIFY_PERIOD: Duration = Duration::from_secs(10);

/// The connection.
pub struct CertifiedStream {
    inner: TlsStream,
    /// Of a client that has a certificate.
    certificate: Option<ClientCertificate>,
}

/// A client's certificate, and those that sign it.
struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    tls: Arc<ServerTls>,
    next: Pin<Box<Sleep>>,
}

impl CertifiedStream {
    /// Completes the handshake of a connection with this peer, within a time limit. The peer is then the certificate's
    /// holder, if it has one.
    ///
    /// # Errors
    /// The peer does not speak TLS, is late, or shows a certificate that is not valid.
    pub async fn accept(stream: TcpStream, peer: Peer, tls: &Arc<ServerTls>) -> io::Result<(Self, Peer)> {
        let inner = handshake(stream, tls).await?;
        let chain = inner.get_ref().1.peer_certificates().map(<[_]>::to_vec);
        let certificate = chain.map(|chain| ClientCertificate {
            chain,
            tls: Arc::clone(tls),
            next: Box::pin(sleep(VERIFY_PERIOD)),
        });
        // A handshake that resumes a session repeats no verification.
        if certificate.as_ref().is_some_and(|it| !it.is_valid()) {
            return Err(invalid());
        }
        let holder = certificate.as_ref().and_then(ClientCertificate::holder);
        let principal = holder.or(peer.principal);
        Ok((Self { inner, certificate }, Peer { principal, ..peer }))
    }

    /// An error once the certificate is not valid any more. Wakes the task for the next verification.
    fn verified(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(certificate) = &mut self.certificate else { return Ok(()) };
        while certificate.next.as_mut().poll(context).is_ready() {
            if !certificate.is_valid() {
                let holder = certificate.holder();
                let holder = holder.as_ref().map(Principal::name);
                tracing::info!(
                    holder,
                    "a client's certificate is not valid any more; closing its connection"
                );
                return Err(invalid());
            }
            certificate.next.as_mut().reset(Instant::now() + VERIFY_PERIOD);
        }
        Ok(())
    }
}

impl ClientCertificate {
    fn holder(&self) -> Option<Principal> {
        certificate::holder(self.chain.first()?)
    }

    fn is_valid(&self) -> bool {
        self.tls.accepts_client(&self.chain)
    }
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "the client's certificate is not valid")
}

impl AsyncRead for CertifiedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.verified(context)?;
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for CertifiedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.verified(context)?;
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.verified(context)?;
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.verified(context)?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
