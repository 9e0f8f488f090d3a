//! Signatures of tokens, by the cryptography that TLS has too: another library would be a second one in this program.

use std::sync::Once;

use ::ring::signature as ring;
use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};

/// Lets `jsonwebtoken` verify with ring. It never signs.
static RING: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: |algorithm, key| Ok(Box::new(Key::of(*algorithm, key)?)),
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes ring the cryptography of `jsonwebtoken`. Idempotent.
pub fn install() {
    static INSTALLED: Once = Once::new();
    // An error means that another one is installed, which only this function does.
    INSTALLED.call_once(|| {
        let _ = RING.install_default();
    });
}

/// Algorithms of a key by its kind, which are all that are accepted: without HMAC, for which the public key would be a
/// secret, and without `none`.
pub const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
/// Of the curve P-256.
pub const P256: [Algorithm; 1] = [Algorithm::ES256];
/// Of the curve P-384.
pub const P384: [Algorithm; 1] = [Algorithm::ES384];
/// Of the curve Ed25519.
pub const ED25519: [Algorithm; 1] = [Algorithm::EdDSA];

/// A public key for one algorithm.
enum Key {
    /// Modulus and exponent.
    Rsa { algorithm: Algorithm, rules: &'static ring::RsaParameters, n: Vec<u8>, e: Vec<u8> },
    /// A point.
    Curve { algorithm: Algorithm, rules: &'static dyn ring::VerificationAlgorithm, point: Vec<u8> },
}

impl Key {
    fn of(algorithm: Algorithm, key: &DecodingKey) -> Result<Self, Error> {
        let rsa = |rules| match key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                Ok(Self::Rsa { algorithm, rules, n: without_zeros(n), e: without_zeros(e) })
            }
            DecodingKeyKind::SecretOrDer(_) => Err(Error::from(ErrorKind::InvalidKeyFormat)),
        };
        let curve = |rules| match key.kind() {
            DecodingKeyKind::SecretOrDer(point) => Ok(Self::Curve { algorithm, rules, point: point.clone() }),
            DecodingKeyKind::RsaModulusExponent { .. } => Err(Error::from(ErrorKind::InvalidKeyFormat)),
        };
        match algorithm {
            Algorithm::RS256 => rsa(&ring::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => rsa(&ring::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => rsa(&ring::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => rsa(&ring::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => rsa(&ring::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => rsa(&ring::RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => curve(&ring::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => curve(&ring::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => curve(&ring::ED25519),
            _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
        }
    }
}

/// A number as ring takes it. Some providers write it with leading zeros.
fn without_zeros(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|it| *it == 0).collect()
}

impl Verifier<Vec<u8>> for Key {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match self {
            Self::Rsa { rules, n, e, .. } => {
                ring::RsaPublicKeyComponents { n, e }.verify(rules, message, signature)
            }
            Self::Curve { rules, point, .. } => {
                ring::UnparsedPublicKey::new(*rules, point).verify(message, signature)
            }
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Key {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa { algorithm, .. } | Self::Curve { algorithm, .. } => *algorithm,
        }
    }
}
