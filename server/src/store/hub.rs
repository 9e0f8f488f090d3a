//! Wakes waiters in this process when a job changes, whoever changed it. Entries that nobody watches are removed when the
//! map has grown to twice what was watched at the last look, so it holds at most that and [`SPARE`] more.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::job::JobId;

/// Entries that nobody watches and that may stay at any time.
const SPARE: usize = 64;

#[derive(Default)]
pub(super) struct Hub {
    jobs: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    senders: HashMap<JobId, watch::Sender<u64>>,
    /// How many entries there may be until those that nobody watches are looked for.
    prune_at: usize,
}

impl Hub {
    pub(super) fn watch(&self, id: &JobId) -> watch::Receiver<u64> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if !jobs.senders.contains_key(id) && jobs.senders.len() >= jobs.prune_at.max(SPARE) {
            jobs.senders.retain(|_, sender| !sender.is_closed());
            jobs.prune_at = 2 * jobs.senders.len();
        }
        jobs.senders.entry(id.clone()).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    pub(super) fn changed(&self, id: &JobId) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = jobs.senders.get(id) {
            if sender.is_closed() {
                jobs.senders.remove(id);
            } else {
                sender.send_modify(|version| *version += 1);
            }
        }
    }

    /// Any job may have changed.
    pub(super) fn all_changed(&self) {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in jobs.senders.values() {
            sender.send_modify(|version| *version += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_that_nobody_watches_any_more_are_forgotten() {
        let hub = Hub::default();
        let watched = JobId::generate();
        let mut receiver = hub.watch(&watched);
        for _ in 0..10_000 {
            drop(hub.watch(&JobId::generate()));
        }
        assert!(hub.jobs.lock().unwrap().senders.len() <= 2 + SPARE);
        hub.changed(&watched);
        assert!(receiver.has_changed().unwrap(), "one that is watched stays");
        receiver.mark_unchanged();
    }

    #[test]
    fn a_change_is_seen_by_who_did_not_wait_for_it_and_by_nobody_else() {
        let hub = Hub::default();
        let (job, other) = (JobId::generate(), JobId::generate());
        let (early, of_other) = (hub.watch(&job), hub.watch(&other));
        hub.changed(&job);
        hub.changed(&job);
        let late = hub.watch(&job);
        assert!(
            early.has_changed().unwrap() && !late.has_changed().unwrap() && !of_other.has_changed().unwrap()
        );
        hub.all_changed();
        assert!(late.has_changed().unwrap() && of_other.has_changed().unwrap());
    }
}
