//! Pending reasons of an attempt that has no agent yet: when they are reported, and when they time out. Pure; the
//! caller passes the time.

use std::time::{Duration, Instant};

use sqlflow_launcher::{PendingReason, PendingStatus};

/// A reason that lasts less than this is not reported.
const REPORT_DELAY: Duration = Duration::from_secs(2);

/// Maximum time that counts between two observations. A server that was stopped, or could not reach its store, could
/// not accept agents either.
const MAX_GAP: Duration = Duration::from_secs(15);

/// Duration of a condition that is observed repeatedly, without the time in which this server did not observe.
#[derive(Debug, Default)]
pub(super) struct DurationTracker {
    total: Duration,
    /// Last observation; `None`: the condition does not hold.
    seen: Option<Instant>,
}

impl DurationTracker {
    /// The condition holds. Returns its duration so far.
    pub(super) fn note(&mut self, now: Instant) -> Duration {
        let since = self.seen.map_or(Duration::ZERO, |seen| now.saturating_duration_since(seen));
        self.total += since.min(MAX_GAP);
        self.seen = Some(now);
        self.total
    }

    /// The condition does not hold any more.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}

/// Tracks the current pending reason.
#[derive(Debug, Default)]
pub(super) struct PendingTracker(Option<PendingPeriod>);

#[derive(Debug)]
struct PendingPeriod {
    reason: PendingReason,
    duration: DurationTracker,
    /// The message that was reported last.
    reported: String,
}

/// State of a pending reason's timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timeout {
    Running,
    Expired,
}

/// What to do about a pending reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PendingUpdate {
    /// Whether to report it: it is new, or its message changed.
    pub(super) should_report: bool,
    /// Whether its timeout has passed.
    pub(super) timeout: Timeout,
}

impl PendingTracker {
    /// Starts tracking this reason, before the first observation.
    pub(super) fn begin(&mut self, reason: PendingReason, now: Instant) {
        if self.0.as_ref().is_none_or(|period| period.reason != reason) {
            self.0 = Some(PendingPeriod::begin(reason, now));
        }
    }

    /// The attempt was observed pending for this reason. Each reason has its own timeout. A message should be
    /// reported until it [was](Self::mark_reported).
    pub(super) fn note(&mut self, pending: &PendingStatus, now: Instant) -> PendingUpdate {
        let period = match &mut self.0 {
            Some(period) if period.reason == pending.reason => period,
            other => other.insert(PendingPeriod::begin(pending.reason, now)),
        };
        let duration = period.duration.note(now);
        let should_report = duration >= REPORT_DELAY && period.reported != pending.message;
        let timeout = if duration > pending.timeout { Timeout::Expired } else { Timeout::Running };
        PendingUpdate { should_report, timeout }
    }

    /// The message is in the job's log.
    pub(super) fn mark_reported(&mut self, why: &str) {
        if let Some(period) = &mut self.0 {
            why.clone_into(&mut period.reported);
        }
    }

    /// Whether the attempt is pending, and that was reported.
    pub(super) fn is_reported(&self) -> bool {
        self.0.as_ref().is_some_and(|period| !period.reported.is_empty())
    }

    /// The attempt is not pending any more.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }
}

impl PendingPeriod {
    fn begin(reason: PendingReason, now: Instant) -> Self {
        let mut duration = DurationTracker::default();
        duration.note(now);
        Self { reason, duration, reported: String::new() }
    }
}

/// Queue position of an attempt, as it is reported. It is reported again when it has halved: each change would be a
/// record for each queued attempt, and there may be thousands.
#[derive(Debug, Default)]
pub(super) struct QueuePosition(Option<usize>);

