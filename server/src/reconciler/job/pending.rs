//! What an attempt waits for before its agent is there: when that is told, and when it has been long enough. Pure; the
//! caller brings the time.

use std::time::{Duration, Instant};

use sqlflow_launcher::{PendingReason, PendingStatus};

/// A wait that is over before this is not told.
const NEWS_AFTER: Duration = Duration::from_secs(2);

/// Between two looks no more than this counts: a server that stood still, or could not reach its store, was not there
/// for agents either.
const MOST_BETWEEN_LOOKS: Duration = Duration::from_secs(15);

/// How long something lasts that is seen at each look, without the time in which this server did not look.
#[derive(Debug, Default)]
pub(super) struct Lasted {
    total: Duration,
    /// When it was seen last; `None`: it does not last.
    seen: Option<Instant>,
}

impl Lasted {
    /// It lasts, or begins now.
    pub(super) fn note(&mut self, now: Instant) -> Duration {
        let since = self.seen.map_or(Duration::ZERO, |seen| now.saturating_duration_since(seen));
        self.total += since.min(MOST_BETWEEN_LOOKS);
        self.seen = Some(now);
        self.total
    }

    /// It does not last any more.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}

/// The wait that goes on, if one does.
#[derive(Debug, Default)]
pub(super) struct PendingTracker(Option<Wait>);

#[derive(Debug)]
struct Wait {
    reason: PendingReason,
    lasted: Lasted,
    /// What was said of it last.
    told: String,
}

/// What to make of a wait that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PendingUpdate {
    /// It is to be told, for the first time or because the reason is another.
    pub(super) is_news: bool,
    /// It has taken longer than this kind of wait may.
    pub(super) is_over: bool,
}

impl PendingTracker {
    /// The attempt may wait for this from now on; if so, it is noted later.
    pub(super) fn begin(&mut self, reason: PendingReason, now: Instant) {
        if self.0.as_ref().is_none_or(|wait| wait.reason != reason) {
            self.0 = Some(Wait::begin(reason, now));
        }
    }

    /// The attempt was seen to wait for this. A new kind has its patience from its own beginning. News stays news until it
    /// [was told](Self::told).
    pub(super) fn note(&mut self, pending: &PendingStatus, now: Instant) -> PendingUpdate {
        let wait = match &mut self.0 {
            Some(wait) if wait.reason == pending.reason => wait,
            other => other.insert(Wait::begin(pending.reason, now)),
        };
        let lasted = wait.lasted.note(now);
        let is_news = lasted >= NEWS_AFTER && wait.told != pending.message;
        PendingUpdate { is_news, is_over: lasted > pending.timeout }
    }

    /// The reason for the wait that goes on is in the job's log.
    pub(super) fn told(&mut self, why: &str) {
        if let Some(wait) = &mut self.0 {
            why.clone_into(&mut wait.told);
        }
    }

    /// Whether it waits for something and that was said.
    pub(super) fn is_told(&self) -> bool {
        self.0.as_ref().is_some_and(|wait| !wait.told.is_empty())
    }

    /// It waits for nothing any more.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }
}

impl Wait {
    fn begin(reason: PendingReason, now: Instant) -> Self {
        let mut lasted = Lasted::default();
        lasted.note(now);
        Self { reason, lasted, told: String::new() }
    }
}

/// How many come before an attempt that waits for a run slot, as it is said. News is that half of them have gone: of each
/// one it would be a record for each attempt that waits, and there may be thousands.
#[derive(Debug, Default)]
pub(super) struct Queued(Option<usize>);

impl Queued {
    /// The number to say, now that so many come before it.
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

