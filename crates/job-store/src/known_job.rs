//! The known state of a watched job, so that a watcher need not load what this process has just written or loaded.
//! Pure, except for [`current`].
//!
//! Why this is equivalent to a load: a job is known at a revision, with all writes up to it. A later write is announced
//! later, so the watcher wakes and reads again. The same holds for a load that another write overtakes before its
//! result is used. If the order of writes does not follow from their revisions, the state is unknown, and watchers
//! load.
//!
//! One difference remains: a load also sees writes of other processes in the last second, which were not announced yet.
//! Load where that matters: before an action that neither `Job::apply` nor a lease can reject.

use std::sync::Arc;

use sqlflow_job::{Job, JobId};
use tokio::sync::watch;

use super::{Revision, Store, StoreError};

/// The state of a watched job, as far as this process knows it. Subscribe with [`Store::watch`](crate::Store::watch).
#[derive(Debug, Default)]
pub struct KnownJob {
    /// Revision of the newest write of the job that this process made, loaded or was informed of.
    newest: Option<Revision>,
    /// The job after that write; `None`: it must be loaded.
    job: Option<Arc<Job>>,
}

impl KnownJob {
    /// Records a write of this process. Each writer reports its own commit, so a later one may be reported first.
    pub(super) fn wrote(&mut self, revision: Revision, job: &Job) {
        self.written(revision);
        if self.newest == Some(revision) {
            // Also if the revision is the same: a restored store assigns it again.
            self.job = Some(Arc::new(job.clone()));
        }
    }

    /// Records a write whose result this process may not have.
    pub(super) fn written(&mut self, revision: Revision) {
        if self.newest != Some(revision) {
            self.newest = self.newest.max(Some(revision));
            self.job = None;
        }
    }

    /// Records a load of this process. A newer state may be known.
    pub(super) fn loaded(&mut self, revision: Revision, job: &Job) {
        let is_known = self.newest == Some(revision) && self.job.is_some();
        if self.newest <= Some(revision) && !is_known {
            self.newest = Some(revision);
            self.job = Some(Arc::new(job.clone()));
        }
    }

    /// Records that the store became older, so that revisions are assigned again and show no order. From now on
    /// watchers of this job load it.
    pub(super) fn restored(&mut self) {
        self.written(Revision(i64::MAX));
    }
}

/// Marks all changes so far as seen, and returns the job after them, if this process knows it.
#[must_use]
pub fn seen(changes: &mut watch::Receiver<KnownJob>) -> Option<Arc<Job>> {
    changes.borrow_and_update().job.clone()
}

/// Marks all changes so far as seen, and returns the job after them, which is loaded if this process does not know it.
/// `None`: there is no such job.
///
/// # Errors
/// The job cannot be loaded.
pub async fn current(
    store: &dyn Store,
    id: &JobId,
    changes: &mut watch::Receiver<KnownJob>,
) -> Result<Option<Arc<Job>>, StoreError> {
    match seen(changes) {
        Some(job) => Ok(Some(job)),
        None => Ok(store.load(id).await?.map(|record| Arc::new(record.job))),
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_job::Failure;

    use super::*;
    use crate::fixture;

    const FIRST: Revision = Revision(7);
    const SECOND: Revision = Revision(9);

    /// A job before and after its second write.
    fn states() -> [Job; 2] {
        let first = fixture::job(true);
        let second = Job { cancel: Some(Failure::over_limit()), ..first.clone() };
        [first, second]
    }

    fn known(known: &KnownJob) -> Option<&Job> {
        known.job.as_deref()
    }

    #[test]
    fn last_write_of_this_process_is_known() {
        let [first, second] = states();
        let mut it = KnownJob::default();
        assert_eq!(known(&it), None);
        it.wrote(FIRST, &first);
        assert_eq!(known(&it), Some(&first));
        it.wrote(SECOND, &second);
        assert_eq!(known(&it), Some(&second));
    }

    /// The task that made the first write reported it late.
    #[test]
    fn older_write_does_not_replace_a_newer_one() {
        let [first, second] = states();
        let mut it = KnownJob::default();
        it.wrote(SECOND, &second);
        it.wrote(FIRST, &first);
        assert_eq!(known(&it), None, "it is loaded");
        it.loaded(FIRST, &first);
        assert_eq!(known(&it), None, "what was loaded is older");
        it.loaded(SECOND, &second);
        assert_eq!(known(&it), Some(&second));
    }

    #[test]
    fn write_of_another_process_in_between_requires_a_load() {
        let [first, second] = states();
        let mut it = KnownJob::default();
        it.wrote(FIRST, &first);
        it.written(SECOND);
        assert_eq!(known(&it), None, "it is loaded");
        it.wrote(FIRST, &first);
        assert_eq!(known(&it), None, "this write came before the other");
        it.wrote(Revision(10), &second);
        assert_eq!(known(&it), Some(&second), "this one after it");
    }

    /// The load read a write of another process that was not announced yet.
    #[test]
    fn write_reported_after_a_load_does_not_hide_the_load() {
        let [first, second] = states();
        let mut it = KnownJob::default();
        it.loaded(SECOND, &second);
        assert_eq!(known(&it), Some(&second));
        it.wrote(FIRST, &first);
        assert_eq!(known(&it), None, "it is loaded again");
    }

    #[test]
    fn write_loaded_before_its_report_stays_known() {
        let [first, second] = states();
        let mut it = KnownJob::default();
        it.wrote(FIRST, &first);
        it.loaded(SECOND, &second);
        it.written(SECOND);
        assert_eq!(known(&it), Some(&second));
    }

    #[test]
    fn overtaken_load_is_not_known() {
        let [first, second] = states();
        let mut it = KnownJob::default();
        it.wrote(SECOND, &second);
        it.loaded(FIRST, &first);
        assert_eq!(known(&it), Some(&second));
    }

    /// A restored store assigns revisions again, also before this process notices the restore.
    #[test]
    fn revisions_of_a_restored_store_require_a_load() {
        let [first, second] = states();
        let mut it = KnownJob::default();
        it.wrote(SECOND, &second);
        it.wrote(SECOND, &first);
        assert_eq!(known(&it), Some(&first), "the store became older by this one write");
        it.wrote(Revision(1), &first);
        assert_eq!(known(&it), None);
        it.restored();
        it.wrote(SECOND, &second);
        it.loaded(SECOND, &second);
        assert_eq!(known(&it), None);
    }
}
