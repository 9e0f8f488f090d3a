//! Outcome files that cannot be read: whether to retry, or to treat them as damaged.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlflow_os::exhaustion::is_exhaustion;
use sqlflow_sync::lock;

use sqlflow_job::ExecutorRef;

/// Time after which a retryable read error, such as EIO, counts as damage.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum number of executors in memory. An additional one replaces the one that has failed for longest.
const MOST: usize = 1024;

/// Time of the first failed read of each executor's outcome.
#[derive(Clone, Default)]
pub(super) struct Unreadable(Arc<Mutex<HashMap<ExecutorRef, Instant>>>);

impl Unreadable {
    /// Whether this error, of a failed read, is lasting. Exhausted resources never are.
    pub(super) fn is_lasting(&self, executor: &ExecutorRef, error: &io::Error, now: Instant) -> bool {
        if is_exhaustion(error) {
            return false;
        }
        if matches!(
            error.kind(),
            io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidData
        ) {
            return true;
        }
        let mut since = lock(&self.0);
        if since.len() >= MOST
            && !since.contains_key(executor)
            && let Some(oldest) = since.iter().min_by_key(|(_, since)| **since).map(|(it, _)| it.clone())
        {
            since.remove(&oldest);
        }
        now.saturating_duration_since(*since.entry(executor.clone()).or_insert(now)) >= TIMEOUT
    }

    /// Removes the executor, because its outcome was read or is no longer needed.
    pub(super) fn end(&self, executor: &ExecutorRef) {
        lock(&self.0).remove(executor);
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use sqlflow_job::{AttemptId, JobId};

    use super::*;

    fn executor() -> ExecutorRef {
        ExecutorRef::of_attempt(&AttemptId { job: JobId::generate(), step: 0, number: 1 })
    }

    /// Whether the error is lasting, after reads each 20 s for this time.
    fn lasting(errno: Errno) -> Vec<bool> {
        let (unreadable, executor, begin) = (Unreadable::default(), executor(), Instant::now());
        let looks = [0, 20, 40, 60, 80].map(Duration::from_secs);
        looks.map(|after| unreadable.is_lasting(&executor, &errno.into(), begin + after)).to_vec()
    }

    #[test]
    fn retryable_error_becomes_lasting_and_exhaustion_never() {
        assert_eq!(lasting(Errno::EIO), [false, false, false, true, true]);
        assert_eq!(lasting(Errno::EISDIR), [true; 5]);
        assert_eq!(lasting(Errno::EMFILE), [false; 5]);
    }

    #[test]
    fn successful_read_resets_the_time() {
        let (unreadable, executor, begin) = (Unreadable::default(), executor(), Instant::now());
        let is_lasting = || unreadable.is_lasting(&executor, &Errno::EIO.into(), begin + TIMEOUT);
        assert!(!unreadable.is_lasting(&executor, &Errno::EIO.into(), begin));
        assert!(is_lasting());
        unreadable.end(&executor);
        assert!(!is_lasting());
    }

    #[test]
    fn longest_failure_is_dropped_first() {
        let (unreadable, first, begin) = (Unreadable::default(), executor(), Instant::now());
        unreadable.is_lasting(&first, &Errno::EIO.into(), begin);
        for _ in 0..MOST {
            unreadable.is_lasting(&executor(), &Errno::EIO.into(), begin + Duration::from_secs(1));
        }
        let known = unreadable.0.lock().unwrap();
        assert!(known.len() == MOST && !known.contains_key(&first));
    }
}
