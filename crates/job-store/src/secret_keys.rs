//! Keys that encrypt the secrets of live jobs: AES-256-GCM, with a random nonce for each secret. A ciphertext is bound to
//! its job and its name, so it is of no use in another row.
//!
//! One key may encrypt some 2^32 secrets before two nonces are likely to be equal: a thousand jobs a second for weeks.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};
use sqlflow_job::JobId;

use crate::types::{Secret, StoreError};

/// Length of a key in bytes.
pub(crate) const KEY_BYTES: usize = 32;
/// Bytes of a key's hash that are its id.
const ID_BYTES: usize = 8;
/// What is hashed before a key, so that the id is of no other use.
const ID_CONTEXT: &[u8] = b"sqlflow secrets key 1\0";

/// A key.
pub struct SecretKey {
    id: String,
    cipher: LessSafeKey,
}

/// Without the key itself.
impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A text or file that is no key. The message has no part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is no key of 32 bytes; write 32 random bytes, or the same as hexadecimal digits or in base64, such as by openssl \
     rand -hex 32"
)]
pub struct KeyError;

impl SecretKey {
    /// Reads a key: its bytes, or the same as hexadecimal digits or in base64, with white space around them.
    ///
    /// # Errors
    /// It is no key.
    pub fn read(content: &[u8]) -> Result<Self, KeyError> {
        if content.len() == KEY_BYTES {
            return Self::new(content);
        }
        let text = content.trim_ascii();
        if text.len() == 2 * KEY_BYTES {
            return Self::new(&hex::decode(text).map_err(|_| KeyError)?);
        }
        let engines = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD];
        let bytes = engines.iter().find_map(|engine| engine.decode(text).ok()).ok_or(KeyError)?;
        Self::new(&bytes)
    }

    fn new(bytes: &[u8]) -> Result<Self, KeyError> {
        let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| KeyError)?;
        let hash = Sha256::new().chain_update(ID_CONTEXT).chain_update(bytes).finalize();
        Ok(Self { id: hex::encode(&hash[..ID_BYTES]), cipher: LessSafeKey::new(key) })
    }

    /// Name of the key, which may be shown.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn seal(&self, place: &Place<'_>, secret: &str) -> Option<String> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut text = secret.as_bytes().to_vec();
        let nonce_value = Nonce::assume_unique_for_key(nonce);
        self.cipher.seal_in_place_append_tag(nonce_value, Aad::from(place.bytes()), &mut text).ok()?;
        Some(hex::encode([&nonce[..], &text[..]].concat()))
    }

    fn open(&self, place: &Place<'_>, sealed: &str) -> Option<Secret> {
        let bytes = hex::decode(sealed).ok()?;
        let (nonce, text) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.cipher.open_in_place(nonce, Aad::from(place.bytes()), &mut text).ok()?;
        Some(Secret::new(std::str::from_utf8(opened).ok()?))
    }
}

/// Where a secret is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) job: &'a JobId,
    pub(crate) name: &'a str,
}

impl Place<'_> {
    fn bytes(&self) -> Vec<u8> {
        // An id has no zero byte.
        [self.job.as_str().as_bytes(), b"\0", self.name.as_bytes()].concat()
    }
}

/// A secret as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredSecret {
    pub(crate) value: String,
    /// The key that encrypts it.
    pub(crate) key: Option<String>,
}

/// The keys of a server.
#[derive(Debug, Default)]
pub struct SecretKeys {
    /// Encrypts; `None`: nothing is encrypted.
    current: Option<SecretKey>,
    /// These only decrypt.
    old: Vec<SecretKey>,
}

impl SecretKeys {
    /// The key that encrypts, and earlier ones.
    #[must_use]
    pub fn new(current: SecretKey, old: Vec<SecretKey>) -> Self {
        Self { current: Some(current), old }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.current.is_none()
    }

    /// Id of the key that encrypts.
    pub(crate) fn current_id(&self) -> Option<&str> {
        self.current.as_ref().map(SecretKey::id)
    }

