//! Connections to a server, and their encryption.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sqlflow_data_source::{Keepalives, MysqlAddress};

use crate::stream::{Endpoint, Socket, Stream};

/// Time without data after which the peer is probed, and between the probes.
const KEEPALIVES: Keepalives = Keepalives {
    enabled: true,
    idle: Some(Duration::from_secs(60)),
    interval: Some(Duration::from_secs(15)),
    count: None,
    user_timeout: None,
};

/// Connects until the deadline, which the connection then has.
pub(super) fn connect(address: &MysqlAddress, deadline: Instant) -> io::Result<Stream> {
    let socket = match address {
        MysqlAddress::Socket(path) => {
            Socket::open(&Endpoint::Unix(path.clone()), &KEEPALIVES, Some(deadline))?
        }
        MysqlAddress::Tcp { host, port } => {
            let addresses: Vec<SocketAddr> = (host.as_str(), *port).to_socket_addrs()?.collect();
            Socket::open_first(&addresses, &KEEPALIVES, deadline)?
        }
    };
    Ok(Stream::Plain(socket))
}

/// Encrypts a TCP connection.
pub(super) fn encrypt(stream: Stream, host: &str, is_verified: bool) -> io::Result<Stream> {
    let Stream::Plain(socket) = stream else { return Ok(stream) };
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Stream::encrypt(socket, config(is_verified)?, name)
}

fn config(is_verified: bool) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let config = if is_verified {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(sqlflow_tls::trusted_certificates()?);
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        let accepts = Arc::new(AcceptAny { schemes });
        builder.dangerous().with_custom_certificate_verifier(accepts).with_no_client_auth()
    };
    Ok(Arc::new(config))
}

/// Accepts any certificate, also of versions that cannot be verified.
#[derive(Debug)]
struct AcceptAny {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