impl QueuePosition {
    /// The position to report, given the current one.
    pub(super) fn note(&mut self, before: usize) -> usize {
        let said = match self.0 {
            Some(said) if before <= said && before.saturating_mul(2) > said => said,
            Some(_) | None => before,
        };
        self.0 = Some(said);
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn pending(reason: PendingReason, why: &str) -> PendingStatus {
        PendingStatus { reason, message: why.to_owned(), timeout: TIMEOUT }
    }

    /// The seconds at which a message is reported, and the second of the timeout, with one observation each second.
    fn reports(pending: impl Fn(u64) -> Option<PendingStatus>) -> (Vec<u64>, Option<u64>) {
        let (begin, mut state, mut reported) = (Instant::now(), PendingTracker::default(), Vec::new());
        for second in 0..100 {
            let Some(pending) = pending(second) else {
                state.end();
                continue;
            };
            let update = state.note(&pending, begin + Duration::from_secs(second));
            if update.should_report {
                reported.push(second);
                state.mark_reported(&pending.message);
            }
            if update.timeout == Timeout::Expired {
                return (reported, Some(second));
            }
        }
        (reported, None)
    }

    #[test]
    fn pending_reason_is_reported_once_and_times_out() {
        assert_eq!(reports(|_| Some(pending(PendingReason::Attach, "silent"))), (vec![2], Some(31)));
    }

    #[test]
    fn unreported_message_is_reported_later() {
        let (begin, mut tracker) = (Instant::now(), PendingTracker::default());
        let mut should_report = |second, is_reported: bool| {
            let update =
                tracker.note(&pending(PendingReason::Attach, "silent"), begin + Duration::from_secs(second));
            if is_reported {
                tracker.mark_reported("silent");
            }
            update.should_report
        };
        assert_eq!(
            [
                should_report(0, false),
                should_report(2, false),
                should_report(3, true),
                should_report(4, false)
            ],
            [false, true, true, false]
        );
    }

    #[test]
    fn short_pending_reason_is_not_reported() {
        assert_eq!(
            reports(|second| (second % 3 < 2).then(|| pending(PendingReason::Attach, "silent"))),
            (vec![], None)
        );
    }

    #[test]
    fn changed_message_is_reported_and_does_not_extend_the_timeout() {
        let waits =
            |second| Some(pending(PendingReason::Attach, if second < 10 { "silent" } else { "refused" }));
        assert_eq!(reports(waits), (vec![2, 10], Some(31)));
    }

    #[test]
    fn each_pending_reason_has_its_own_timeout() {
        let waits = |second| {
            Some(pending(if second < 20 { PendingReason::Start } else { PendingReason::Attach }, "why"))
        };
        assert_eq!(reports(waits), (vec![2, 22], Some(51)));
    }

    #[test]
    fn queue_position_is_reported_when_it_has_halved() {
        let mut position = QueuePosition::default();
        let said: Vec<_> = (0..=10).rev().map(|before| position.note(before)).collect();
        assert_eq!(said, [10, 10, 10, 10, 10, 5, 5, 5, 2, 1, 0]);
        assert_eq!(position.note(3), 3, "older attempts were queued again");
    }

    #[test]
    fn waiting_for_a_run_slot_never_times_out() {
        let pending =
            PendingStatus { timeout: Duration::MAX, ..pending(PendingReason::RunSlot, "none is free") };
        assert_eq!(reports(|_| Some(pending.clone())), (vec![2], None));
    }

    #[test]
    fn slow_failure_is_reported_at_once() {
        let (begin, mut tracker) = (Instant::now(), PendingTracker::default());
        tracker.begin(PendingReason::Launch, begin);
        let update =
            tracker.note(&pending(PendingReason::Launch, "no answer"), begin + Duration::from_secs(10));
        assert_eq!(update, PendingUpdate { should_report: true, timeout: Timeout::Running });
    }

    #[test]
    fn duration_restarts_after_its_end() {
        let (begin, mut duration) = (Instant::now(), DurationTracker::default());
        let at = |second| begin + Duration::from_secs(second);
        assert_eq!([0, 5, 9].map(|second| duration.note(at(second)).as_secs()), [0, 5, 9]);
        duration.end();
        assert_eq!([20, 21].map(|second| duration.note(at(second)).as_secs()), [0, 1]);
    }

    #[test]
    fn time_of_a_stopped_server_does_not_count_towards_the_timeout() {
        let (begin, mut tracker) = (Instant::now(), PendingTracker::default());
        let mut timeout = |second| {
            tracker
                .note(&pending(PendingReason::Attach, "silent"), begin + Duration::from_secs(second))
                .timeout
        };
        use Timeout::{Expired, Running};
        assert_eq!([0, 1000, 1014, 1016].map(&mut timeout), [Running, Running, Running, Expired]);
    }
}
