//! Store and log with timing and counting.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlflow_job::{AttemptId, Change, Event, Evidence, Job, JobId, StatementEnds, TokenHash};
use sqlflow_job_store::{
    Changes, Claim, Created, EndedJob, JobFilter, JobRecord, KnownJob, Lease, NewJob, Revision, Secret,
    ServerId, Store, StoreError, Unfetched, UpdateError,
};
use sqlflow_result_log::{Appended, Both, Entry, LogError, Missing, Page, ResultLog};
use tokio::sync::watch;
use tracing::Instrument as _;

use super::{Metrics, Operation, live};

/// A store whose transactions are timed, and whose events are counted.
pub struct MeasuredStore {
    inner: Arc<dyn Store>,
    metrics: Metrics,
}

impl MeasuredStore {
    /// Wraps this store.
    pub fn new(inner: Arc<dyn Store>, metrics: Metrics) -> Self {
        Self { inner, metrics }
    }

    async fn time<T, E>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, E>>,
        is_failure: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        let begun = Instant::now();
        let span = live::store(operation);
        let done = work.instrument(span.clone()).await;
        let label = Operation { operation };
        self.metrics.0.store.observe(&label, begun.elapsed().as_secs_f64());
        // Reported from the start, so that the first failure is an increase.
        let failures = self.metrics.0.store_failures.get_or_create_owned(&label);
        let is_failed = done.as_ref().is_err_and(is_failure);
        failures.inc_by(u64::from(is_failed));
        if is_failed {
            live::failed(&span, "_OTHER");
        }
        done
    }

    async fn plain<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.time(operation, work, |_| true).await
    }
}

#[async_trait]
impl Store for MeasuredStore {
    async fn create(&self, job: NewJob) -> Result<Created, StoreError> {
        let created = self.plain("create", self.inner.create(job)).await?;
        match created {
            Created::New => {
                self.metrics.0.jobs_taken.inc();
            }
            Created::Before(_) | Created::Conflict => {}
        }
        Ok(created)
    }

    async fn resolve(&self, token: TokenHash) -> Result<Option<JobId>, StoreError> {
        self.plain("resolve", self.inner.resolve(token)).await
    }

    async fn load(&self, id: &JobId) -> Result<Option<JobRecord>, StoreError> {
        self.plain("load", self.inner.load(id)).await
    }

    async fn program(&self, id: &JobId) -> Result<Option<String>, StoreError> {
        self.plain("program", self.inner.program(id)).await
    }

    async fn headings(&self, id: &JobId) -> Result<Vec<String>, StoreError> {
        self.plain("headings", self.inner.headings(id)).await
    }

    async fn step_spec(&self, id: &JobId, step: u32) -> Result<Option<String>, StoreError> {
        self.plain("step_spec", self.inner.step_spec(id, step)).await
    }

    async fn secret(&self, id: &JobId, name: &str) -> Result<Option<Secret>, StoreError> {
        self.plain("secret", self.inner.secret(id, name)).await
    }

    async fn update(
        &self,
        id: &JobId,
        lease: Option<&Lease>,
        event: Event,
        now_ms: i64,
    ) -> Result<(Job, Change), UpdateError> {
        let work = self.inner.update(id, lease, event.clone(), now_ms);
        let (job, change) = self.time("update", work, |error| matches!(error, UpdateError::Store(_))).await?;
        if change == Change::Changed {
            self.metrics.note_event(&event, &job, now_ms);
        }
        Ok((job, change))
    }

