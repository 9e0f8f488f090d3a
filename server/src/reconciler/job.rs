//! Reconciler of one job, until the job's end.
//!
//! - `launching`, `watching`, `ending`: launch an attempt, watch it, record its end and then the job's.
//! - `observations`: what was observed of the current attempt, in memory only.
//! - `pending`: pending reasons, when they are reported and when they time out.
//! - `requirements`: what an attempt needs of its launcher.
//! - `absence`: notices about an agent that no server hears.
//! - `unknown`: notices about an attempt whose platform cannot be asked.
//! - `foreign`: attempts of a launcher that this server does not have.
//! - `restored`: a state that is older than the log.
//! - `stopping`: when the platform is asked to end an attempt.
//! - `cleanup`: cleanup of ended attempts.

mod absence;
mod cleanup;
mod ending;
mod foreign;
mod launching;
mod observations;
mod pending;
mod requirements;
mod restored;
mod stopping;
#[cfg(test)]
mod tests;
mod unknown;
mod watching;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlflow_job::{Again, AttemptId, Change, Event, Evidence, Job, JobId, Next, Role};
use sqlflow_job_store::known_job::{self, KnownJob};
use sqlflow_job_store::{JobRecord, Lease, StoreError, UpdateError};
use sqlflow_launcher::PendingStatus;
use sqlflow_os::clock;
use sqlflow_proto::record::{Notice, Record, notice, record::Payload};
use sqlflow_result_log::{Entry, LogError, Producer};
use tracing::{Instrument as _, Span};

use super::Context;
use super::log_throttle::LogThrottle;
use super::released::ReleasedJobs;
use crate::metrics::live;
use crate::trace;
use cleanup::Cleaned;
use observations::AttemptObservations;
use pending::Timeout;

/// Period of polling, where no change is signalled.
const POLL_PERIOD: Duration = Duration::from_secs(1);
/// Period of reloading a job without a signal. The store signals every change, so this only covers its faults.
const RELOAD_PERIOD: Duration = Duration::from_secs(300);
/// Pause before the n-th new attempt of a step: n times this.
const RETRY_BACKOFF: Duration = Duration::from_secs(1);
/// Factor between two pauses before publishing again: a storage may be unavailable for long.
const PUBLISH_BACKOFF_FACTOR: u32 = 4;
/// Pause after the store or the log failed.
const FAULT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Reconciler of one job.
pub(super) struct JobReconciler {
    context: Arc<Context>,
    released: Arc<ReleasedJobs>,
    id: JobId,
    lease: Lease,
    /// Signals changes of the job. Those up to the last read are marked as seen.
    changes: Changes,
    /// Whether this reconciler changed the job since the last read, with its last update.
    has_changed_job: bool,
    /// Observations of the current attempt.
    observations: Option<AttemptObservations>,
    /// Span of log lines about the job, until it has the trace's id.
    unnamed_log_span: Option<Span>,
    /// State of the cleanup of each ended attempt.
    cleaned: Cleaned,
    /// Cleanups that failed and were logged.
    logged_failures: LogThrottle<AttemptId>,
}

/// The job as it was read.
struct JobSnapshot {
    job: Arc<Job>,
    source: Source,
}

/// Where the reconciler has the job from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The store, which also confirmed that this reconciler holds the lease.
    Loaded,
    /// This process's copy after an update by this reconciler, which checked the lease. Writes of other processes
    /// within the last second may be missing.
    OwnUpdate,
}

/// Result of a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    Elapsed,
    /// The job was cancelled meanwhile.
    Cancelled,
}

/// Result of recording an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Update {
    Accepted,
    /// The job changed meanwhile, and the event does not apply any more.
    Rejected,
}

/// Why a reconciler stops, or must wait, before the job's end.
enum ReconcileError {
    /// The job is over, was removed, or was released.
    JobOver,
    /// Another server reconciles it.
    Fenced,
    /// Another server must reconcile it: this one cannot, for the given reason.
    NeedsOtherServer(StoreError),
    /// A temporary error. The reconciler tries again.
    Retry(anyhow::Error),
}

impl From<StoreError> for ReconcileError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Newer { .. } | StoreError::OtherKey { .. } => Self::NeedsOtherServer(error),
            StoreError::Full
            | StoreError::Slow
            | StoreError::Busy { .. }
            | StoreError::Database(_)
            | StoreError::Damaged(..)
            | StoreError::DamagedSecret(_)
            | StoreError::Closing => Self::Retry(error.into()),
        }
    }
}

impl From<LogError> for ReconcileError {
    fn from(error: LogError) -> Self {
        Self::Retry(error.into())
    }
}

impl JobReconciler {
    pub(super) fn new(context: Arc<Context>, released: Arc<ReleasedJobs>, id: JobId, lease: Lease) -> Self {
        Self {
            changes: context.store.watch(&id),
            has_changed_job: false,
            context,
            released,
            id,
            lease,
            observations: None,
            unnamed_log_span: None,
            cleaned: Cleaned::new(),
            logged_failures: LogThrottle::default(),
        }
    }

