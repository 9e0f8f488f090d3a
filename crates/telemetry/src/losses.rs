//! Spans that were lost: counted at once, and said at most once a minute.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Least time between two log lines.
const PAUSE: Duration = Duration::from_secs(60);

/// Counts losses.
#[derive(Default)]
pub(crate) struct Losses {
    count: OnceLock<Box<dyn Fn(usize) + Send + Sync>>,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    unsaid: usize,
    last: Option<Instant>,
}

impl Said {
    /// Returns the number of spans that were lost since the last line, if it is time for one.
    fn add(&mut self, spans: usize, now: Instant) -> Option<usize> {
        self.unsaid += spans;
        if self.last.is_some_and(|last| now.duration_since(last) < PAUSE) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl Losses {
    /// Sets who counts. Losses before are only logged.
    pub(crate) fn counted_by(&self, count: impl Fn(usize) + Send + Sync + 'static) {
        let _ = self.count.set(Box::new(count));
    }

    pub(crate) fn add(&self, spans: usize, reason: &str) {
        if let Some(count) = self.count.get() {
            count(spans);
        }
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).add(spans, Instant::now());
        if let Some(spans) = said {
            tracing::warn!(spans, "dropped spans: {reason}; jobs are not affected");
        }
    }

    /// Logs what was not said yet.
    pub(crate) fn say_rest(&self) {
        let spans = std::mem::take(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner).unsaid);
        if spans > 0 {
            tracing::warn!(spans, "dropped more spans; jobs are not affected");
        }
    }
}

impl std::fmt::Debug for Losses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Losses").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_said_once_a_minute_and_none_is_left_out() {
        let (mut said, begin) = (Said::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let lines =
            [(0, 5), (1, 2), (59, 3), (60, 1), (61, 4)].map(|(time, spans)| said.add(spans, at(time)));
        assert_eq!(lines, [Some(5), None, None, Some(6), None]);
        assert_eq!(said.unsaid, 4);
    }
}
