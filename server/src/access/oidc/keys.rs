//! The keys that a provider publishes (JWKS, RFC 7517).

use std::str::FromStr as _;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::signatures::{ED25519, P256, P384, RSA};

/// Maximum number of keys that are kept.
const MAX_KEYS: usize = 64;

/// Public keys for signatures.
pub struct Keys(Vec<Key>);

struct Key {
    id: Option<String>,
    /// What it may sign with.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl Keys {
    /// Reads the provider's document. Keys of unknown kinds, and those for encryption, are left out.
    ///
    /// # Errors
    /// It has another form, or no usable key.
    pub fn parse(document: &[u8]) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(document)
            .map_err(|error| format!("they are no JSON Web Key Set: {error}"))?;
        let keys: Vec<Key> = document.keys.iter().filter_map(key).take(MAX_KEYS).collect();
        if keys.is_empty() {
            Err("there is none for signatures that is known".to_owned())
        } else {
            Ok(Self(keys))
        }
    }

    /// The key with this id, if it may sign with this algorithm. A token without an id is signed with the only key that may.
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let mut found = self
            .0
            .iter()
            .filter(|it| it.algorithms.contains(&algorithm))
            .filter(|it| id.is_none_or(|id| it.id.as_deref() == Some(id)));
        match (found.next(), found.next()) {
            (Some(only), None) => Some(&only.key),
            _ => None,
        }
    }
}

fn key(value: &Value) -> Option<Key> {
    if value.get("use").is_some_and(|it| it != "sig") {
        return None;
    }
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    let possible = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &RSA[..],
        AlgorithmParameters::EllipticCurve(it) => match it.curve {
            EllipticCurve::P256 => &P256,
            EllipticCurve::P384 => &P384,
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(it) if it.curve == EllipticCurve::Ed25519 => &ED25519,
        _ => return None,
    };
    let algorithms = match value.get("alg") {
        None => possible.to_vec(),
        Some(name) => {
            let only = Algorithm::from_str(name.as_str()?).ok()?;
            possible.iter().copied().filter(|it| *it == only).collect()
        }
    };
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    (!algorithms.is_empty()).then_some(Key { id: jwk.common.key_id, algorithms, key })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ec(extra: &Value) -> Value {
        // Any 32 bytes will do: ring checks the point when it verifies.
        let mut key = json!({ "kty": "EC", "crv": "P-256", "x": "A".repeat(43), "y": "A".repeat(43) });
        key.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        key
    }

    fn keys(all: &[Value]) -> Result<Keys, String> {
        Keys::parse(json!({ "keys": all }).to_string().as_bytes())
    }

    #[test]
    fn key_is_found_by_its_id_and_its_algorithm() {
        let all = [
            ec(&json!({ "kid": "a", "alg": "ES256", "use": "sig" })),
            ec(&json!({ "kid": "b" })),
            json!({ "kty": "RSA", "kid": "c", "n": "sXch", "e": "AQAB", "alg": "RS512" }),
        ];
        let keys = keys(&all).unwrap();
        let is_found = |id, algorithm| keys.find(id, algorithm).is_some();
        assert!(is_found(Some("a"), Algorithm::ES256) && is_found(Some("b"), Algorithm::ES256));
        assert!(is_found(Some("c"), Algorithm::RS512) && is_found(None, Algorithm::RS512));
        for (id, algorithm) in [
            (Some("d"), Algorithm::ES256),
            (Some("a"), Algorithm::ES384),
            (Some("a"), Algorithm::RS512),
            (Some("a"), Algorithm::HS256),
            (Some("c"), Algorithm::RS256),
            // Which of the two?
            (None, Algorithm::ES256),
        ] {
            assert!(!is_found(id, algorithm), "{id:?} {algorithm:?}");
        }
    }

    #[test]
    fn keys_that_verify_no_signatures_are_left_out() {
        let useless = [
            json!({ "kty": "oct", "kid": "a", "k": "c2VjcmV0", "alg": "HS256" }),
            json!({ "kty": "oct", "kid": "a", "k": "c2VjcmV0" }),
            json!({ "kty": "new", "kid": "a" }),
            ec(&json!({ "kid": "a", "use": "enc" })),
            ec(&json!({ "kid": "a", "alg": "RS256" })),
            ec(&json!({ "kid": "a", "alg": "HS256" })),
            ec(&json!({ "kid": "a", "alg": "ECDH-ES" })),
            json!(1),
        ];
        assert!(keys(&useless).is_err());
        let with_one = [&useless[..], &[ec(&json!({ "kid": "b" }))]].concat();
        let found = keys(&with_one).unwrap();
        assert!(
            found.find(Some("a"), Algorithm::ES256).is_none()
                && found.find(Some("b"), Algorithm::ES256).is_some()
        );
        for wrong in ["", "{}", "[]", "{\"keys\": 1}", "<html>"] {
            assert!(Keys::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
