//! Wakes waiters in this process when a job changes, in this process or another, and keeps what is known of jobs that
//! somebody watches.

use std::sync::Mutex;

use sqlflow_job::{Job, JobId};
use sqlflow_sync::mutex::lock;
use sqlflow_sync::watched::Watched;
use tokio::sync::watch;

use super::Revision;
use super::known_job::KnownJob;

#[derive(Default)]
pub(super) struct Hub {
    jobs: Mutex<Watched<JobId, KnownJob>>,
}

impl Hub {
    pub(super) fn watch(&self, id: &JobId) -> watch::Receiver<KnownJob> {
        lock(&self.jobs).subscribe(id, KnownJob::default())
    }

    /// This process wrote the job, which is this one since.
    pub(super) fn wrote(&self, job: &Job, revision: Revision) {
        self.changed(&job.id, |known| known.wrote(revision, job));
    }

    /// The job was written, and this process does not have the result.
    pub(super) fn written(&self, id: &JobId, revision: Revision) {
        self.changed(id, |known| known.written(revision));
    }

    /// This process loaded the job. That wakes nobody.
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

    /// Forgets the jobs that nobody watches any more. A job that has ended is never written again, which would do that.
    pub(super) fn forget_unwatched(&self) {
        lock(&self.jobs).prune();
    }

    /// The store has become older: any job may have changed.
    pub(super) fn restored(&self) {
        lock(&self.jobs).all().for_each(|sender| sender.send_modify(KnownJob::restored));
    }

    fn changed(&self, id: &JobId, note: impl FnOnce(&mut KnownJob)) {
        let mut jobs = lock(&self.jobs);
        match jobs.get(id) {
            // Nobody watches, so nothing is kept: what is known would be old when somebody does.
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
    fn jobs_that_nobody_watches_any_more_are_forgotten() {
        let hub = Hub::default();
        let watched = JobId::generate();
        let mut receiver = hub.watch(&watched);
        for _ in 0..10_000 {
            drop(hub.watch(&JobId::generate()));
        }
        assert!(hub.jobs.lock().unwrap().len() <= 2 + SPARE);
        hub.forget_unwatched();
        assert_eq!(hub.jobs.lock().unwrap().len(), 1);
        hub.written(&watched, REVISION);
        assert!(receiver.has_changed().unwrap(), "one that is watched stays");
        receiver.mark_unchanged();
    }

    #[test]
    fn a_change_is_seen_by_who_did_not_wait_for_it_and_by_nobody_else() {
        let hub = Hub::default();
        let (job, other) = (JobId::generate(), JobId::generate());
        let (early, of_other) = (hub.watch(&job), hub.watch(&other));
        hub.written(&job, REVISION);
        hub.written(&job, REVISION);
        let late = hub.watch(&job);
        assert!(
            early.has_changed().unwrap() && !late.has_changed().unwrap() && !of_other.has_changed().unwrap()
        );
        hub.restored();
        assert!(late.has_changed().unwrap() && of_other.has_changed().unwrap());
    }
}
