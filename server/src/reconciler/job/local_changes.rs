//! What a reconciler has seen of the attempt that it reconciles, in its memory only. It belongs to that attempt: nothing of it
//! may be held against the next one.

use std::time::{Duration, Instant};

use sqlflow_job::AttemptId;

use super::pending::{Lasted, PendingTracker};
use crate::agent_liveness::AgentLiveness;
use crate::attach_errors::Awaited;

pub(super) struct AttemptView {
    /// Which attempt.
    pub(super) attempt: AttemptId,
    /// What it waits for.
    pub(super) pending: PendingTracker,
    /// Whether its platform tells how it stands.
    pub(super) unknown: PendingTracker,
    /// Why its agent, which runs, could not attach.
    pub(super) refused: Option<Awaited>,
    /// When it was first seen to run, in milliseconds since the Unix epoch. From then on its platform tells of its end.
    pub(super) seen_ms: Option<i64>,
    /// It was launched, is not attached, and does not run.
    pub(super) missing: Lasted,
    /// Its agent had attached to a server, and may be away.
    pub(super) silence: Option<AgentLiveness>,
    /// It is being ended.
    pub(super) ending: Lasted,
    /// What it left cannot be read.
    pub(super) unreadable: Lasted,
    /// Changes that its platform tells of.
    pub(super) changes: Changes,
}

impl AttemptView {
    pub(super) fn new(attempt: AttemptId) -> Self {
        Self {
            attempt,
            pending: PendingTracker::default(),
            unknown: PendingTracker::default(),
            refused: None,
            seen_ms: None,
            missing: Lasted::default(),
            silence: None,
            ending: Lasted::default(),
            unreadable: Lasted::default(),
            changes: Changes::default(),
        }
    }
}

/// Pause between the first two looks that changes cause; the next ones grow.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// After so long without a change the pauses begin with the first one again.
const QUIET: Duration = Duration::from_secs(3);

/// When to look because of a change. An exit stays a change until the attempt has ended, and what can be seen of it may come
/// later; so changes that follow each other are looked at less and less often.
#[derive(Debug, Default)]
pub(super) struct Changes(Option<Looked>);

#[derive(Debug, Clone, Copy)]
struct Looked {
    at: Instant,
    pause: Duration,
}

impl Changes {
    /// When to look at a change of which the platform tells now.
    pub(super) fn look_at(&self, now: Instant) -> Instant {
        self.0.map_or(now, |last| now.max(last.at + last.pause))
    }

    /// It was looked at.
    pub(super) fn looked(&mut self, at: Instant) {
        let recent = self.0.filter(|last| at.saturating_duration_since(last.at) < QUIET);
        let pause = recent.map_or(FIRST_PAUSE, |last| (last.pause * 2).min(LONGEST_PAUSE));
        self.0 = Some(Looked { at, pause });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_looked_at_at_once_and_one_that_stays_less_and_less_often() {
        let begin = Instant::now();
        let mut changes = Changes::default();
        let mut look = |after: Instant| {
            let at = changes.look_at(after);
            changes.looked(at);
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
