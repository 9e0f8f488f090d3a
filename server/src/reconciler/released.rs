//! Jobs that this server gave back because it cannot ask after their attempts. It leaves them to other servers for a
//! while, and takes them again if nobody else has: a job that is not reconciled at all hears no cancel.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlflow_job::{AttemptId, JobId};

/// How long a job is left to other servers.
pub(super) const REST: Duration = Duration::from_secs(60);
/// How long it is remembered after that that the job's log has the reason.
const MEMORY: Duration = Duration::from_secs(600);

/// Memory: an attempt's id for each job that was given back in the last minutes.
#[derive(Default)]
pub(super) struct ReleasedJobs(Mutex<HashMap<JobId, Rest>>);

struct Rest {
    /// The attempt that cannot be asked after.
    attempt: AttemptId,
    until: Instant,
}

impl ReleasedJobs {
    /// Leaves the job to others from now on.
    pub(super) fn begin(&self, attempt: &AttemptId, now: Instant) {
        let mut rests = self.lock();
        rests.retain(|_, rest| now < rest.until + MEMORY);
        rests.insert(attempt.job.clone(), Rest { attempt: attempt.clone(), until: now + REST });
    }

    /// The job has changed: this server may have something to do about it.
    pub(super) fn end(&self, job: &JobId, now: Instant) {
        if let Some(rest) = self.lock().get_mut(job) {
            rest.until = now;
        }
    }

    /// Whether the job was given back because of this attempt, so that its log has the reason.
    pub(super) fn is_said(&self, attempt: &AttemptId) -> bool {
        self.lock().get(&attempt.job).is_some_and(|rest| rest.attempt == *attempt)
    }

    /// The jobs that are left to others.
    pub(super) fn resting(&self, now: Instant) -> Vec<JobId> {
        let rests = self.lock();
        rests.iter().filter(|(_, rest)| now < rest.until).map(|(job, _)| job.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Rest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_left_to_others_for_a_while_and_its_reason_is_said_once() {
        let (released, now) = (ReleasedJobs::default(), Instant::now());
        let first = AttemptId { job: JobId::generate(), step: 0, number: 1 };
        let second = AttemptId { number: 2, ..first.clone() };
        assert!(!released.is_said(&first));
        released.begin(&first, now);
        assert_eq!(released.resting(now), std::slice::from_ref(&first.job));
        assert_eq!(released.resting(now + REST), []);
        assert!(released.is_said(&first) && !released.is_said(&second));
        released.begin(&first, now + REST);
        released.end(&first.job, now + REST);
        assert_eq!(released.resting(now + REST), []);
        let other = AttemptId { job: JobId::generate(), ..first.clone() };
        released.begin(&other, now + REST + MEMORY);
        assert!(!released.is_said(&first), "it is forgotten");
    }
}
