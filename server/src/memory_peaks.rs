//! Peak memory use of running attempts, from heartbeats, for an inferred outcome. In memory only: a write per
//! heartbeat would cost more than this information is worth.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use sqlflow_job::AttemptId;

use sqlflow_sync::lock;

/// One entry for each attempt whose agent is attached to this server, or is awaited by it.
#[derive(Debug, Clone, Default)]
pub struct MemoryPeaks(Arc<Mutex<HashMap<AttemptId, u64>>>);

impl MemoryPeaks {
    /// Records the memory use of the attempt's processes, in bytes; 0: unknown.
    pub fn note(&self, attempt: &AttemptId, bytes: u64) {
        if bytes > 0 {
            let mut peaks = self.lock();
            let peak = peaks.entry(attempt.clone()).or_default();
            *peak = bytes.max(*peak);
        }
    }

    /// Removes the attempt: it has ended, or another server hears its agent.
    pub fn forget(&self, attempt: &AttemptId) {
        self.lock().remove(attempt);
    }

    /// The attempt's peak memory use, as text to append: `; its processes had used up to 900 MiB of memory`.
    #[must_use]
    pub fn in_words(&self, attempt: &AttemptId) -> String {
        let peak = self.lock().get(attempt).copied();
        peak.map_or_else(String::new, |peak| {
            format!("; its processes had used up to {} MiB of memory", peak.div_ceil(1 << 20))
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AttemptId, u64>> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_job::JobId;

    use super::*;

    #[test]
    fn peak_is_kept_until_the_attempt_is_removed() {
        let (peaks, attempt) =
            (MemoryPeaks::default(), AttemptId { job: JobId::generate(), step: 0, number: 1 });
        peaks.note(&attempt, 0);
        assert_eq!(peaks.in_words(&attempt), "");
        peaks.note(&attempt, 900 << 20);
        peaks.note(&attempt, 5);
        assert_eq!(peaks.in_words(&attempt), "; its processes had used up to 900 MiB of memory");
        peaks.forget(&attempt);
        assert!(peaks.lock().is_empty());
    }
}
