//! Checks a token against a provider's keys, and finds its principal. Nothing here asks the provider.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sqlflow_identity::{Method, Principal};
use sqlflow_text::escape::escaped;

use super::keys::Keys;
use super::signatures;
use crate::access::verifiers::MAX_TOKEN_BYTES;

/// Difference between the provider's clock and the server's.
const LEEWAY_SECONDS: u64 = 60;
/// Maximum length of a principal and of a group, in bytes.
const MAX_NAME_BYTES: usize = 256;
/// Kinds of tokens that say who somebody is. Others, such as logout tokens, may have the same issuer and audience.
const KINDS: [&str; 2] = ["jwt", "at+jwt"];

/// What a verified token says.
pub type Claims = Map<String, Value>;

/// What a token says of itself before anything is verified.
pub struct Unverified {
    head: Head,
    body: Body,
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    /// Extensions that a reader must know. There is none that this one knows.
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Body {
    iss: String,
    #[serde(default)]
    exp: Value,
    #[serde(default)]
    nbf: Value,
}

impl Unverified {
    /// Reads a token. `None`: it is no JWT with an issuer.
    #[must_use]
    pub fn of(token: &str) -> Option<Self> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let mut parts = token.split('.');
        let (Some(head), Some(body), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        Some(Self { head: part(head)?, body: part(body)? })
    }

    /// Its issuer.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.body.iss
    }

    /// The id of the key that should have signed it, and the algorithm.
    ///
    /// # Errors
    /// Nothing signed in this way is accepted.
    pub fn signed_with(&self) -> Result<(Option<&str>, Algorithm), Wrong> {
        let accepted =
            || [&signatures::RSA[..], &signatures::P256, &signatures::P384, &signatures::ED25519].concat();
        let found = self.head.alg.parse::<Algorithm>().ok().filter(|it| accepted().contains(it));
        Ok((self.head.kid.as_deref(), found.ok_or(Wrong::Algorithm)?))
    }

    /// Verifies the same token.
    ///
    /// # Errors
    /// It was not issued by this issuer for one of these audiences, or is not valid now.
    pub fn verify(
        &self,
        token: &str,
        keys: &Keys,
        issuer: &str,
        audiences: &[String],
    ) -> Result<Claims, Wrong> {
        let (key, algorithm) = self.signed_with()?;
        let kind = self.head.typ.as_deref().unwrap_or(KINDS[0]).to_ascii_lowercase();
        let kind = kind.strip_prefix("application/").unwrap_or(&kind);
        if self.head.crit.is_some() || !KINDS.contains(&kind) {
            return Err(Wrong::Kind);
        }
        let key = keys.find(key, algorithm).ok_or(Wrong::Key)?;
        let mut rules = Validation::new(algorithm);
        rules.leeway = LEEWAY_SECONDS;
        rules.validate_nbf = true;
        rules.set_issuer(&[issuer]);
        rules.set_audience(audiences);
        rules.set_required_spec_claims(&["exp", "iss", "aud"]);
        signatures::install();
        let verified = decode::<Claims>(token, key, &rules).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => Wrong::Expired(moment(&self.body.exp)),
            ErrorKind::ImmatureSignature => Wrong::Early(moment(&self.body.nbf)),
            ErrorKind::InvalidAudience => Wrong::Audience(audiences.join(" or ")),
            ErrorKind::InvalidIssuer => Wrong::Issuer(issuer.to_owned()),
            ErrorKind::MissingRequiredClaim(name) => Wrong::Missing(name.clone()),
            _ => Wrong::Signature,
        })?;
        // The library would also accept a list with this issuer.
        if verified.claims.get("iss").and_then(Value::as_str) != Some(issuer) {
            return Err(Wrong::Issuer(issuer.to_owned()));
        }
        Ok(verified.claims)
    }
}

/// A part of a token.
fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// Seconds since the Unix epoch, for people.
fn moment(seconds: &Value) -> String {
    let seconds = seconds.as_f64().unwrap_or_default();
    // The conversion saturates.
    let moment = jiff::Timestamp::from_second(seconds as i64);
    moment.map_or_else(|_| "a time that is no date".to_owned(), |it| it.to_string())
}

/// Which claims name somebody.
#[derive(Debug, Clone)]
pub struct NameClaims {
    /// The principal's name.
    pub principal: String,
    /// Its groups: a list of texts, or one text.
    pub groups: String,
}

impl NameClaims {
    /// The principal of a verified token.
    ///
    /// # Errors
    /// The claim is missing, or is no name.
    pub fn principal(&self, claims: &Claims) -> Result<Principal, Wrong> {
        let name = claims.get(&self.principal).ok_or_else(|| Wrong::Missing(self.principal.clone()))?;
        let name =
            name.as_str().filter(|it| is_name(it)).ok_or_else(|| Wrong::Name(self.principal.clone()))?;
        // Some providers let their users enter any address.
        let is_verified = || {
            let found = claims.get("email_verified");
            found.is_some_and(|it| *it == Value::Bool(true) || it.as_str() == Some("true"))
        };
        if self.principal == "email" && !is_verified() {
            return Err(Wrong::Email);
        }
        let groups = match claims.get(&self.groups) {
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(only)) => vec![only.as_str()],
            _ => Vec::new(),
        };
        let groups = groups.into_iter().filter(|it| is_name(it));
        Ok(Principal::new(Method::Oidc, name).with_groups(Method::Oidc, groups))
    }
}

/// Whether people see the text as it is: in lists, logs and messages.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.trim() == text && escaped(text) == text
}

/// Why a token is refused: the cause, and what can be done. Nothing of the token is repeated but times and names of
/// claims.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Its algorithm is not accepted.
    #[error(
        "its signature is of a kind that is not accepted; the provider must sign with RS, PS, ES or EdDSA"
    )]
    Algorithm,
    /// It is of another kind.
    #[error("it is no ID token and no access token; use one of these")]
    Kind,
    /// The provider has no such key.
    #[error("it is signed with a key that the provider does not publish; get a new token")]
    Key,
    /// It was changed, or made by somebody else.
    #[error("its signature is wrong; get a new token")]
    Signature,
    /// At this time.
    #[error("it expired at {0}; get a new token")]
    Expired(String),
    /// Until this time.
    #[error("it is not valid before {0}; check the clocks")]
    Early(String),
    /// Other than these.
    #[error("it is for another audience; get a token for the audience {0}")]
    Audience(String),
    /// Other than this one.
    #[error("it is from another issuer; get a token from {0}")]
    Issuer(String),
    /// This claim.
    #[error("it has no claim {0}; ask the provider's operator for it")]
    Missing(String),
    /// This claim.
    #[error("its claim {0} is no name; it must be a short text without control characters")]
    Name(String),
    /// The claim `email`.
    #[error("its e-mail address is not verified; verify it at the provider")]
    Email,
    /// For another sign-in.
    #[error("it is for another sign-in; sign in again")]
    Nonce,
    /// Requested by another client.
    #[error("it was issued to another client; sign in again")]
    Client,
}

/// Checks what an ID token says beside who somebody is: that this client requested it, for this sign-in.
///
/// # Errors
/// It is for another client or sign-in.
pub fn check_sign_in(claims: &Claims, client: &str, nonce: &str) -> Result<(), Wrong> {
    if claims.get("nonce").and_then(Value::as_str) != Some(nonce) {
        return Err(Wrong::Nonce);
    }
    match claims.get("azp") {
        Some(party) if party.as_str() != Some(client) => Err(Wrong::Client),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
