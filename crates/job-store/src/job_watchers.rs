//! Wakes this process's waiters when a job changes, here or in another process, and holds the known state of watched
//! jobs.

use std::sync::Mutex;

use sqlflow_job::{Job, JobId};
use sqlflow_sync::lock;
use sqlflow_sync::watched::Watched;
use tokio::sync::watch;

use super::Revision;
use super::known_job::KnownJob;

#[derive(Default)]
pub(super) struct JobWatchers {
    jobs: Mutex<Watched<JobId, KnownJob>>,
}

impl JobWatchers {
    pub(super) fn watch(&self, id: &JobId) -> watch::Receiver<KnownJob> {
        lock(&self.jobs).subscribe(id, KnownJob::default())
    }

    /// Records a write of this process, and the job after it.
    pub(super) fn wrote(&self, job: &Job, revision: Revision) {
        self.changed(&job.id, |known| known.wrote(revision, job));
    }

    /// Records a write whose result this process does not have.
    pub(super) fn written(&self, id: &JobId, revision: Revision) {
        self.changed(id, |known| known.written(revision));
    }

    /// Records a load of this process, which wakes no waiter.
    pub(super) fn loaded(&self, job: &Job, revision: Revision) {
        let mut jobs = lock(&self.jobs);
        match jobs.get(&job.id) {
            Some(sender) if sender.is_closed() => jobs.remove(&job.id),
            Some(sender) => {
                sender.send_if_modified(|known| {
                    known.loaded(revision, job);
                    false
                });
            }
            None => {}
        }
    }

    /// Removes jobs without watchers. Writes would also remove them, but a job that has ended is not written again.
    pub(super) fn forget_unwatched(&self) {
        lock(&self.jobs).prune();
    }

    /// Records that the store became older, so that any job may have changed.
    pub(super) fn restored(&self) {
        lock(&self.jobs).all().for_each(|sender| sender.send_modify(KnownJob::restored));
    }

    fn changed(&self, id: &JobId, note: impl FnOnce(&mut KnownJob)) {
        let mut jobs = lock(&self.jobs);
        match jobs.get(id) {
            // Without watchers nothing is stored, because it would be out of date for the next one.
            Some(sender) if sender.is_closed() => jobs.remove(id),
            Some(sender) => sender.send_modify(note),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_sync::watched::SPARE;

    use super::*;

    const REVISION: Revision = Revision(1);

    #[test]
    fn jobs_without_watchers_are_removed() {
        let watchers = JobWatchers::default();
        let watched = JobId::generate();
        let mut receiver = watchers.watch(&watched);
        for _ in 0..10_000 {
            drop(watchers.watch(&JobId::generate()));
        }
        assert!(watchers.jobs.lock().unwrap().len() <= 2 + SPARE);
        watchers.forget_unwatched();
        assert_eq!(watchers.jobs.lock().unwrap().len(), 1);
        watchers.written(&watched, REVISION);
        assert!(receiver.has_changed().unwrap(), "one that is watched stays");
        receiver.mark_unchanged();
    }

    #[test]
    fn change_is_seen_once_even_without_waiting() {
        let watchers = JobWatchers::default();
        let (job, other) = (JobId::generate(), JobId::generate());
        let (early, of_other) = (watchers.watch(&job), watchers.watch(&other));
        watchers.written(&job, REVISION);
        watchers.written(&job, REVISION);
        let late = watchers.watch(&job);
        assert!(
            early.has_changed().unwrap() && !late.has_changed().unwrap() && !of_other.has_changed().unwrap()
        );
        watchers.restored();
        assert!(late.has_changed().unwrap() && of_other.has_changed().unwrap());
    }
}
