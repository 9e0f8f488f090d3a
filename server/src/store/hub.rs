//! Wakes waiters in this process when a job changes, in this process or another.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::job::JobId;
use crate::watched::Watched;

#[derive(Default)]
pub(super) struct Hub {
    jobs: Mutex<Watched<JobId, u64>>,
}

impl Hub {
    pub(super) fn watch(&self, id: &JobId) -> watch::Receiver<u64> {
        self.lock().subscribe(id, 0)
    }

    pub(super) fn changed(&self, id: &JobId) {
        let mut jobs = self.lock();
        match jobs.get(id) {
            Some(sender) if sender.is_closed() => jobs.remove(id),
            Some(sender) => sender.send_modify(|version| *version += 1),
            None => {}
        }
    }

    /// Any job may have changed.
    pub(super) fn all_changed(&self) {
        self.lock().all().for_each(|sender| sender.send_modify(|version| *version += 1));
    }

    fn lock(&self) -> MutexGuard<'_, Watched<JobId, u64>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watched::SPARE;

    #[test]
    fn jobs_that_nobody_watches_any_more_are_forgotten() {
        let hub = Hub::default();
        let watched = JobId::generate();
        let mut receiver = hub.watch(&watched);
        for _ in 0..10_000 {
            drop(hub.watch(&JobId::generate()));
        }
        assert!(hub.jobs.lock().unwrap().len() <= 2 + SPARE);
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
