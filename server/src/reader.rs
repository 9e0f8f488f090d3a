//! Readers of a job, by Fetch or on its web page. Each read restarts the job's fetch timeout.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use sqlflow_job_store::{JobRecord, Store};

/// Maximum period of recording a read, at most a quarter of the job's fetch timeout.
const PERIOD: Duration = Duration::from_secs(5);

/// Readers of a job that are recorded together.
#[derive(Default)]
pub struct Reader {
    noted: Option<Instant>,
    writing: Option<JoinHandle<()>>,
}

impl Reader {
    /// Records that the job is read, with one write at a time. Not awaited, so a store that cannot be written delays
    /// no page.
    pub fn note(&mut self, store: &Arc<dyn Store>, record: &JobRecord) {
        let is_writing = self.writing.as_ref().is_some_and(|writing| !writing.is_finished());
        if is_writing || !self.is_due(record, Instant::now()) {
            return;
        }
        let (store, id) = (Arc::clone(store), record.job.id.clone());
        self.writing = Some(tokio::spawn(async move {
            if let Err(error) = store.fetched(&id).await {
                tracing::warn!(job = %id, %error, "cannot record that the job is read; its fetch timeout may expire");
            }
        }));
    }

    fn is_due(&mut self, record: &JobRecord, now: Instant) -> bool {
        let Some(timeout) = u64::try_from(record.fetch_timeout_ms).ok().filter(|timeout| *timeout > 0) else {
            return false;
        };
        let period = PERIOD.min(Duration::from_millis(timeout) / 4);
        let is_due = !record.job.state.is_final()
            && self.noted.is_none_or(|noted| now.saturating_duration_since(noted) >= period);
        if is_due {
            self.noted = Some(now);
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
            job: Job::new(JobId::generate(), Vec::new()),
            lease_epoch: 1,
            user_id: String::new(),
            created_ms: 0,
            ended_ms: None,
            plain_cursor: 0,
            fetch_timeout_ms: 2_000,
        };
        let (mut reader, now) = (Reader::default(), Instant::now());
        let after = |ms| now + Duration::from_millis(ms);
        let due = [0, 499, 500, 900, 1_000].map(|ms| reader.is_due(&record, after(ms)));
        assert_eq!(due, [true, false, true, false, true]);
        record.fetch_timeout_ms = 3_600_000;
        assert_eq!([5_999, 6_000].map(|ms| reader.is_due(&record, after(ms))), [false, true]);
        record.fetch_timeout_ms = 0;
        assert!(!reader.is_due(&record, after(99_000)), "it never times out");
        record.fetch_timeout_ms = 2_000;
        record.job.state = JobState::Succeeded;
        assert!(!reader.is_due(&record, after(99_000)));
    }
}
