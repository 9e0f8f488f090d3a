//! Jobs that were fetched last, with what each Fetch of them needs.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use sqlflow_job::JobId;
use sqlflow_sync::lock;

use crate::read_recorder::ReadRecorder;

/// Maximum bytes of cached jobs, beside those that are being read.
const CACHED_BYTES: usize = 1024 * 1024;
/// Upper bound of the bytes of a job without its headings.
const JOB_BYTES: usize = 512;
/// Maximum number of principals that are remembered for each cached job.
const REMEMBERED_READERS: usize = 16;
/// Time without a Fetch after which a job is not being read any more.
const READ_PERIOD_MS: i64 = 10_000;

/// Jobs that were fetched last.
#[derive(Default)]
pub(super) struct CachedJobs {
    jobs: HashMap<JobId, Arc<CachedJob>>,
    bytes: usize,
    /// Bytes of those that were being read at the last eviction.
    read_bytes: usize,
}

/// One of them.
pub(super) struct CachedJob {
    pub(super) headings: Vec<String>,
    /// Time of the last Fetch.
    used_ms: AtomicI64,
    pub(super) reads: Mutex<ReadRecorder>,
    /// Who has fetched, for the audit log.
    readers: Mutex<BTreeSet<String>>,
}

impl CachedJobs {
    pub(super) fn get(&self, id: &JobId, now_ms: i64) -> Option<Arc<CachedJob>> {
        let cached = self.jobs.get(id)?;
        cached.used_ms.store(now_ms, Ordering::Relaxed);
        Some(Arc::clone(cached))
    }

    /// Adds a job. Those that are being read stay: their entry limits the writes for each of them.
    pub(super) fn add(&mut self, id: JobId, headings: Vec<String>, now_ms: i64) -> Arc<CachedJob> {
        if self.bytes >= self.read_bytes + CACHED_BYTES {
            let is_read = |job: &CachedJob| now_ms - job.used_ms.load(Ordering::Relaxed) < READ_PERIOD_MS;
            self.jobs.retain(|_, job| is_read(job));
            self.bytes = self.jobs.values().map(|job| job.bytes()).sum();
            self.read_bytes = self.bytes;
        }
        let cached = CachedJob {
            headings,
            used_ms: AtomicI64::new(now_ms),
            reads: Mutex::default(),
            readers: Mutex::default(),
        };
        let bytes = cached.bytes();
        let entry = self.jobs.entry(id).or_insert_with(|| {
            self.bytes += bytes;
            Arc::new(cached)
        });
        Arc::clone(entry)
    }

    pub(super) fn remove(&mut self, id: &JobId) {
        if let Some(removed) = self.jobs.remove(id) {
            self.bytes -= removed.bytes();
        }
    }
}

impl CachedJob {
    /// Whether this principal has not fetched before, as far as is remembered.
    pub(super) fn is_new_reader(&self, name: &str) -> bool {
        let mut readers = lock(&self.readers);
        if readers.contains(name) {
            return false;
        }
        if readers.len() >= REMEMBERED_READERS {
            readers.clear();
        }
        readers.insert(name.to_owned())
    }

    fn bytes(&self) -> usize {
        JOB_BYTES + self.headings.iter().map(|it| size_of::<String>() + it.capacity()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_being_read_are_not_evicted() {
        let mut cached = CachedJobs::default();
        let many = 3 * CACHED_BYTES / JOB_BYTES;
        let ids: Vec<JobId> = (0..many).map(|_| JobId::generate()).collect();
        for id in &ids {
            cached.add(id.clone(), Vec::new(), 1_000);
        }
        assert!(ids.iter().all(|id| cached.get(id, 2_000).is_some()));
        let later = 2_000 + READ_PERIOD_MS;
        let read = cached.get(&ids[0], later).unwrap();
        for _ in 0..=many {
            cached.add(JobId::generate(), Vec::new(), later);
        }
        assert!(cached.get(&ids[1], later).is_none(), "it is not being read any more");
        assert!(Arc::ptr_eq(&read, &cached.get(&ids[0], later).unwrap()));
    }

    #[test]
    fn cache_is_bounded_by_bytes() {
        let mut cached = CachedJobs::default();
        for now in 0..50 {
            let headings = vec!["x".repeat(200); 10_000];
            cached.add(JobId::generate(), headings, now * READ_PERIOD_MS);
            assert!(cached.jobs.len() <= 2, "{} bytes", cached.bytes);
        }
    }
}
