//! TLS of this workspace: whom clients trust, how they show who they are, the certificates of listeners, and the
//! cryptography underneath.

#[cfg(any(test, feature = "test-support"))]
pub mod fixture;
pub mod server;

use std::io;
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, TrustAnchor};

/// Certificate bundles of the usual distributions.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Installs ring as the provider of this process. Idempotent: a second installation fails, which has no effect.
pub fn install_provider() {
    #[expect(clippy::disallowed_methods, reason = "the one place that installs it")]
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Certificates that are trusted if nothing else is named: those in `SSL_CERT_FILE`, or the system's, or Mozilla's in
/// an image that has none.
///
/// # Errors
/// `SSL_CERT_FILE` cannot be used; the message names it.
pub fn trusted_certificates() -> io::Result<Vec<CertificateDer<'static>>> {
    if let Some(path) = std::env::var_os("SSL_CERT_FILE") {
        let path = Path::new(&path);
        return certificates(path).map_err(|error| {
            io::Error::other(format!("cannot use SSL_CERT_FILE {}: {error}", path.display()))
        });
    }
    let system = BUNDLES.iter().find_map(|path| certificates(Path::new(path)).ok());
    Ok(system.unwrap_or_else(|| webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec()))
}

/// Certificates as trust anchors. One that cannot be one is left out, as some of every system's are.
#[must_use]
pub fn anchors(certificates: &[CertificateDer<'_>]) -> Vec<TrustAnchor<'static>> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates.iter().map(|it| it.clone().into_owned()));
    store.roots
}

/// Certificates of a PEM file.
///
/// # Errors
/// The file cannot be read, is no PEM, or has no certificate.
pub fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    certificates_in(&std::fs::read(path)?)
}

fn certificates_in(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| io::Error::other(format!("it is no PEM file: {error}")))?;
    if all.is_empty() { Err(io::Error::other("it contains no certificate")) } else { Ok(all) }
}

fn revocation_lists_in(pem: &[u8]) -> io::Result<Vec<CertificateRevocationListDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| io::Error::other(format!("it is no PEM file: {error}")))?;
    if all.is_empty() {
        Err(io::Error::other("it contains no list of revoked certificates"))
    } else {
        Ok(all)
    }
}

/// The private key of a PEM file.
///
/// # Errors
/// The file cannot be read, or has no private key.
pub fn private_key(path: &Path) -> io::Result<PrivateKeyDer<'static>> {
    private_key_in(&std::fs::read(path)?)
}

fn private_key_in(pem: &[u8]) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| io::Error::other("it contains no private key in PEM"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_without_certificate_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty.pem");
        assert!(certificates(&path).is_err(), "it does not exist");
        std::fs::write(&path, "no PEM\n").unwrap();
        assert_eq!(certificates(&path).unwrap_err().to_string(), "it contains no certificate");
        assert_eq!(private_key(&path).unwrap_err().to_string(), "it contains no private key in PEM");
    }
}
