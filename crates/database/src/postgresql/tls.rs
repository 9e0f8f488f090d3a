//! TLS as libpq has it: what `sslmode` verifies, and the binding of the authentication to the connection.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sqlflow_data_source::{PostgresqlTls, SslMode, SslRoot};

use crate::Error;
use crate::stream::{Socket, Stream};

/// The server's answer to the request for TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Supported,
    Unsupported,
}

/// The configuration of a data source's connections.
///
/// # Errors
/// `User`: a file cannot be used.
pub(super) fn configuration(tls: &PostgresqlTls) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(verifier(tls, &provider)?);
    let versions: &[_] = if tls.only_tls_1_3 { &[&rustls::version::TLS13] } else { rustls::ALL_VERSIONS };
    let broken = |error: rustls::Error| Error::user(format!("cannot use TLS for the data source: {error}"));
    let builder =
        ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).map_err(broken)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut configuration = match identity(tls, default_file) {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificates = sqlflow_tls::certificates(&certificate)
                .map_err(|error| unusable("sslcert", &certificate, &error))?;
            let private = sqlflow_tls::private_key(&key).map_err(|error| unusable("sslkey", &key, &error))?;
            builder.with_client_auth_cert(certificates, private).map_err(broken)?
        }
    };
    configuration.enable_sni = tls.sni;
    configuration.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(Arc::new(configuration))
}

/// The files of the client's certificate and its key; `None`: the client shows none.
fn identity(
    tls: &PostgresqlTls,
    default_file: impl Fn(&str) -> Option<PathBuf>,
) -> Option<(PathBuf, PathBuf)> {
    match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => Some((PathBuf::from(certificate), PathBuf::from(key))),
        _ if !tls.uses_default_certificate => None,
        _ => default_file("postgresql.crt").zip(default_file("postgresql.key")),
    }
}

/// Requests TLS.
pub(super) fn request(socket: &mut Socket) -> io::Result<Answer> {
    let mut request = bytes::BytesMut::new();
    postgres_protocol::message::frontend::ssl_request(&mut request);
    socket.write_all(&request)?;
    // Nothing but this byte may be read in plain text.
    let mut answer = [0];
    socket.read_exact(&mut answer)?;
    match answer {
        [b'S'] => Ok(Answer::Supported),
        [b'N'] => Ok(Answer::Unsupported),
        _ => Err(io::Error::other("it does not answer like a PostgreSQL server; check host and port")),
    }
}

/// Whether the other side has ended TLS with an alert.
pub(super) fn is_alert(error: &io::Error) -> bool {
    matches!(tls_error(error), Some(rustls::Error::AlertReceived(_)))
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What the user can correct after a handshake failed: the server's certificate, or the client's.
pub(super) fn problem(error: &io::Error, host: &str) -> Option<String> {
    let problem = match tls_error(error)? {
        rustls::Error::InvalidCertificate(problem) => problem,
        rustls::Error::AlertReceived(alert) => {
            return Some(format!(
                "it ended the TLS handshake with the alert {alert:?}; check sslcert and sslkey"
            ));
        }
        _ => return None,
    };
    let problem = match problem {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "it is not for host {host}; correct the host, or have its name added to the certificate (SAN)"
            )
        }
        CertificateError::UnknownIssuer => {
            "its authority is not trusted; name a file with the authority's certificate by sslrootcert"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired; renew it".to_owned()
        }
        other => format!("{other}; correct the certificate, or its authority in sslrootcert"),
    };
    Some(format!("cannot verify the server's certificate: {problem}"))
}

/// The data that binds the authentication to a connection (RFC 5929, tls-server-end-point): the hash of the server's
/// certificate. `None`: no TLS, or the certificate's signature has no hash function that is known.
pub(super) fn end_point(stream: &Stream) -> Option<Vec<u8>> {
    let Stream::Tls(tls) = stream else { return None };
    let certificate = tls.conn.peer_certificates()?.first()?;
    let digest = ring::digest::digest(signature_hash(certificate)?, certificate);
    Some(digest.as_ref().to_vec())
}

/// The hash function of a certificate's signature. MD5 and SHA-1 are replaced by SHA-256.
fn signature_hash(certificate: &[u8]) -> Option<&'static ring::digest::Algorithm> {
    use ring::digest::{SHA256, SHA384, SHA512};

    const SEQUENCE: u8 = 0x30;
    const OID: u8 = 0x06;
    // Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OID, … }, … }
    let (content, _) = element(certificate, SEQUENCE)?;
    let (_, rest) = element(content, SEQUENCE)?;
    let (algorithm, _) = element(rest, SEQUENCE)?;
    let (oid, _) = element(algorithm, OID)?;
    match oid {
        // 1.2.840.113549.1.1: RSA with MD5, SHA-1, SHA-256, SHA-384, SHA-512.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, hash] => match hash {
            4 | 5 | 11 => Some(&SHA256),
            12 => Some(&SHA384),
            13 => Some(&SHA512),
            _ => None,
        },
        // 1.2.840.10045.4: ECDSA with SHA-1; with SHA-256, SHA-384, SHA-512.
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 1] => Some(&SHA256),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 3, hash] => match hash {
            2 => Some(&SHA256),
            3 => Some(&SHA384),
            4 => Some(&SHA512),
            _ => None,
        },
        _ => None,
    }
}