    pub(super) async fn run(mut self) {
        let span = tracing::info_span!(
            "job",
            job = %self.id,
            trace_id = tracing::field::Empty,
            span_id = tracing::field::Empty,
            trace_flags = tracing::field::Empty
        );
        self.unnamed_log_span = Some(span.clone());
        self.reconcile().instrument(span).await;
    }

    async fn reconcile(mut self) {
        loop {
            let pass = live::pass(&self.id);
            let advanced = self.advance().instrument(pass).await;
            if advanced.is_err() {
                // The lease may be lost by the next read, so that one checks it again.
                self.has_changed_job = false;
            }
            match advanced {
                Ok(()) => {}
                Err(ReconcileError::JobOver) => return,
                Err(ReconcileError::Fenced) => {
                    tracing::info!("another server reconciles this job");
                    return;
                }
                Err(ReconcileError::NeedsOtherServer(error)) => {
                    tracing::warn!(%error, "cannot reconcile the job on this server; it is released for another server");
                    if self.context.store.release(&self.id, &self.lease).await.is_ok() {
                        return;
                    }
                    tokio::time::sleep(FAULT_RETRY_DELAY).await;
                }
                Err(ReconcileError::Retry(error)) => {
                    tracing::warn!(error = format!("{error:#}"), "cannot reconcile the job; will try again");
                    // Agents may have been unable to attach too, so this time does not count towards a pending
                    // timeout.
                    if let Some(observations) = &mut self.observations {
                        observations.pending.end();
                    }
                    tokio::time::sleep(FAULT_RETRY_DELAY).await;
                }
            }
        }
    }

    /// Reads the job and takes one action.
    async fn advance(&mut self) -> Result<(), ReconcileError> {
        let JobSnapshot { job, source } = self.read_job().await?;
        if self.context.tracer.is_on() {
            trace::link_current(&job);
        }
        let mut changes = self.changes.clone();
        if let Some(log_span) = self.unnamed_log_span.take() {
            trace::name_log_lines(&log_span, &job, self.context.tracer.is_on());
        }
        let evidence = self.evidence(&job).await?;
        let next = job.next(evidence);
        if let Next::Launch(attempt) | Next::Watch(attempt) | Next::End(attempt) = &next
            && let Some(pending) = self.context.launchers.foreign(&job, attempt)
        {
            return self.release_foreign(attempt, &pending, &mut changes).await;
        }
        // A job that was not loaded may be stale. That is safe: `Job::apply` and the lease check what is recorded; a
        // launch is idempotent; an agent of a cancelled job cannot attach. After a cancel, the attempt's agent and
        // grant do not change any more, so `end` interrupts no commit. An ended attempt or job stays ended, so its
        // cleanup is due.
        match next {
            Next::Create { step, after } => self.create(&job, step, after).await,
            Next::Cleanup { step, tried } => self.cleanup_database(step, tried).await,
            Next::Launch(attempt) => {
                self.cleanup_before(&job, &attempt).await;
                self.launch(&job, attempt, changes).await
            }
            Next::Watch(attempt) => self.watch(&job, &attempt, &mut changes).await,
            Next::End(attempt) => {
                self.end(&job, &attempt).await?;
                tokio::select! {
                    _ = changes.changed() => {}
                    () = self.platform_changed(&job, &attempt) => {}
                    () = tokio::time::sleep(POLL_PERIOD) => {}
                }
                Ok(())
            }
            // The END record closes the log for good, and nothing would reject it. Another server may reconcile the
            // job by now.
            Next::Finish(_) if source == Source::OwnUpdate => Ok(()),
            Next::Finish(state) => self.finish(&job, state).await,
            Next::Nothing => {
                self.cleanup(&job).await;
                Err(ReconcileError::JobOver)
            }
        }
    }

    /// Reads the job. It is not loaded right after this reconciler changed it. A change by another writer does not
    /// confirm the lease, and an update that changed nothing means that the reconciler's copy was stale.
    async fn read_job(&mut self) -> Result<JobSnapshot, ReconcileError> {
        let known = known_job::seen(&mut self.changes);
        if std::mem::take(&mut self.has_changed_job)
            && let Some(job) = known
        {
            return Ok(JobSnapshot { job, source: Source::OwnUpdate });
        }
        Ok(JobSnapshot { job: Arc::new(self.load().await?), source: Source::Loaded })
    }

    /// Loads the job from the store, and checks that this reconciler holds its lease.
    async fn load(&self) -> Result<Job, ReconcileError> {
        let JobRecord { job, lease_epoch, .. } =
            self.context.store.load(&self.id).await?.ok_or(ReconcileError::JobOver)?;
        if lease_epoch == self.lease.epoch { Ok(job) } else { Err(ReconcileError::Fenced) }
    }

    /// Observations of this attempt. Those of an earlier attempt are discarded.
    fn observations(&mut self, attempt: &AttemptId) -> &mut AttemptObservations {
        let known = self.observations.take().filter(|it| it.attempt == *attempt);
        self.observations.insert(known.unwrap_or_else(|| AttemptObservations::new(attempt.clone())))
    }