    /// Whether this key is among them.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.find(id).is_some()
    }

    fn find(&self, id: &str) -> Option<&SecretKey> {
        self.current.iter().chain(&self.old).find(|key| key.id == id)
    }

    /// # Errors
    /// It is far too long for a secret.
    pub(crate) fn seal(&self, place: &Place<'_>, secret: &Secret) -> Result<StoredSecret, StoreError> {
        let Some(key) = &self.current else {
            return Ok(StoredSecret { value: secret.expose().to_owned(), key: None });
        };
        let value = key.seal(place, secret.expose()).ok_or_else(|| damaged(place))?;
        Ok(StoredSecret { value, key: Some(key.id.clone()) })
    }

    /// # Errors
    /// Its key is another one, or it is damaged.
    pub(crate) fn open(&self, place: &Place<'_>, stored: &StoredSecret) -> Result<Secret, StoreError> {
        let Some(id) = &stored.key else { return Ok(Secret::new(stored.value.as_str())) };
        let key = self.find(id);
        let key = key.ok_or_else(|| StoreError::OtherKey { job: place.job.to_string(), key: id.clone() })?;
        key.open(place, &stored.value).ok_or_else(|| damaged(place))
    }
}

fn damaged(place: &Place<'_>) -> StoreError {
    StoreError::DamagedSecret(place.job.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DSN: &str = "mysql://ana:open-sesame@db/shop";

    fn key(byte: u8) -> SecretKey {
        SecretKey::read(&[byte; KEY_BYTES]).unwrap()
    }

    #[test]
    fn forms_of_one_key_are_equal() {
        let bytes: Vec<u8> = (200..232).collect();
        let id = SecretKey::read(&bytes).unwrap().id;
        assert_eq!(id.len(), 16);
        for text in [
            hex::encode(&bytes),
            format!(" {}\n", hex::encode_upper(&bytes)),
            STANDARD.encode(&bytes) + "\n",
            URL_SAFE_NO_PAD.encode(&bytes),
        ] {
            assert_eq!(SecretKey::read(text.as_bytes()).unwrap().id, id, "{text}");
        }
        assert_ne!(key(1).id, key(2).id);
        let short = hex::encode(&bytes[1..]);
        let wrong: [&[u8]; 7] =
            [b"", b"open-sesame", &bytes[1..], &[7; 33], short.as_bytes(), &[b'x'; 64], b"AAAA"];
        for wrong in wrong {
            let error = SecretKey::read(wrong).unwrap_err().to_string();
            assert!(error.starts_with("it is no key of 32 bytes; ") && !error.contains("sesame"), "{error}");
        }
        assert!(!format!("{:?}", key(b'k')).contains("kkk"));
    }

    #[test]
    fn secret_is_opened_in_its_place_by_its_key_only() {
        let (job, other) = (JobId::generate(), JobId::generate());
        let place = Place { job: &job, name: "a" };
        let keys = SecretKeys::new(key(1), vec![key(2)]);
        let stored = keys.seal(&place, &Secret::new(DSN)).unwrap();
        assert_eq!(stored.key.as_deref(), Some(key(1).id()));
        assert!(!stored.value.contains("sesame") && !stored.value.contains(&hex::encode("sesame")));
        assert_eq!(keys.open(&place, &stored).unwrap().expose(), DSN);
        assert_ne!(keys.seal(&place, &Secret::new(DSN)).unwrap(), stored, "the nonce is random");
        // As an old key.
        let rotated = SecretKeys::new(key(3), vec![key(1)]);
        assert_eq!(rotated.open(&place, &stored).unwrap().expose(), DSN);
        for place in [Place { job: &other, name: "a" }, Place { job: &job, name: "b" }] {
            assert!(matches!(keys.open(&place, &stored), Err(StoreError::DamagedSecret(_))), "{place:?}");
        }
        for at in [0, 30, stored.value.len() - 1] {
            let mut value = stored.value.clone().into_bytes();
            value[at] = if value[at] == b'0' { b'1' } else { b'0' };
            let value = String::from_utf8(value).unwrap();
            let changed = StoredSecret { value, ..stored.clone() };
            assert!(matches!(keys.open(&place, &changed), Err(StoreError::DamagedSecret(_))), "{at}");
        }
        for value in ["", "00", "not hexadecimal"] {
            let cut = StoredSecret { value: value.to_owned(), ..stored.clone() };
            assert!(matches!(keys.open(&place, &cut), Err(StoreError::DamagedSecret(_))), "{value}");
        }
        for keys in [SecretKeys::default(), SecretKeys::new(key(2), Vec::new())] {
            let error = keys.open(&place, &stored).unwrap_err().to_string();
            assert!(error.contains(key(1).id()) && error.contains("--secrets-key-old"), "{error}");
        }
        let plain = SecretKeys::default().seal(&place, &Secret::new(DSN)).unwrap();
        assert_eq!(plain, StoredSecret { value: DSN.to_owned(), key: None });
        assert_eq!(keys.open(&place, &plain).unwrap().expose(), DSN, "of earlier versions");
    }
}
