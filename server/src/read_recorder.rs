//! Recorder of reads of a job, by Fetch or by its web page. Each read restarts the job's fetch timeout.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use sqlflow_job_store::{JobRecord, Store};

/// Maximum interval between two records. It is shorter for a job whose fetch timeout is less than four times as long.
const MAX_INTERVAL: Duration = Duration::from_secs(5);

/// Records the reads of one job, for one or more readers.
#[derive(Default)]
pub struct ReadRecorder {
    recorded_at: Option<Instant>,
    writing: Option<JoinHandle<()>>,
}

impl ReadRecorder {
    /// Records that the job is read, with one write at a time. The write is not awaited, so a slow store does not delay the
    /// reader.
    pub fn record(&mut self, store: &Arc<dyn Store>, job: &JobRecord) {
        let is_writing = self.writing.as_ref().is_some_and(|writing| !writing.is_finished());
        if is_writing || !self.is_due(job, Instant::now()) {
            return;
        }
        let (store, id) = (Arc::clone(store), job.job.id.clone());
        self.writing = Some(tokio::spawn(async move {
            if let Err(error) = store.fetched(&id).await {
                tracing::warn!(job = %id, %error, "cannot record that the job is read; its fetch timeout may expire");
            }
        }));
    }

    fn is_due(&mut self, job: &JobRecord, now: Instant) -> bool {
        let Some(timeout) = u64::try_from(job.fetch_timeout_ms).ok().filter(|timeout| *timeout > 0) else {
            return false;
        };
        let interval = MAX_INTERVAL.min(Duration::from_millis(timeout) / 4);
        let is_due = !job.job.state.is_final()
            && self.recorded_at.is_none_or(|at| now.saturating_duration_since(at) >= interval);
        if is_due {
            self.recorded_at = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_job::{Job, JobId, JobState};

    use super::*;

    #[test]
    fn reads_are_recorded_often_enough_for_the_fetch_timeout() {
        let mut record = JobRecord {
            principal: None,
            job: Job::new(JobId::generate(), Vec::new()),
            lease_epoch: 1,
            user_id: String::new(),
            created_ms: 0,
            ended_ms: None,
            plain_cursor: 0,
            fetch_timeout_ms: 2_000,
        };
        let (mut recorder, now) = (ReadRecorder::default(), Instant::now());
        let after = |ms| now + Duration::from_millis(ms);
        let due = [0, 499, 500, 900, 1_000].map(|ms| recorder.is_due(&record, after(ms)));
        assert_eq!(due, [true, false, true, false, true]);
        record.fetch_timeout_ms = 3_600_000;
        assert_eq!([5_999, 6_000].map(|ms| recorder.is_due(&record, after(ms))), [false, true]);
        record.fetch_timeout_ms = 0;
        assert!(!recorder.is_due(&record, after(99_000)), "the job has no fetch timeout");
        record.fetch_timeout_ms = 2_000;
        record.job.state = JobState::Succeeded;
        assert!(!recorder.is_due(&record, after(99_000)));
    }
}
