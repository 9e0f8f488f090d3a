//! Observations of the attempt that a reconciler works on, in memory only. A new attempt starts without any.

use std::time::{Duration, Instant};

use sqlflow_job::AttemptId;

use super::pending::{DurationTracker, PendingTracker};
use crate::agent_liveness::AgentLiveness;
use crate::attach_errors::AttachErrorWatch;

/// Observations of one attempt.
pub(super) struct AttemptObservations {
    /// The attempt.
    pub(super) attempt: AttemptId,
    /// Current pending reason.
    pub(super) pending: PendingTracker,
    /// Whether its state at the platform is unknown, and since when.
    pub(super) unknown: PendingTracker,
    /// Attach errors of its agent, which runs.
    pub(super) attach_errors: Option<AttachErrorWatch>,
    /// When it was first observed running, in milliseconds since the Unix epoch. From then on the platform signals
    /// its end.
    pub(super) first_running_ms: Option<i64>,
    /// Launched and not attached, but nothing runs.
    pub(super) missing: DurationTracker,
    /// Liveness of its agent, which had attached to a server.
    pub(super) liveness: Option<AgentLiveness>,
    /// The attempt is being ended.
    pub(super) ending: DurationTracker,
    /// Its artifacts cannot be read.
    pub(super) unreadable: DurationTracker,
    /// Backoff for signals of its platform.
    pub(super) changes: ChangeBackoff,
}

impl AttemptObservations {
    pub(super) fn new(attempt: AttemptId) -> Self {
        Self {
            attempt,
            pending: PendingTracker::default(),
            unknown: PendingTracker::default(),
            attach_errors: None,
            first_running_ms: None,
            missing: DurationTracker::default(),
            liveness: None,
            ending: DurationTracker::default(),
            unreadable: DurationTracker::default(),
            changes: ChangeBackoff::default(),
        }
    }
}

/// Delay between the first two observations after signals; the next ones grow.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// After this time without a change the backoff starts again.
const QUIET: Duration = Duration::from_secs(3);

/// Backoff of observations after signals. An exit is signalled until the attempt's end is recorded, and its outcome may become
/// visible later.
#[derive(Debug, Default)]
pub(super) struct ChangeBackoff(Option<Observed>);

#[derive(Debug, Clone, Copy)]
struct Observed {
    at: Instant,
    pause: Duration,
}

impl ChangeBackoff {
    /// When to observe the attempt, if the platform signals a change now.
    pub(super) fn next_observation(&self, now: Instant) -> Instant {
        self.0.map_or(now, |last| now.max(last.at + last.pause))
    }

    /// The attempt was observed at this time.
    pub(super) fn observed(&mut self, at: Instant) {
        let recent = self.0.filter(|last| at.saturating_duration_since(last.at) < QUIET);
        let pause = recent.map_or(FIRST_PAUSE, |last| (last.pause * 2).min(LONGEST_PAUSE));
        self.0 = Some(Observed { at, pause });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_change_is_observed_at_once_and_repeated_ones_back_off() {
        let begin = Instant::now();
        let mut changes = ChangeBackoff::default();
        let mut look = |after: Instant| {
            let at = changes.next_observation(after);
            changes.observed(at);
            at
        };
        let mut at = begin;
        let mut times = Vec::new();
        for _ in 0..5 {
            at = look(at);
            times.push((at - begin).as_millis());
        }
        assert_eq!(times, [0, 100, 300, 700, 1200]);
        let later = begin + Duration::from_secs(60);
        assert_eq!(look(later), later);
        assert_eq!(look(later) - later, FIRST_PAUSE);
    }
}
