//! Attach errors: why agents could not attach. The attach API notes them; the reconciler that waits for an agent
//! reports the last one. In memory only, and for users: an agent that reached another server was not refused here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use sqlflow_job::AttemptId;

use sqlflow_sync::lock;

/// Why an agent was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachError {
    /// Message for the user.
    pub why: String,
    /// The agent may attach later: the server could not verify it now.
    pub retryable: bool,
}

/// Time in which a refused agent that may try again does so. After it the error is outdated.
const RETRYABLE_LIFETIME: Duration = Duration::from_secs(30);

/// Errors of watched attempts. Hellos may name any attempt, so no others are kept.
#[derive(Debug, Clone, Default)]
pub struct AttachErrors {
    watched: Arc<Mutex<HashMap<AttemptId, Weak<Slot>>>>,
}

type Slot = Mutex<Option<(AttachError, Instant)>>;

/// Keeps the errors of an attempt as long as it lives.
#[derive(Debug)]
pub struct AttachErrorWatch {
    slot: Arc<Slot>,
}

impl AttachErrors {
    /// Starts keeping errors of this attempt.
    #[must_use]
    pub fn of(&self, attempt: &AttemptId) -> AttachErrorWatch {
        let slot = Arc::default();
        let mut watched = lock(&self.watched);
        watched.retain(|_, slot| slot.strong_count() > 0);
        watched.insert(attempt.clone(), Arc::downgrade(&slot));
        AttachErrorWatch { slot }
    }

    /// Notes that an agent of this attempt was refused.
    pub fn note(&self, attempt: &AttemptId, error: AttachError) {
        let slot = lock(&self.watched).get(attempt).and_then(Weak::upgrade);
        if let Some(slot) = slot {
            *lock(&slot) = Some((error, Instant::now()));
        }
    }
}

impl AttachErrorWatch {
    /// The last error, if it is recent or permanent.
    #[must_use]
    pub fn last(&self) -> Option<AttachError> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Option<AttachError> {
        let (error, noted) = lock(&self.slot).clone()?;
        (!error.retryable || now.saturating_duration_since(noted) < RETRYABLE_LIFETIME).then_some(error)
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_job::JobId;

    use super::*;

    #[test]
    fn attach_errors_are_kept_only_while_watched() {
        let errors = AttachErrors::default();
        let attempt = |number| AttemptId { job: JobId::generate(), step: 0, number };
        let (one, other) = (attempt(1), attempt(2));
        let error = |why: &str| AttachError { why: why.to_owned(), retryable: true };
        errors.note(&one, error("too early"));
        let watched = errors.of(&one);
        assert_eq!(watched.last(), None);
        errors.note(&one, error("first"));
        errors.note(&one, error("second"));
        errors.note(&other, error("unwatched"));
        assert_eq!(watched.last(), Some(error("second")));
        assert_eq!(watched.at(Instant::now() + RETRYABLE_LIFETIME), None, "it is outdated");
        drop(watched);
        let _other = errors.of(&other);
        assert_eq!(lock(&errors.watched).len(), 1, "errors of unwatched attempts are dropped");
    }
}
