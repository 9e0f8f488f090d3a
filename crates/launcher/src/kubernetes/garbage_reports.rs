//! Pods and claims that are not removed: of jobs that are not in the store, or made by another program. They are logged,
//! once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use sqlflow_sync::lock;

use sqlflow_job::ExecutorRef;

use crate::Target;

/// Executors that were reported; at most one for each Pod and claim.
#[derive(Clone, Default)]
pub(super) struct GarbageReports(Arc<Mutex<HashSet<ExecutorRef>>>);

impl GarbageReports {
    /// Whether it was not reported before.
    pub(super) fn is_new(&self, executor: &ExecutorRef) -> bool {
        lock(&self.0).insert(executor.clone())
    }

    /// Removes all but these, which are all that exist.
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
    fn executor_is_reported_once_until_it_is_gone() {
        let garbage_reports = GarbageReports::default();
        let [stays, goes] =
            [(); 2].map(|()| Target::own(AttemptId { job: JobId::generate(), step: 0, number: 1 }));
        assert!(garbage_reports.is_new(&stays.executor) && garbage_reports.is_new(&goes.executor));
        garbage_reports.retain(std::slice::from_ref(&stays));
        assert!(!garbage_reports.is_new(&stays.executor), "it was reported");
        assert_eq!(lock(&garbage_reports.0).len(), 1);
    }
}
