//! Cryptography of TLS connections.

/// Installs ring as the provider of this process. Call it before the first TLS connection. Idempotent: a second
/// installation fails, which has no effect.
pub fn install_provider() {
    #[expect(clippy::disallowed_methods, reason = "the one place that installs it")]
    let _ = rustls::crypto::ring::default_provider().install_default();
}
