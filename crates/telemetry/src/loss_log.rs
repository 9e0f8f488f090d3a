//! Log of what was not delivered: counts it immediately, and writes at most one log line a minute.

use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use opentelemetry::Context;
use sqlflow_sync::lock;

use crate::Signal;

/// Minimum time between two log lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// Counts and logs lost spans, log lines or values of metrics.
pub(crate) struct LossLog {
    signal: Signal,
    count: OnceLock<Box<dyn Fn(usize) + Send + Sync>>,
    throttle: Mutex<Throttle>,
}

#[derive(Debug, Default)]
struct Throttle {
    /// Losses since the last line.
    unreported: usize,
    last: Option<Instant>,
}

impl Throttle {
    /// Adds losses. Returns their number since the last line if the next line is due.
    fn add(&mut self, lost: usize, now: Instant) -> Option<usize> {
        self.unreported += lost;
        if self.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unreported))
    }
}

impl LossLog {
    pub(crate) fn new(signal: Signal) -> Self {
        Self { signal, count: OnceLock::new(), throttle: Mutex::default() }
    }

    /// Sets the function that counts. Earlier losses are only logged.
    pub(crate) fn set_counter(&self, count: impl Fn(usize) + Send + Sync + 'static) {
        let _ = self.count.set(Box::new(count));
    }

    pub(crate) fn add(&self, lost: usize, reason: &str) {
        if let Some(count) = self.count.get() {
            count(lost);
        }
        let due = lock(&self.throttle).add(lost, Instant::now());
        if let Some(lost) = due {
            let _quiet = self.suppress();
            tracing::warn!(lost, "dropped {}: {reason}; jobs are not affected", self.signal.items());
        }
    }

    /// Logs the losses since the last line.
    pub(crate) fn flush(&self) {
        let lost = std::mem::take(&mut lock(&self.throttle).unreported);
        if lost > 0 {
            let _quiet = self.suppress();
            tracing::warn!(lost, "dropped more {}; jobs are not affected", self.signal.items());
        }
    }

    /// A line about lost log lines goes to stderr only: it would be lost again, every minute.
    fn suppress(&self) -> Option<opentelemetry::ContextGuard> {
        (self.signal == Signal::Logs).then(Context::enter_telemetry_suppressed_scope)
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
            [(0, 5), (1, 2), (59, 3), (60, 1), (61, 4)].map(|(time, lost)| throttle.add(lost, at(time)));
        assert_eq!(lines, [Some(5), None, None, Some(6), None]);
        assert_eq!(throttle.unreported, 4);
    }

    /// Whether lines were suppressed for OpenTelemetry.
    struct Suppressed(std::sync::Arc<Mutex<Vec<bool>>>);

    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Suppressed {
        fn on_event(&self, _: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            lock(&self.0).push(Context::is_current_telemetry_suppressed());
        }
    }

    #[test]
    fn line_about_lost_log_lines_is_not_exported() {
        use tracing_subscriber::layer::SubscriberExt as _;
        let seen = std::sync::Arc::default();
        let subscriber = tracing_subscriber::registry().with(Suppressed(std::sync::Arc::clone(&seen)));
        tracing::subscriber::with_default(subscriber, || {
            for signal in [Signal::Logs, Signal::Traces] {
                let losses = LossLog::new(signal);
                losses.add(1, "the collector is down");
                losses.add(1, "the collector is down");
                losses.flush();
            }
        });
        assert_eq!(*lock(&seen), [true, true, false, false]);
    }
}
