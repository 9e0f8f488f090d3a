//! The most memory that the processes of running attempts were seen to use, as heartbeats say: for the inferred outcome of an
//! attempt whose agent cannot say it any more. In this process only, since a write for each heartbeat would cost more than
//! these words are worth.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use sqlflow_job::AttemptId;

use crate::sync::lock;

/// One entry for each attempt whose agent is attached to this server, or was, and is awaited.
#[derive(Debug, Clone, Default)]
pub struct MemoryPeaks(Arc<Mutex<HashMap<AttemptId, u64>>>);

impl MemoryPeaks {
    /// Processes of the attempt used so many bytes; 0: not known.
    pub fn note(&self, attempt: &AttemptId, bytes: u64) {
        if bytes > 0 {
            let mut peaks = self.lock();
            let peak = peaks.entry(attempt.clone()).or_default();
            *peak = bytes.max(*peak);
        }
    }

    /// Nothing is awaited of the attempt any more, or another server hears of it.
    pub fn forget(&self, attempt: &AttemptId) {
        self.lock().remove(attempt);
    }

    /// What is known of the attempt, in words that follow on others: `; its processes had used up to 900 MiB of memory`.
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
    fn the_largest_is_known_until_the_attempt_is_forgotten() {
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
