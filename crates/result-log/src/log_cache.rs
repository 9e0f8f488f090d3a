//! Logs whose state is in this process's memory. The state is a cache, and an unused one may be dropped at any time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use sqlflow_job::JobId;

/// Maximum number of idle logs in memory. Each takes about 1 KiB, and at most 16 KiB except for the longest logs. A log
/// is also idle between two appends; without its state the next one reads its whole tail.
pub(super) const IDLE_LOGS: usize = 8 * 1024;
/// Number of additional logs after which those that have ended are dropped.
pub(super) const ENDED_LOGS: usize = 512;

/// The cached state of a log.
pub(super) trait CachedLog {
    /// Whether somebody waits for its next record.
    fn is_watched(&self) -> bool;

    /// Whether the job's end is in the log, or the log is empty, as far as this process knows.
    fn has_ended(&self) -> bool;

    /// Time of the last use, counted in uses of the cache.
    fn used(&self) -> &AtomicU64;
}

/// Reports the log's last position to its watchers. It never decreases.
pub(super) fn notify_watchers(position: &watch::Sender<u64>, last: u64) {
    position.send_if_modified(|known| {
        let is_news = *known < last;
        *known = last.max(*known);
        is_news
    });
}

/// The cached logs by job.
pub(super) struct LogCache<T> {
    logs: HashMap<JobId, Arc<T>>,
    /// Their number after the last drop.
    left: usize,
    clock: u64,
}

impl<T> Default for LogCache<T> {
    fn default() -> Self {
        Self { logs: HashMap::new(), left: 0, clock: 0 }
    }
}

impl<T: CachedLog> LogCache<T> {
    /// The job's log; `make` creates the state of a new one.
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

    /// Drops idle logs that have ended. If too many remain, drops the least recently used half of the idle ones, so
    /// that this is rare.
    fn forget(&mut self) {
        // A new reference needs the map, which is borrowed here.
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
