//! Logs whose state this process keeps in memory. The state is a cache: it may be dropped whenever nobody uses it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use sqlflow_job::JobId;

/// Logs whose state is kept in memory though nobody uses them; about 1 KiB each, 16 KiB at the most for all but the
/// longest. Between two appends a log is idle too, and what was forgotten of it costs a read of its whole tail.
pub(super) const IDLE_LOGS: usize = 8 * 1024;
/// So many come before those that have ended are forgotten.
pub(super) const ENDED_LOGS: usize = 512;

/// One log's state.
pub(super) trait KnownLog {
    /// Somebody waits for its next record.
    fn is_watched(&self) -> bool;

    /// Whether the job's end is in the log, or nothing is, as far as this process knows.
    fn has_ended(&self) -> bool;

    /// When it was last asked for, by a clock that counts such questions.
    fn used(&self) -> &AtomicU64;
}

/// Tells those who wait of the log's last position. It never goes back.
pub(super) fn raise(position: &watch::Sender<u64>, last: u64) {
    position.send_if_modified(|known| {
        let is_news = *known < last;
        *known = last.max(*known);
        is_news
    });
}

/// The logs by their jobs.
pub(super) struct Known<T> {
    logs: HashMap<JobId, Arc<T>>,
    /// How many there were when those that had ended were forgotten last.
    left: usize,
    clock: u64,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { logs: HashMap::new(), left: 0, clock: 0 }
    }
}

impl<T: KnownLog> Known<T> {
    /// The job's log; `make` makes what is not known yet.
    pub(super) fn get(&mut self, job: &JobId, make: impl FnOnce() -> T) -> Arc<T> {
        self.clock += 1;
        if !self.logs.contains_key(job) && self.logs.len() >= self.left + ENDED_LOGS {
            self.forget();
        }
        let log = self.logs.entry(job.clone()).or_insert_with(|| Arc::new(make()));
        log.used().store(self.clock, Ordering::Relaxed);
        Arc::clone(log)
    }

    pub(super) fn remove(&mut self, job: &JobId) {
        self.logs.remove(job);
    }

    /// Drops the logs that have ended and that nobody uses, then, if there are still too many, the older half of the others
    /// that nobody uses, so that this is done seldom.
    fn forget(&mut self) {
        // No other can take hold of one: that needs the map.
        let is_idle = |log: &Arc<T>| Arc::strong_count(log) == 1 && !log.is_watched();
        self.logs.retain(|_, log| !(is_idle(log) && log.has_ended()));
        if self.logs.len() >= IDLE_LOGS {
            let idle = self.logs.values().filter(|log| is_idle(log));
            let mut idle: Vec<u64> = idle.map(|log| log.used().load(Ordering::Relaxed)).collect();
            idle.sort_unstable();
            if let Some(&median) = idle.get(idle.len() / 2) {
                self.logs.retain(|_, log| !is_idle(log) || log.used().load(Ordering::Relaxed) > median);
            }
        }
        self.left = self.logs.len();
    }

    #[cfg(any(test, feature = "test-support"))]
    pub(super) fn len(&self) -> usize {
        self.logs.len()
    }

    #[cfg(test)]
    pub(super) fn contains(&self, job: &JobId) -> bool {
        self.logs.contains_key(job)
    }
}
