//! Log of lost spans: counts them immediately, and writes at most one log line a minute.

use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use sqlflow_sync::lock;

/// Minimum time between two log lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// Counts and logs lost spans.
#[derive(Default)]
pub(crate) struct LossLog {
    count: OnceLock<Box<dyn Fn(usize) + Send + Sync>>,
    throttle: Mutex<Throttle>,
}

#[derive(Debug, Default)]
struct Throttle {
    /// Lost spans since the last line.
    unreported: usize,
    last: Option<Instant>,
}

impl Throttle {
    /// Adds lost spans. Returns the number of spans since the last line if the next line is due.
    fn add(&mut self, spans: usize, now: Instant) -> Option<usize> {
        self.unreported += spans;
        if self.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unreported))
    }
}

impl LossLog {
    /// Sets the function that counts. Earlier losses are only logged.
    pub(crate) fn set_counter(&self, count: impl Fn(usize) + Send + Sync + 'static) {
        let _ = self.count.set(Box::new(count));
    }

    pub(crate) fn add(&self, spans: usize, reason: &str) {
        if let Some(count) = self.count.get() {
            count(spans);
        }
        let due = lock(&self.throttle).add(spans, Instant::now());
        if let Some(spans) = due {
            tracing::warn!(spans, "dropped spans: {reason}; jobs are not affected");
        }
    }

    /// Logs the losses since the last line.
    pub(crate) fn flush(&self) {
        let spans = std::mem::take(&mut lock(&self.throttle).unreported);
        if spans > 0 {
            tracing::warn!(spans, "dropped more spans; jobs are not affected");
        }
    }
}

impl std::fmt::Debug for LossLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LossLog").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_logged_once_a_minute_and_none_is_omitted() {
        let (mut throttle, begin) = (Throttle::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let lines =
            [(0, 5), (1, 2), (59, 3), (60, 1), (61, 4)].map(|(time, spans)| throttle.add(spans, at(time)));
        assert_eq!(lines, [Some(5), None, None, Some(6), None]);
        assert_eq!(throttle.unreported, 4);
    }
}