    /// Reads the evidence from the log, only if the decision depends on it.
    async fn evidence(&self, job: &Job) -> Result<Evidence, ReconcileError> {
        let Some(step) = job.current_step() else { return Ok(Evidence::default()) };
        let matters = match job.steps[step as usize].attempts.last() {
            Some(attempt) => attempt.outcome().is_some(),
            None => job.cancel.is_some(),
        };
        if matters { Ok(self.context.log.evidence(&self.id, step).await?) } else { Ok(Evidence::default()) }
    }

    async fn create(&mut self, job: &Job, step: u32, after: Option<Again>) -> Result<(), ReconcileError> {
        let launcher_id = self.context.launchers.first().id();
        let created = Event::AttemptCreated { step, role: Role::Run, launcher_id };
        let Some(Again { why, publishes }) = after else { return self.update(created).await };
        let tried = u32::try_from(job.steps[step as usize].attempts.len()).unwrap_or(u32::MAX);
        let (pause, what) = match publishes {
            Some(made) => {
                let pause = RETRY_BACKOFF.saturating_mul(PUBLISH_BACKOFF_FACTOR.saturating_pow(tried - made));
                (pause, format!("what attempt {made} made will be published by attempt {}", tried + 1))
            }
            None => (
                RETRY_BACKOFF.saturating_mul(tried),
                // Users count steps from 1. Ids, paths and messages of programs count from 0.
                format!("step {} is run again (attempt {})", step + 1, tried + 1),
            ),
        };
        self.append_notice(notice::Kind::Warning, format!("{why}; {what}")).await?;
        match self.pause(pause).await? {
            Pause::Elapsed => self.update(created).await,
            Pause::Cancelled => Ok(()),
        }
    }

    /// Before a job fails: drops staging tables that killed attempts of the step left in the user's database.
    async fn cleanup_database(&mut self, step: u32, tried: u32) -> Result<(), ReconcileError> {
        tokio::time::sleep(RETRY_BACKOFF.saturating_mul(tried)).await;
        let launcher_id = self.context.launchers.first().id();
        self.update(Event::AttemptCreated { step, role: Role::Cleanup, launcher_id }).await
    }

    /// Waits before the next attempt of a step.
    async fn pause(&self, pause: Duration) -> Result<Pause, ReconcileError> {
        let end = tokio::time::sleep(pause);
        tokio::pin!(end);
        // The read before found no cancel.
        let mut changes = self.changes.clone();
        loop {
            tokio::select! {
                _ = changes.changed() => if self.load().await?.cancel.is_some() { return Ok(Pause::Cancelled) },
                () = &mut end => return Ok(Pause::Elapsed),
            }
        }
    }

    /// Reports the pending reason in the job's log, if it is new and lasts.
    async fn note_pending(
        &mut self,
        attempt: &AttemptId,
        pending: &PendingStatus,
    ) -> Result<Timeout, ReconcileError> {
        let update = self.observations(attempt).pending.note(pending, Instant::now());
        if update.should_report {
            self.append_notice(notice::Kind::Status, pending.message.clone()).await?;
            self.observations(attempt).pending.mark_reported(&pending.message);
        }
        Ok(update.timeout)
    }

    async fn append_notice(&self, kind: notice::Kind, text: String) -> Result<(), ReconcileError> {
        let notice = Notice { kind: kind.into(), text };
        let record = Record {
            time_unix_micros: clock::now_micros(),
            payload: Some(Payload::Notice(notice)),
            ..Record::default()
        };
        self.context.log.append(&self.id, vec![Entry { producer: Producer::server(0), record }]).await?;
        Ok(())
    }

    async fn update(&mut self, event: Event) -> Result<(), ReconcileError> {
        self.try_update(event).await.map(drop)
    }

    /// Records the event. A rejected event means that the job changed meanwhile; the next read shows its state.
    async fn try_update(&mut self, event: Event) -> Result<Update, ReconcileError> {
        let updated = self.context.store.update(&self.id, Some(&self.lease), event, clock::now_ms()).await;
        self.has_changed_job = matches!(updated, Ok((_, Change::Changed)));
        match updated {
            Ok(_) => Ok(Update::Accepted),
            Err(UpdateError::Rejected(_)) => Ok(Update::Rejected),
            Err(UpdateError::NotFound) => Err(ReconcileError::JobOver),
            Err(UpdateError::Fenced) => Err(ReconcileError::Fenced),
            Err(UpdateError::Store(error)) => Err(error.into()),
        }
    }
}

/// Signals that the job's state changed.
type Changes = tokio::sync::watch::Receiver<KnownJob>;

fn attempts_of(job: &Job) -> Vec<AttemptId> {
    let id = |step, number| AttemptId { job: job.id.clone(), step, number };
    let steps = (0_u32..).zip(&job.steps);
    steps
        .flat_map(|(step, it)| (1_u32..).zip(&it.attempts).map(move |(number, _)| id(step, number)))
        .collect()
}
