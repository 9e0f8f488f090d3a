//! Ids, as newtypes, so that one kind cannot be mistaken for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Public id of a job: 26 lower-case base-32 digits of a version 7 UUID, so that ids sort by time and can be part of
/// file, Pod and table names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

/// Crockford's base 32 in lower case, in which no letter resembles a digit.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const JOB_ID_LENGTH: usize = 26;

impl JobId {
    /// A new id. It sorts after ids of earlier milliseconds.
    #[must_use]
    pub fn generate() -> Self {
        let mut bits = uuid::Uuid::now_v7().as_u128();
        let mut text = [0_u8; JOB_ID_LENGTH];
        for digit in text.iter_mut().rev() {
            *digit = DIGITS[(bits & 31) as usize];
            bits >>= 5;
        }
        Self(text.iter().map(|&digit| char::from(digit)).collect())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Time at which the id was generated, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn created_ms(&self) -> i64 {
        let value = |digit| DIGITS.iter().position(|known| *known == digit).unwrap_or_default() as u128;
        let bits = self.0.bytes().fold(0, |bits: u128, digit| bits << 5 | value(digit));
        // The first 48 bits of a version 7 UUID.
        i64::try_from(bits >> 80).unwrap_or_default()
    }
}

/// The text does not have the form of the id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}")]
pub struct ParseIdError {
    what: &'static str,
    text: String,
}

impl ParseIdError {
    pub(crate) fn new(what: &'static str, text: &str) -> Self {
        Self { what, text: text.chars().take(64).collect() }
    }
}

impl FromStr for JobId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let well_formed = text.len() == JOB_ID_LENGTH && text.bytes().all(|byte| DIGITS.contains(&byte));
        if well_formed { Ok(Self(text.to_owned())) } else { Err(ParseIdError::new("job id", text)) }
    }
}

impl TryFrom<String> for JobId {
    type Error = ParseIdError;

    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Id of an attempt: job, step and number. The number is the fencing token of agents: it increases with each new
/// attempt of the step, and does not depend on the reconciler.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct AttemptId {
    /// The job.
    pub job: JobId,
    /// Index of the step in the job, from 0.
    pub step: u32,
    /// Number of the attempt in the step, from 1.
    pub number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.job, self.step, self.number)
    }
}

/// The token of a job: `sqlflow` and 32 hexadecimal digits (128 random bits). It is a secret: only its hash
/// is stored, and `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

const TOKEN_PREFIX: &str = "sqlflow";
const TOKEN_LENGTH: usize = TOKEN_PREFIX.len() + 32;

impl Token {
    /// A new random token.
    #[must_use]
    pub fn generate() -> Self {
        Self::of_bits(rand::random())
    }

    /// The token of these bits, which must not be guessable.
    #[must_use]
    pub fn of_bits(bits: u128) -> Self {
        Self(format!("{TOKEN_PREFIX}{bits:032x}"))
    }

    /// The hash that the store keeps of the token. It needs no salt, because the token is random.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0.as_bytes()).into())
    }

    /// The token as text, to send to its client.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

impl FromStr for Token {
    type Err = ParseIdError;

    /// The error does not contain the text, which may be a mistyped token.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let digits = text.strip_prefix(TOKEN_PREFIX).filter(|_| text.len() == TOKEN_LENGTH);
        match digits {
            Some(digits) if digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(ParseIdError::new("job token", "this text")),
        }
    }
}

/// SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TokenHash(pub [u8; 32]);

/// How a client names a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JobKey {
    /// By its token, which is a right to it.
    Token(Token),
    /// By its id, which is none: the client must be its principal, or an administrator.
    Id(JobId),
}

impl JobKey {
    /// The key as text.
    #[must_use]
    pub fn expose(&self) -> &str {
        match self {
            Self::Token(token) => token.expose(),
            Self::Id(id) => id.as_str(),
        }
    }
}

impl FromStr for JobKey {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        text.parse().map(Self::Id).or_else(|_| text.parse().map(Self::Token))
    }
}

/// A key as clients send it: alone, or followed by `.` and a cursor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CursorToken {
    /// Names the job.
    pub key: JobKey,
    /// Position in the result log after which to read; `None` in a plain token.
    pub cursor: Option<u64>,
}

impl FromStr for CursorToken {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let Some((key, cursor)) = text.split_once('.') else {
            return Ok(Self { key: text.parse()?, cursor: None });
        };
        let cursor = cursor.parse().map_err(|_| ParseIdError::new("cursor", cursor))?;
        Ok(Self { key: key.parse()?, cursor: Some(cursor) })
    }
}

impl CursorToken {
    /// The token as text.
    #[must_use]
    pub fn expose(&self) -> String {
        match self.cursor {
            Some(cursor) => format!("{}.{cursor}", self.key.expose()),
            None => self.key.expose().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_ids_are_parsed_back_and_sort_by_time() {
        let first = JobId::generate();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let second = JobId::generate();
        assert!(first < second);
        assert!(first.created_ms() < second.created_ms());
        let now = sqlflow_os::clock::now_ms();
        assert!((now - 60_000..=now).contains(&second.created_ms()), "{}", second.created_ms());
        assert_eq!(first.as_str().parse::<JobId>(), Ok(first));
        assert!("../../etc/passwd-aaaaaaaaaa".parse::<JobId>().is_err());
    }

    #[test]
    fn token_is_parsed_with_and_without_a_cursor() {
        let token = Token::generate();
        let plain: CursorToken = token.expose().parse().unwrap();
        assert_eq!(plain, CursorToken { key: JobKey::Token(token.clone()), cursor: None });
        let id = JobId::generate();
        for key in [JobKey::Token(token.clone()), JobKey::Id(id.clone())] {
            let at = CursorToken { key, cursor: Some(42) };
            assert_eq!(at.expose().parse::<CursorToken>(), Ok(at));
        }
        assert_eq!(id.as_str().parse::<JobKey>(), Ok(JobKey::Id(id)));
        for wrong in
            ["", "sqlflow", "sqlflow.1", &format!("{}.x", token.expose()), &format!("{}0", token.expose())]
        {
            assert!(wrong.parse::<CursorToken>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn token_is_not_in_debug_output_or_errors() {
        let token = Token::generate();
        assert!(!format!("{token:?}").contains(token.expose()));
        let slip = format!("{}x", token.expose());
        let error = slip.parse::<CursorToken>().unwrap_err().to_string();
        assert!(!error.contains(token.expose()));
    }
}
