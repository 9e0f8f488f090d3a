//! Tells waiters in this process that a job changed. Holds an entry only while somebody watches.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::job::JobId;

#[derive(Default)]
pub(super) struct Hub {
    jobs: Mutex<HashMap<JobId, watch::Sender<u64>>>,
}

impl Hub {
    pub(super) fn watch(&self, id: &JobId) -> watch::Receiver<u64> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.entry(id.clone()).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    pub(super) fn changed(&self, id: &JobId) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = jobs.get(id) {
            if sender.is_closed() {
                jobs.remove(id);
            } else {
                sender.send_modify(|version| *version += 1);
            }
        }
    }
}