    /// The seconds at which one of these is told, and at which it is over, when it is looked at each second.
    fn told(waits: impl Fn(u64) -> Option<PendingStatus>) -> (Vec<u64>, Option<u64>) {
        let (begin, mut state, mut told) = (Instant::now(), PendingTracker::default(), Vec::new());
        for second in 0..100 {
            let Some(pending) = waits(second) else {
                state.end();
                continue;
            };
            let turn = state.note(&pending, begin + Duration::from_secs(second));
            if turn.is_news {
                told.push(second);
                state.told(&pending.message);
            }
            if turn.is_over {
                return (told, Some(second));
            }
        }
        (told, None)
    }

    #[test]
    fn a_wait_is_told_once_and_has_an_end() {
        assert_eq!(told(|_| Some(pending(PendingReason::Attach, "silent"))), (vec![2], Some(31)));
    }

    #[test]
    fn news_that_could_not_be_told_stays_news() {
        let (begin, mut waits) = (Instant::now(), PendingTracker::default());
        let mut is_news = |second, is_told: bool| {
            let turn =
                waits.note(&pending(PendingReason::Attach, "silent"), begin + Duration::from_secs(second));
            if is_told {
                waits.told("silent");
            }
            turn.is_news
        };
        assert_eq!(
            [is_news(0, false), is_news(2, false), is_news(3, true), is_news(4, false)],
            [false, true, true, false]
        );
    }

    #[test]
    fn what_passes_in_a_moment_is_not_told() {
        assert_eq!(
            told(|second| (second % 3 < 2).then(|| pending(PendingReason::Attach, "silent"))),
            (vec![], None)
        );
    }

    #[test]
    fn another_reason_is_news_and_gives_no_time() {
        let waits =
            |second| Some(pending(PendingReason::Attach, if second < 10 { "silent" } else { "refused" }));
        assert_eq!(told(waits), (vec![2, 10], Some(31)));
    }

    #[test]
    fn another_kind_begins_anew() {
        let waits = |second| {
            Some(pending(if second < 20 { PendingReason::Start } else { PendingReason::Attach }, "why"))
        };
        assert_eq!(told(waits), (vec![2, 22], Some(51)));
    }

    #[test]
    fn the_number_before_is_news_when_half_of_them_have_gone() {
        let mut queued = Queued::default();
        let said: Vec<_> = (0..=10).rev().map(|before| queued.note(before)).collect();
        assert_eq!(said, [10, 10, 10, 10, 10, 5, 5, 5, 2, 1, 0]);
        assert_eq!(queued.note(3), 3, "older ones came back");
    }

    #[test]
    fn a_free_place_is_waited_for_without_end() {
        let pending =
            PendingStatus { timeout: Duration::MAX, ..pending(PendingReason::RunSlot, "none is free") };
        assert_eq!(told(|_| Some(pending.clone())), (vec![2], None));
    }

    #[test]
    fn what_took_long_to_fail_is_told_at_once() {
        let (begin, mut waits) = (Instant::now(), PendingTracker::default());
        waits.begin(PendingReason::Launch, begin);
        let turn = waits.note(&pending(PendingReason::Launch, "no answer"), begin + Duration::from_secs(10));
        assert_eq!(turn, PendingUpdate { is_news: true, is_over: false });
    }

    #[test]
    fn what_ends_lasts_from_its_next_beginning() {
        let (begin, mut lasted) = (Instant::now(), Lasted::default());
        let at = |second| begin + Duration::from_secs(second);
        assert_eq!([0, 5, 9].map(|second| lasted.note(at(second)).as_secs()), [0, 5, 9]);
        lasted.end();
        assert_eq!([20, 21].map(|second| lasted.note(at(second)).as_secs()), [0, 1]);
    }

    #[test]
    fn the_time_of_a_server_that_stood_still_is_not_the_agents() {
        let (begin, mut waits) = (Instant::now(), PendingTracker::default());
        let mut is_over = |second| {
            waits.note(&pending(PendingReason::Attach, "silent"), begin + Duration::from_secs(second)).is_over
        };
        assert_eq!([0, 1000, 1014, 1016].map(&mut is_over), [false, false, false, true]);
    }
}
