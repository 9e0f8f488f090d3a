//! What this process knows of the state of a job that it watches, so that a watcher need not load what the process has just
//! written or loaded. Pure, but for [`current`].
//!
//! Why this is as good as a load: a job is known at a revision, and then as it stood after all writes up to that revision.
//! A later write is announced later, so the watcher wakes and looks again. The same holds for a load, which another write may
//! overtake before its result is used. Where the order of writes cannot be told from their revisions, nothing is known, and
//! watchers load.
//!
//! One difference remains: a load also sees what another process wrote within the last second, which was not told yet. Load
//! where that matters: before an action that neither `Job::apply` nor a lease can reject.

use std::sync::Arc;

use sqlflow_job::{Job, JobId};
use tokio::sync::watch;

use super::{Revision, Store, StoreError};

/// The state of a watched job, as far as this process knows it.
#[derive(Debug, Default)]
pub struct KnownJob {
    /// The newest write of the job that this process made, loaded or was told of.
    newest: Option<Revision>,
    /// The job after that write; `None`: it must be loaded.
    job: Option<Arc<Job>>,
}

impl KnownJob {
    /// This process wrote the job. Each writer tells of its own commit, so a later one may come first.
    pub(super) fn wrote(&mut self, revision: Revision, job: &Job) {
        self.written(revision);
        if self.newest == Some(revision) {
            // Also in place of what was known at the same one: a restored store gives it again.
            self.job = Some(Arc::new(job.clone()));
        }
    }

    /// The job was written, and this process may not have the result.
    pub(super) fn written(&mut self, revision: Revision) {
        if self.newest != Some(revision) {
            self.newest = self.newest.max(Some(revision));
            self.job = None;
        }
    }

    /// This process loaded the job. What it knows already may be newer.
    pub(super) fn loaded(&mut self, revision: Revision, job: &Job) {
        let is_known = self.newest == Some(revision) && self.job.is_some();
        if self.newest <= Some(revision) && !is_known {
            self.newest = Some(revision);
            self.job = Some(Arc::new(job.clone()));
        }
    }

    /// The store has become older, so revisions are given a second time and say nothing about order any more. From now on
    /// watchers of this job load it.
    pub(super) fn restored(&mut self) {
        self.written(Revision(i64::MAX));
    }
}

/// Marks all changes so far as seen, and gives the job as it stands after them, if this process knows it.
#[must_use]
pub fn seen(changes: &mut watch::Receiver<KnownJob>) -> Option<Arc<Job>> {
    changes.borrow_and_update().job.clone()
}

/// Marks all changes so far as seen, and gives the job as it stands after them; loads it only if this process does not know
/// it. `None`: there is no such job.
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
    fn the_last_write_of_this_process_is_known() {
        let [first, second] = states();
        let mut it = KnownJob::default();
        assert_eq!(known(&it), None);
        it.wrote(FIRST, &first);
        assert_eq!(known(&it), Some(&first));
        it.wrote(SECOND, &second);
        assert_eq!(known(&it), Some(&second));
    }

    /// The task that made the first write was slow to tell of it.
    #[test]
    fn an_older_write_never_replaces_a_newer_one() {
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
    fn what_another_process_wrote_in_between_is_seen() {
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

    /// It read what another process had written, and that was not told yet.
    #[test]
    fn a_write_that_is_told_after_a_load_does_not_hide_what_was_loaded() {
        let [first, second] = states();
        let mut it = KnownJob::default();
        it.loaded(SECOND, &second);
        assert_eq!(known(&it), Some(&second));
        it.wrote(FIRST, &first);
        assert_eq!(known(&it), None, "it is loaded again");
    }

    #[test]
    fn a_write_that_was_loaded_before_it_is_told_stays_known() {
        let [first, second] = states();
        let mut it = KnownJob::default();
        it.wrote(FIRST, &first);
        it.loaded(SECOND, &second);
        it.written(SECOND);
        assert_eq!(known(&it), Some(&second));
    }

    #[test]
    fn a_load_that_was_overtaken_by_a_write_is_not_known() {
        let [first, second] = states();
        let mut it = KnownJob::default();
        it.wrote(SECOND, &second);
        it.loaded(FIRST, &first);
        assert_eq!(known(&it), Some(&second));
    }

    /// Its revisions begin again, also while this process has not noticed that.
    #[test]
    fn nothing_is_known_by_the_revisions_of_a_restored_store() {
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