    async fn list(&self, filter: JobFilter) -> Result<Vec<JobRecord>, StoreError> {
        self.plain("list", self.inner.list(filter)).await
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<(JobId, Lease)>, StoreError> {
        self.plain("claim", self.inner.claim(claim)).await
    }

    async fn release(&self, id: &JobId, lease: &Lease) -> Result<(), StoreError> {
        self.plain("release", self.inner.release(id, lease)).await
    }

    async fn held(
        &self,
        me: &ServerId,
        after: Option<&JobId>,
        limit: u32,
    ) -> Result<Vec<(JobId, Lease)>, StoreError> {
        self.plain("held", self.inner.held(me, after, limit)).await
    }

    async fn live(&self, ids: &[JobId]) -> Result<HashSet<JobId>, StoreError> {
        self.plain("live", self.inner.live(ids)).await
    }

    async fn lease_owners(&self, me: &ServerId) -> Result<Vec<ServerId>, StoreError> {
        self.plain("lease_owners", self.inner.lease_owners(me)).await
    }

    async fn lease_lasts(&self, server: &ServerId) -> Result<bool, StoreError> {
        self.plain("lease_lasts", self.inner.lease_lasts(server)).await
    }

    async fn heartbeat(&self, me: &ServerId, lease: Duration, tolerance: Duration) -> Result<(), StoreError> {
        self.plain("heartbeat", self.inner.heartbeat(me, lease, tolerance)).await
    }

    async fn fetched(&self, id: &JobId) -> Result<(), StoreError> {
        self.plain("fetched", self.inner.fetched(id)).await
    }

    async fn unfetched(&self, after: Option<&Unfetched>, limit: u32) -> Result<Vec<Unfetched>, StoreError> {
        self.plain("unfetched", self.inner.unfetched(after, limit)).await
    }

    async fn advance_plain_cursor(&self, id: &JobId, from: u64, to: u64) -> Result<(), StoreError> {
        self.plain("advance_plain_cursor", self.inner.advance_plain_cursor(id, from, to)).await
    }

    async fn ended_before(
        &self,
        ended_ms: i64,
        after: Option<&EndedJob>,
        limit: u32,
    ) -> Result<Vec<EndedJob>, StoreError> {
        self.plain("ended_before", self.inner.ended_before(ended_ms, after, limit)).await
    }

    async fn remove(&self, id: &JobId) -> Result<(), StoreError> {
        self.plain("remove", self.inner.remove(id)).await
    }

    async fn model_owner(&self, model: &str) -> Result<Option<String>, StoreError> {
        self.plain("model_owner", self.inner.model_owner(model)).await
    }

    async fn models_of(&self, principal: &str, limit: u32) -> Result<Vec<String>, StoreError> {
        self.plain("models_of", self.inner.models_of(principal, limit)).await
    }

    async fn own_model(&self, job: &JobId, model: &str) -> Result<Option<String>, StoreError> {
        self.plain("own_model", self.inner.own_model(job, model)).await
    }

    async fn disown_model(&self, model: &str) -> Result<(), StoreError> {
        self.plain("disown_model", self.inner.disown_model(model)).await
    }

    async fn changes(&self, since: Revision, limit: u32) -> Result<Changes, StoreError> {
        self.plain("changes", self.inner.changes(since, limit)).await
    }

    fn watch(&self, id: &JobId) -> watch::Receiver<KnownJob> {
        self.inner.watch(id)
    }

    async fn counts(&self) -> Result<Vec<(String, i64)>, StoreError> {
        self.plain("counts", self.inner.counts()).await
    }

    async fn live_jobs_of(&self, principal: &str) -> Result<u64, StoreError> {
        self.plain("live_jobs_of", self.inner.live_jobs_of(principal)).await
    }

    async fn program_bytes_of(&self, principal: &str) -> Result<u64, StoreError> {
        self.plain("program_bytes_of", self.inner.program_bytes_of(principal)).await
    }

    async fn jobs_of(&self, principal: &str) -> Result<Vec<JobId>, StoreError> {
        self.plain("jobs_of", self.inner.jobs_of(principal)).await
    }

    async fn can_record(&self) -> Result<(), String> {
        self.inner.can_record().await
    }
}

/// A log whose appends are timed and counted.
pub struct MeasuredLog {
    inner: Arc<dyn ResultLog>,
    metrics: Metrics,
}

impl MeasuredLog {
    /// Wraps this log.
    pub fn new(inner: Arc<dyn ResultLog>, metrics: Metrics) -> Self {
        Self { inner, metrics }
    }

    fn note_append(&self, begun: Instant, bytes: usize) {
        self.metrics.0.log_appends.observe(begun.elapsed().as_secs_f64());
        self.metrics.0.log_bytes.inc_by(bytes as u64);
    }
}

fn bytes_of(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| prost::Message::encoded_len(&entry.record)).sum()
}

#[async_trait]
impl ResultLog for MeasuredLog {
    async fn append(&self, job: &JobId, entries: Vec<Entry>) -> Result<Appended, LogError> {
        let (begun, bytes) = (Instant::now(), bytes_of(&entries));
        let appended = self.inner.append(job, entries).await?;
        self.note_append(begun, bytes);
        Ok(appended)
    }

    async fn append_and_apply(
        &self,
        job: &JobId,
        entries: &[Entry],
        event: Event,
        now_ms: i64,
    ) -> Result<Option<Both>, LogError> {
        let begun = Instant::now();
        let both = self.inner.append_and_apply(job, entries, event.clone(), now_ms).await?;
        if let Some(Both { job, change, .. }) = &both {
            self.note_append(begun, bytes_of(entries));
            if *change == Change::Changed {
                self.metrics.note_event(&event, job, now_ms);
            }
        }
        Ok(both)
    }

    async fn last_seq(&self, attempt: &AttemptId, rank: u32) -> Result<u64, LogError> {
        self.inner.last_seq(attempt, rank).await
    }

    async fn seal(
        &self,
        attempt: &AttemptId,
        missing: Option<Missing>,
    ) -> Result<BTreeMap<u32, u64>, LogError> {
        self.inner.seal(attempt, missing).await
    }

    async fn statement_ends(&self, attempt: &AttemptId) -> Result<StatementEnds, LogError> {
        self.inner.statement_ends(attempt).await
    }

    async fn evidence(&self, job: &JobId, step: u32) -> Result<Evidence, LogError> {
        self.inner.evidence(job, step).await
    }

    async fn read(&self, job: &JobId, after: u64, max_bytes: usize) -> Result<Page, LogError> {
        self.inner.read(job, after, max_bytes).await
    }

    async fn last_position(&self, job: &JobId) -> Result<u64, LogError> {
        self.inner.last_position(job).await
    }

    async fn tail(&self, job: &JobId, count: u64) -> Result<u64, LogError> {
        self.inner.tail(job, count).await
    }

    fn watch(&self, job: &JobId) -> watch::Receiver<u64> {
        self.inner.watch(job)
    }

    async fn delete(&self, job: &JobId) -> Result<(), LogError> {
        self.inner.delete(job).await
    }

    async fn ready(&self) -> Result<(), LogError> {
        self.inner.ready().await
    }

    async fn jobs(&self) -> Result<Vec<JobId>, LogError> {
        self.inner.jobs().await
    }

    async fn bytes(&self, jobs: &[JobId]) -> Result<u64, LogError> {
        self.inner.bytes(jobs).await
    }
}
