//! Rate limit for log lines of repeated failures. An operation that fails is retried for as long as the server runs,
//! for example the removal of a folder, and must not write a log line each time.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::{Duration, Instant};

/// Maximum number of items that are remembered. Failures of further items are not logged.
const MAX_ITEMS: usize = 1024;
/// Time after which the same failure is logged again.
const REPEAT_PERIOD: Duration = Duration::from_secs(60 * 60);

/// The last logged failure of each item.
pub(super) struct LogThrottle<T>(HashMap<T, LoggedFailure>);

struct LoggedFailure {
    /// Hash of its text.
    error: u64,
    at: Instant,
}

impl<T> Default for LogThrottle<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Hash + Eq + Clone> LogThrottle<T> {
    /// Whether to log the failure of this item: it is the first one, differs from the last one, or the last one was
    /// logged long ago.
    pub(super) fn should_log(&mut self, item: &T, error: &anyhow::Error, now: Instant) -> bool {
        let error = hash_of(error);
        if let Some(known) = self.0.get_mut(item) {
            let should_log = known.error != error || known.is_old(now);
            if should_log {
                *known = LoggedFailure { error, at: now };
            }
            return should_log;
        }
        if self.0.len() >= MAX_ITEMS {
            self.0.retain(|_, known| !known.is_old(now));
        }
        if self.0.len() >= MAX_ITEMS {
            return false;
        }
        self.0.insert(item.clone(), LoggedFailure { error, at: now });
        if self.0.len() == MAX_ITEMS {
            tracing::warn!(
                "{MAX_ITEMS} failures were logged; failures of other items are counted and not logged"
            );
        }
        true
    }
}

impl LoggedFailure {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= REPEAT_PERIOD
    }
}

fn hash_of(error: &anyhow::Error) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{error:#}").hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(what: &'static str) -> anyhow::Error {
        anyhow::anyhow!(what).context("cannot remove the folder")
    }

    #[test]
    fn changed_or_old_failure_is_logged_again() {
        let (mut reported, begin) = (LogThrottle::default(), Instant::now());
        let mut should_log = |item, what, minutes: u64| {
            reported.should_log(&item, &error(what), begin + Duration::from_secs(minutes * 60))
        };
        assert!(should_log(1, "busy", 0) && should_log(2, "busy", 0));
        assert!(!should_log(1, "busy", 1) && !should_log(1, "busy", 59));
        assert!(should_log(1, "denied", 59) && !should_log(1, "denied", 60) && !should_log(1, "denied", 118));
        assert!(should_log(1, "denied", 119) && should_log(2, "busy", 119));
    }

    #[test]
    fn failures_over_the_limit_are_not_logged() {
        let (mut reported, begin) = (LogThrottle::default(), Instant::now());
        let mut count =
            |now| (0..2 * MAX_ITEMS).filter(|item| reported.should_log(item, &error("busy"), now)).count();
        assert_eq!(
            [count(begin), count(begin + REPEAT_PERIOD / 2), count(begin + REPEAT_PERIOD)],
            [MAX_ITEMS, 0, MAX_ITEMS]
        );
        assert_eq!(reported.0.len(), MAX_ITEMS);
    }
}
