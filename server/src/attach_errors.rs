//! Why agents could not attach: where they attach notes it, and the reconciler that waits for one of them tells it. In this
//! process only and for people's eyes, since an agent that came to another server was not refused here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use sqlflow_job::AttemptId;

/// Why an agent was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachError {
    /// In words for a person.
    pub why: String,
    /// Nothing is known against the agent: the server could not tell, and the agent tries again.
    pub retryable: bool,
}

/// An agent that is refused and may try again does so within this time; one that does not has another trouble by now.
const LASTS: Duration = Duration::from_secs(30);

/// What was refused, of the attempts that somebody waits for: anybody may name an attempt, so no others are kept.
#[derive(Debug, Clone, Default)]
pub struct AttachErrors {
    awaited: Arc<Mutex<HashMap<AttemptId, Weak<Slot>>>>,
}

type Slot = Mutex<Option<(AttachError, Instant)>>;

/// As long as it lives, refusals of the attempt are kept.
#[derive(Debug)]
pub struct Awaited {
    slot: Arc<Slot>,
}

impl AttachErrors {
    /// From now on refusals of this attempt are kept.
    #[must_use]
    pub fn of(&self, attempt: &AttemptId) -> Awaited {
        let slot = Arc::default();
        let mut awaited = lock(&self.awaited);
        awaited.retain(|_, slot| slot.strong_count() > 0);
        awaited.insert(attempt.clone(), Arc::downgrade(&slot));
        Awaited { slot }
    }

    /// An agent that speaks for this attempt was refused.
    pub fn note(&self, attempt: &AttemptId, error: AttachError) {
        let slot = lock(&self.awaited).get(attempt).and_then(Weak::upgrade);
        if let Some(slot) = slot {
            *lock(&slot) = Some((error, Instant::now()));
        }
    }
}

impl Awaited {
    /// The last error, if there was one lately, or one that is final.
    #[must_use]
    pub fn last(&self) -> Option<AttachError> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Option<AttachError> {
        let (error, noted) = lock(&self.slot).clone()?;
        (!error.retryable || now.saturating_duration_since(noted) < LASTS).then_some(error)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use sqlflow_job::JobId;

    use super::*;

    #[test]
    fn only_what_somebody_waits_for_is_kept() {
        let refusals = AttachErrors::default();
        let attempt = |number| AttemptId { job: JobId::generate(), step: 0, number };
        let (one, other) = (attempt(1), attempt(2));
        let error = |why: &str| AttachError { why: why.to_owned(), retryable: true };
        refusals.note(&one, error("too early"));
        let awaited = refusals.of(&one);
        assert_eq!(awaited.last(), None);
        refusals.note(&one, error("first"));
        refusals.note(&one, error("second"));
        refusals.note(&other, error("of nobody"));
        assert_eq!(awaited.last(), Some(error("second")));
        assert_eq!(awaited.at(Instant::now() + LASTS), None, "it has another trouble by now");
        drop(awaited);
        let _other = refusals.of(&other);
        assert_eq!(lock(&refusals.awaited).len(), 1, "nothing is kept of what nobody waits for");
    }
}
