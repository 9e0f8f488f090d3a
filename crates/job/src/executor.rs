//! References to executors.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{AttemptId, ParseIdError};

/// The name of an executor at its launcher, which is part of the name of its run folder or Pod. It is stored with the
/// attempt, because an executor may exist before its attempt.
///
/// It has one to [`ExecutorRef::MAX_BYTES`] lower-case letters, digits and hyphens, with no hyphen at either end, so
/// that it can be part of file and Pod names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExecutorRef(String);

impl ExecutorRef {
    /// Limit that keeps a Pod's name, which has a prefix, far below the 253 bytes that Kubernetes allows.
    pub const MAX_BYTES: usize = 100;

    /// The executor that is started for this attempt only.
    #[must_use]
    pub fn of_attempt(attempt: &AttemptId) -> Self {
        Self(format!("{}-{}-{}", attempt.job, attempt.step, attempt.number))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ExecutorRef {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let is_name = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let is_well_formed = (1..=Self::MAX_BYTES).contains(&text.len())
            && text.bytes().all(is_name)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if is_well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdError::new("name of an executor", text))
        }
    }
}

impl TryFrom<String> for ExecutorRef {
    type Error = ParseIdError;

    fn try_from(text: String) -> Result<Self, ParseIdError> {
        text.parse()
    }
}

impl From<ExecutorRef> for String {
    fn from(executor: ExecutorRef) -> Self {
        executor.0
    }
}

impl fmt::Display for ExecutorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ExecutorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a launcher tells its executor from another program's of the same name. Launchers whose names nobody else can take
/// need none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorProof {
    /// It carries a mark that only servers of this state can make.
    Mark,
    /// The uid that the platform gave it, which nothing else has.
    Uid(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_that_leaves_its_folder_is_invalid() {
        let attempt = AttemptId { job: "01kb3x7h8m9n0p1q2r3s4t5v6w".parse().unwrap(), step: 2, number: 3 };
        let executor = ExecutorRef::of_attempt(&attempt);
        assert_eq!(executor.as_str(), "01kb3x7h8m9n0p1q2r3s4t5v6w-2-3");
        assert_eq!(executor.as_str().parse(), Ok(executor));
        assert!("warm-7".parse::<ExecutorRef>().is_ok());
        for wrong in ["", "-a", "a-", "../x", "a/b", "a.b", "A", &"a".repeat(ExecutorRef::MAX_BYTES + 1)] {
            assert!(wrong.parse::<ExecutorRef>().is_err(), "{wrong:?}");
        }
    }
}
