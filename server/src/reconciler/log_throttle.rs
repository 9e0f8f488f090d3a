//! Failures that were logged. What fails is tried again and again, a folder that nobody can remove for ever, and its log line
//! must not be written each time.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::{Duration, Instant};

/// Items that are remembered. Failures of more are not logged.
const MOST: usize = 1024;
/// Time after which the same failure is logged again.
const AGAIN: Duration = Duration::from_secs(60 * 60);

/// The last logged failure of each item.
pub(super) struct LogThrottle<T>(HashMap<T, Report>);

struct Report {
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
    /// Whether the failure of this item is to be logged: it is the first one, another one than the last, or the last was
    /// logged long ago.
    pub(super) fn is_news(&mut self, item: &T, error: &anyhow::Error, now: Instant) -> bool {
        let error = hash_of(error);
        if let Some(known) = self.0.get_mut(item) {
            let is_news = known.error != error || known.is_old(now);
            if is_news {
                *known = Report { error, at: now };
            }
            return is_news;
        }
        if self.0.len() >= MOST {
            self.0.retain(|_, known| !known.is_old(now));
        }
        if self.0.len() >= MOST {
            return false;
        }
        self.0.insert(item.clone(), Report { error, at: now });
        if self.0.len() == MOST {
            tracing::warn!("{MOST} failures were logged; those of others are only counted");
        }
        true
    }
}

impl Report {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= AGAIN
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
    fn a_failure_is_news_when_it_is_another_or_the_last_is_long_ago() {
        let (mut reported, begin) = (LogThrottle::default(), Instant::now());
        let mut is_news = |item, what, minutes: u64| {
            reported.is_news(&item, &error(what), begin + Duration::from_secs(minutes * 60))
        };
        assert!(is_news(1, "busy", 0) && is_news(2, "busy", 0));
        assert!(!is_news(1, "busy", 1) && !is_news(1, "busy", 59));
        assert!(is_news(1, "denied", 59) && !is_news(1, "denied", 60) && !is_news(1, "denied", 118));
        assert!(is_news(1, "denied", 119) && is_news(2, "busy", 119));
    }

    #[test]
    fn more_than_can_be_remembered_are_not_logged_each_time() {
        let (mut reported, begin) = (LogThrottle::default(), Instant::now());
        let mut count =
            |now| (0..2 * MOST).filter(|item| reported.is_news(item, &error("busy"), now)).count();
        assert_eq!([count(begin), count(begin + AGAIN / 2), count(begin + AGAIN)], [MOST, 0, MOST]);
        assert_eq!(reported.0.len(), MOST);
    }
}
