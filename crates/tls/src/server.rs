//! TLS of listeners. Certificates are files that another program renews; each handshake uses the newest.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::{certificates_in, install_provider, private_key_in, revocation_lists_in};

/// Files of a listener's TLS, in PEM.
#[derive(Debug, Clone)]
pub struct ServerFiles {
    /// Its certificate, and those that sign it.
    pub certificate: PathBuf,
    /// The certificate's key.
    pub key: PathBuf,
    /// What clients' certificates are signed by. A client may show one; without this file none is requested.
    pub client_ca: Option<PathBuf>,
    /// Lists of revoked certificates of clients.
    pub client_crl: Option<PathBuf>,
}

/// Settings of a listener's handshakes, read again when the files change.
pub struct ServerTls {
    files: ServerFiles,
    /// Protocols above TLS, such as `h2`.
    protocols: Vec<Vec<u8>>,
    state: Mutex<State>,
}

struct State {
    content: Content,
    settings: Settings,
    /// The error of the last reload, which is returned once.
    last_error: String,
}

/// What the files mean.
struct Settings {
    config: Arc<ServerConfig>,
    /// Verifies the certificates of clients.
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    client_crl: Option<Vec<u8>>,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be read or used, or the certificate has another key. The message names the file.
    pub fn open(files: ServerFiles, protocols: &[&str]) -> io::Result<Self> {
        install_provider();
        let protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect::<Vec<_>>();
        let content = content(&files)?;
        let settings = settings(&files, &content, &protocols)?;
        let state = State { content, settings, last_error: String::new() };
        Ok(Self { files, protocols, state: Mutex::new(state) })
    }

