//! Jobs that this server released because it has no launcher for their attempts. Other servers may claim them for a
//! while. After that this server claims them again: a job that no server reconciles cannot be cancelled.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use sqlflow_job::{AttemptId, JobId};

use sqlflow_sync::lock;

/// Time in which only other servers claim a released job.
pub(super) const RELEASE_PERIOD: Duration = Duration::from_secs(60);
/// Time after that in which it is remembered that the job's log has the reason.
const REASON_RETENTION: Duration = Duration::from_secs(600);

/// Released jobs. Memory: one attempt id for each job that was released in the last minutes.
#[derive(Default)]
pub(super) struct ReleasedJobs(Mutex<HashMap<JobId, ReleasedJob>>);

struct ReleasedJob {
    /// The attempt that this server has no launcher for.
    attempt: AttemptId,
    until: Instant,
}

impl ReleasedJobs {
    /// Marks the job as released.
    pub(super) fn add(&self, attempt: &AttemptId, now: Instant) {
        let mut jobs = self.lock();
        jobs.retain(|_, released| now < released.until + REASON_RETENTION);
        jobs.insert(
            attempt.job.clone(),
            ReleasedJob { attempt: attempt.clone(), until: now + RELEASE_PERIOD },
        );
    }

    /// Makes the job claimable for this server, because it changed.
    pub(super) fn make_claimable(&self, job: &JobId, now: Instant) {
        if let Some(released) = self.lock().get_mut(job) {
            released.until = now;
        }
    }

    /// Whether the job was released because of this attempt. If so, its log has the reason.
    pub(super) fn has_logged_reason(&self, attempt: &AttemptId) -> bool {
        self.lock().get(&attempt.job).is_some_and(|released| released.attempt == *attempt)
    }

    /// Jobs that this server does not claim now.
    pub(super) fn excluded(&self, now: Instant) -> Vec<JobId> {
        let jobs = self.lock();
        jobs.iter().filter(|(_, released)| now < released.until).map(|(job, _)| job.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, ReleasedJob>> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_job_is_not_claimed_for_a_while_and_its_reason_is_remembered() {
        let (released, now) = (ReleasedJobs::default(), Instant::now());
        let first = AttemptId { job: JobId::generate(), step: 0, number: 1 };
        let second = AttemptId { number: 2, ..first.clone() };
        assert!(!released.has_logged_reason(&first));
        released.add(&first, now);
        assert_eq!(released.excluded(now), std::slice::from_ref(&first.job));
        assert_eq!(released.excluded(now + RELEASE_PERIOD), []);
        assert!(released.has_logged_reason(&first) && !released.has_logged_reason(&second));
        released.add(&first, now + RELEASE_PERIOD);
        released.make_claimable(&first.job, now + RELEASE_PERIOD);
        assert_eq!(released.excluded(now + RELEASE_PERIOD), []);
        let other = AttemptId { job: JobId::generate(), ..first.clone() };
        released.add(&other, now + RELEASE_PERIOD + REASON_RETENTION);
        assert!(!released.has_logged_reason(&first), "it is forgotten");
    }
}
