//! TLS of the connection to the collector, for both transports.

use anyhow::{Context as _, bail};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tonic::transport::{ClientTlsConfig, Identity};

use crate::{Collector, TlsFiles};

pub(super) fn tonic_config(files: &TlsFiles) -> anyhow::Result<ClientTlsConfig> {
    sqlflow_tls::install_provider();
    let roots = roots(files)?;
    let mut config = ClientTlsConfig::new().trust_anchors(roots.roots.clone());
    if let Some((certificate, key)) = &files.identity {
        // Only for its errors, which name the variable.
        with_identity(roots, files)?;
        let read = |path: &std::path::Path| {
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
        };
        config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(config)
}

/// Without certificates for an endpoint that is not encrypted: reading the system's takes time, and may fail.
pub(super) fn rustls_config(collector: &Collector) -> anyhow::Result<ClientConfig> {
    sqlflow_tls::install_provider();
    if collector.is_encrypted() {
        with_identity(roots(&collector.tls)?, &collector.tls)
    } else {
        with_identity(RootCertStore::empty(), &TlsFiles::default())
    }
}

fn with_identity(roots: RootCertStore, files: &TlsFiles) -> anyhow::Result<ClientConfig> {
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let Some((certificate, key)) = &files.identity else { return Ok(builder.with_no_client_auth()) };
    let chain = sqlflow_tls::certificates(certificate).with_context(|| {
        format!("cannot use OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE {}", certificate.display())
    })?;
    let named = || format!("cannot use OTEL_EXPORTER_OTLP_CLIENT_KEY {}", key.display());
    let key = sqlflow_tls::private_key(key).with_context(named)?;
    builder.with_client_auth_cert(chain, key).with_context(named)
}

fn roots(files: &TlsFiles) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let certificates: Vec<CertificateDer<'static>> = match &files.trusted {
        Some(path) => sqlflow_tls::certificates(path)
            .with_context(|| format!("cannot use OTEL_EXPORTER_OTLP_CERTIFICATE {}", path.display()))?,
        None => sqlflow_tls::trusted_certificates()?,
    };
    // The system's certificates may include some that rustls cannot parse.
    let (added, _) = roots.add_parsable_certificates(certificates);
    if let Some(path) = files.trusted.as_ref().filter(|_| added == 0) {
        bail!(
            "cannot use OTEL_EXPORTER_OTLP_CERTIFICATE {}: it contains no usable certificate",
            path.display()
        );
    }
    Ok(roots)
}