    /// The settings for the next handshake.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.lock().settings.config)
    }

    /// Whether a client with this certificate, which those after it sign, would be accepted now: with the newest files, and
    /// at this time.
    #[must_use]
    pub fn accepts_client(&self, chain: &[CertificateDer<'_>]) -> bool {
        let clients = self.lock().settings.clients.clone();
        let Some(([certificate, signers @ ..], clients)) = Some(chain).zip(clients) else { return false };
        clients.verify_client_cert(certificate, signers, UnixTime::now()).is_ok()
    }

    /// The file with the certificate.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.files.certificate
    }

    /// Reads the files again if they have changed. Whether new ones are in use now.
    ///
    /// # Errors
    /// The changed files cannot be used, and the earlier ones stay in use. The same error is returned once.
    pub fn reload(&self) -> io::Result<bool> {
        let read = content(&self.files).and_then(|content| {
            if content == self.lock().content {
                return Ok(None);
            }
            settings(&self.files, &content, &self.protocols).map(|settings| Some((content, settings)))
        });
        let mut state = self.lock();
        match read {
            Ok(changed) => {
                state.last_error.clear();
                let is_new = changed.is_some();
                if let Some((content, settings)) = changed {
                    (state.content, state.settings) = (content, settings);
                }
                Ok(is_new)
            }
            Err(error) if error.to_string() == state.last_error => Ok(false),
            Err(error) => {
                state.last_error = error.to_string();
                Err(error)
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn content(files: &ServerFiles) -> io::Result<Content> {
    let read = |file: &Path| std::fs::read(file).map_err(|error| named("read", file, &error));
    Ok(Content {
        certificate: read(&files.certificate)?,
        key: read(&files.key)?,
        client_ca: files.client_ca.as_deref().map(read).transpose()?,
        client_crl: files.client_crl.as_deref().map(read).transpose()?,
    })
}

/// The settings of this content; the files are for errors.
fn settings(files: &ServerFiles, content: &Content, protocols: &[Vec<u8>]) -> io::Result<Settings> {
    let chain = certificates_in(&content.certificate);
    let chain = chain.map_err(|error| named("use", &files.certificate, &error))?;
    let key = private_key_in(&content.key).map_err(|error| named("use", &files.key, &error))?;
    let clients = client_verifier(files, content)?;
    let builder = match &clients {
        None => ServerConfig::builder().with_no_client_auth(),
        Some(verifier) => ServerConfig::builder().with_client_cert_verifier(Arc::clone(verifier)),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        io::Error::other(format!(
            "cannot use {} with the key {}: {error}",
            files.certificate.display(),
            files.key.display()
        ))
    })?;
    config.alpn_protocols = protocols.to_vec();
    Ok(Settings { config: Arc::new(config), clients })
}

/// What verifies the certificates of clients, if they may show one.
fn client_verifier(
    files: &ServerFiles,
    content: &Content,
) -> io::Result<Option<Arc<dyn ClientCertVerifier>>> {
    let Some((file, pem)) = files.client_ca.as_ref().zip(content.client_ca.as_ref()) else {
        return Ok(None);
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates_in(pem).map_err(|error| named("use", file, &error))? {
        roots.add(certificate).map_err(|error| named("use", file, &error))?;
    }
    let mut builder = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated();
    if let Some((file, pem)) = files.client_crl.as_ref().zip(content.client_crl.as_ref()) {
        let lists = revocation_lists_in(pem).map_err(|error| named("use", file, &error))?;
        // An authority without a list has revoked nothing. Authorities themselves are removed from the other file.
        builder =
            builder.with_crls(lists).allow_unknown_revocation_status().only_check_end_entity_revocation();
    }
    let verifier = builder.build().map_err(|error| {
        let file = files.client_crl.as_ref().unwrap_or(file);
        named("use", file, &error)
    })?;
    Ok(Some(verifier))
}

fn named(action: &str, file: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("cannot {action} {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{pairs, renew};

    /// The pairs, and the files of `tls`.
    fn files() -> (tempfile::TempDir, ServerFiles) {
        let dir = pairs();
        let file = |name: &str| dir.path().join(name);
        let (certificate, key) = (file("tls.crt"), file("tls.key"));
        let files = ServerFiles { certificate, key, client_ca: None, client_crl: None };
        (dir, files)
    }

    #[test]
    fn invalid_certificate_keeps_the_previous_one_and_is_reported_once() {
        let (dir, files) = files();
        let tls = ServerTls::open(files, &["h2"]).unwrap();
        let first = tls.config();
        assert!(!tls.reload().unwrap(), "it is the same");
        std::fs::copy(dir.path().join("two.crt"), dir.path().join("tls.crt")).unwrap();
        let error = tls.reload().unwrap_err().to_string();
        assert!(error.contains("tls.crt with the key"), "its key does not exist yet: {error}");
        assert!(!tls.reload().unwrap(), "reported once");
        for damage in ["no certificate", ""] {
            std::fs::write(dir.path().join("tls.crt"), damage).unwrap();
            let _ = tls.reload();
            assert!(Arc::ptr_eq(&first, &tls.config()), "{damage:?}");
        }
        std::fs::remove_file(dir.path().join("tls.crt")).unwrap();
        assert!(tls.reload().unwrap_err().to_string().contains("cannot read"));
        renew(dir.path(), "two");
        assert!(tls.reload().unwrap());
        assert!(!Arc::ptr_eq(&first, &tls.config()));
    }

    #[test]
    fn unusable_files_are_named() {
        let (dir, files) = files();
        let missing = ServerFiles { client_ca: Some(dir.path().join("no.crt")), ..files.clone() };
        let error = ServerTls::open(missing, &[]).err().unwrap().to_string();
        assert!(error.contains("cannot read") && error.contains("no.crt"), "{error}");
        let no_ca = ServerFiles { client_ca: Some(files.key.clone()), ..files.clone() };
        let error = ServerTls::open(no_ca, &[]).err().unwrap().to_string();
        assert!(error.contains("tls.key: it contains no certificate"), "{error}");
        let with_ca = ServerFiles { client_ca: Some(dir.path().join("two.crt")), ..files };
        assert!(ServerTls::open(with_ca.clone(), &["h2"]).is_ok());
        let no_list = ServerFiles { client_crl: with_ca.client_ca.clone(), ..with_ca };
        let error = ServerTls::open(no_list, &[]).err().unwrap().to_string();
        assert!(error.contains("two.crt: it contains no list of revoked certificates"), "{error}");
    }
}