/// The content of the DER element at the beginning, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    if *first == tag { rest.split_at_checked(length) } else { None }
}

fn verifier(tls: &PostgresqlTls, provider: &Arc<CryptoProvider>) -> Result<Verifier, Error> {
    let root = tls.root.clone().or_else(|| {
        let file = default_file("root.crt")?;
        Some(SslRoot::File(file.to_string_lossy().into_owned()))
    });
    let verifies = matches!(tls.mode, SslMode::VerifyCa | SslMode::VerifyFull);
    // As libpq does, `require` verifies the authority if its certificate is there.
    let anchors = match root {
        Some(SslRoot::System) => sqlflow_tls::trusted_certificates()
            .map_err(|error| Error::user(format!("cannot use TLS for the data source: {error}")))?,
        Some(SslRoot::File(path)) if verifies || tls.mode == SslMode::Require => {
            let path = Path::new(&path);
            sqlflow_tls::certificates(path).map_err(|error| unusable("sslrootcert", path, &error))?
        }
        None if verifies => {
            return Err(Error::user(
                "cannot verify the server's certificate: the data source names no authority; add sslrootcert with a \
                 file, or sslrootcert=system for public authorities",
            ));
        }
        Some(SslRoot::File(_)) | None => Vec::new(),
    };
    if let Some(list) = default_file("root.crl").filter(|_| !anchors.is_empty()) {
        let unsupported =
            io::Error::other("revocation lists are not supported; remove it, or use another HOME");
        return Err(unusable("the file", &list, &unsupported));
    }
    let algorithms = provider.signature_verification_algorithms;
    if anchors.is_empty() {
        return Ok(Verifier { chain: None, anchors, checks_name: false, algorithms });
    }
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(anchors.iter().cloned());
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
        .build()
        .map_err(|error| Error::user(format!("cannot use the certificates of sslrootcert: {error}")))?;
    Ok(Verifier { chain: Some(chain), anchors, checks_name: tls.mode == SslMode::VerifyFull, algorithms })
}

/// A file of libpq's folder in the user's home, if it exists.
fn default_file(name: &str) -> Option<PathBuf> {
    let path = Path::new(&std::env::var_os("HOME")?).join(".postgresql").join(name);
    path.exists().then_some(path)
}

fn unusable(option: &str, path: &Path, error: &io::Error) -> Error {
    Error::user(format!("cannot use {option} {}: {error}", path.display()))
}

/// Verifies as much of a certificate as `sslmode` demands.
#[derive(Debug)]
struct Verifier {
    /// `None`: any certificate is accepted.
    chain: Option<Arc<WebPkiServerVerifier>>,
    anchors: Vec<CertificateDer<'static>>,
    checks_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        // PostgreSQL's documentation makes a certificate that is its own authority, which a chain may not end with.
        if !self.anchors.contains(certificate) {
            match chain.verify_server_cert(certificate, intermediates, name, ocsp_response, now) {
                // The name is checked last.
                Err(rustls::Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => {}
                other => {
                    other?;
                }
            }
        }
        if self.checks_name {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_data_source::Reach;

    use super::super::source;
    use super::*;

    #[test]
    fn certificate_in_the_home_is_not_shown_for_clients() {
        let home = Some((PathBuf::from("/home/postgresql.crt"), PathBuf::from("/home/postgresql.key")));
        let given = Some((PathBuf::from("/c"), PathBuf::from("/k")));
        for (text, is_clients, expected) in [
            ("postgresql://h/d", false, &home),
            ("postgresql://h/d", true, &None),
            ("postgresql://h/d?sslcert=/c&sslkey=/k", false, &given),
            ("postgresql://h/d?sslcert=/c&sslkey=/k", true, &given),
        ] {
            let source = source(text, &Reach { is_clients, ..Reach::default() }).unwrap();
            let found = identity(&source.tls, |name| Some(Path::new("/home").join(name)));
            assert_eq!(&found, expected, "{text} {is_clients}");
        }
        let source = source("postgresql://h/d", &Reach::default()).unwrap();
        let no_key = |name: &str| (name == "postgresql.crt").then(|| PathBuf::from(name));
        assert_eq!(identity(&source.tls, no_key), None, "a certificate is of no use without its key");
    }
}
