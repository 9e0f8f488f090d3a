//! Pods and claims of jobs that the store does not know, as far as they were reported.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use sqlflow_sync::mutex::lock;

use sqlflow_job::ExecutorRef;

use crate::Target;

/// Executors that were reported; no more than there are Pods and claims.
#[derive(Clone, Default)]
pub(super) struct Orphans(Arc<Mutex<HashSet<ExecutorRef>>>);

impl Orphans {
    /// Whether it was not reported yet.
    pub(super) fn is_new(&self, executor: &ExecutorRef) -> bool {
        lock(&self.0).insert(executor.clone())
    }

    /// These are all that there are: the others are forgotten.
    pub(super) fn retain(&self, left: &[Target]) {
        let mut reported = lock(&self.0);
        if !reported.is_empty() {
            let left: HashSet<_> = left.iter().map(|it| &it.executor).collect();
            reported.retain(|it| left.contains(it));
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_job::{AttemptId, JobId};

    use super::*;

    #[test]
    fn an_orphan_is_reported_once_and_forgotten_when_it_is_gone() {
        let orphans = Orphans::default();
        let [stays, goes] =
            [(); 2].map(|()| Target::own(AttemptId { job: JobId::generate(), step: 0, number: 1 }));
        assert!(orphans.is_new(&stays.executor) && orphans.is_new(&goes.executor));
        orphans.retain(std::slice::from_ref(&stays));
        assert!(!orphans.is_new(&stays.executor), "it was reported");
        assert_eq!(lock(&orphans.0).len(), 1);
    }
}
