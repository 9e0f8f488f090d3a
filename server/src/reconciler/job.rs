//! Drives one job to its end. `launching`, `watching` and `ending` are how it brings its attempts, and then itself, to that;
//! `attempt_view` is what it has seen of the attempt that it reconciles; `absence` is what it says of an agent that no server hears;
//! `cleaning` is about what ended attempts left; `unknown` is what it says when the platform cannot be asked; `elsewhere` is
//! about an attempt that this server cannot ask after; `restored` is about a state that is older than the log; `stopping`
//! decides when a platform is asked to end an attempt; `waits` is when a wait is reported, and when it is over; `needs` is
//! what a launcher is told.

mod absence;
mod cleaning;
mod ending;
mod foreign;
mod launching;
mod local_changes;
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
use tracing::Instrument as _;

use super::Context;
use super::log_throttle::LogThrottle;
use super::released::ReleasedJobs;
use crate::trace;
use cleaning::Cleaned;
use local_changes::AttemptView;

/// How often something is looked at that nothing tells of.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// How often a job is read again that nothing tells of. The store tells of every change, so this is for its faults.
const SAFETY_PERIOD: Duration = Duration::from_secs(300);
/// Pause before the n-th new attempt of a step: n times this.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// A storage may be away for long: each pause between attempts to publish is so many times the one before.
const PUBLISH_PAUSE_GROWTH: u32 = 4;
/// Pause after the store or the log failed.
const FAULT_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct JobReconciler {
    context: Arc<Context>,
    released: Arc<ReleasedJobs>,
    id: JobId,
    lease: Lease,
    /// Tells of the job's changes. Those up to the last look are seen.
    changes: Changes,
    /// Since the last look this reconciler has changed the job, and its last update was one that did.
    has_changed_job: bool,
    /// What this reconciler has seen of the attempt that it reconciles.
    attempt_view: Option<AttemptView>,
    /// Its log lines have the trace's id.
    is_named: bool,
    /// What came of cleaning up behind ended attempts.
    cleaned: Cleaned,
    /// Clean-ups that failed and were logged.
    reported: LogThrottle<AttemptId>,
}

/// The job as it stands.
struct Looked {
    job: Arc<Job>,
    source: Source,
}

/// Where the reconciler has the job from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The store, which also said that the lease is the reconciler's.
    Loaded,
    /// What this process knows after an update of the reconciler, which checked the lease. What another process has written
    /// since, within the last second, may be missing.
    OwnUpdate,
}

/// Why reconciling stops before the job's end.
enum Stop {
    /// The job is over, gone, or given back.
    Over,
    /// Another server reconciles it.
    Fenced,
    /// Another server must reconcile it: this one can not, for the reason given.
    Unable(StoreError),
    /// Try again later.
    Fault(anyhow::Error),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Newer { .. } => Self::Unable(error),
            StoreError::Full
            | StoreError::Slow
            | StoreError::Busy { .. }
            | StoreError::Database(_)
            | StoreError::Damaged(..)
            | StoreError::Closing => Self::Fault(error.into()),
        }
    }
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Self {
        Self::Fault(error.into())
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
            attempt_view: None,
            is_named: false,
            cleaned: Cleaned::new(),
            reported: LogThrottle::default(),
        }
    }

    pub(super) async fn run(self) {
        let span = tracing::info_span!("job", job = %self.id, trace_id = tracing::field::Empty);
        self.reconcile().instrument(span).await;
    }

    async fn reconcile(mut self) {
        loop {
            let advanced = self.advance().await;
            if advanced.is_err() {
                // Time passes before the next look, so that one checks the lease again.
                self.has_changed_job = false;
            }
            match advanced {
                Ok(()) => {}
                Err(Stop::Over) => return,
                Err(Stop::Fenced) => {
                    tracing::info!("another server reconciles this job now");
                    return;
                }
                Err(Stop::Unable(error)) => {
                    tracing::warn!(%error, "the job is given back, for another server to reconcile it");
                    if self.context.store.release(&self.id, &self.lease).await.is_ok() {
                        return;
                    }
                    tokio::time::sleep(FAULT_PAUSE).await;
                }
                Err(Stop::Fault(error)) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "cannot reconcile the job now, will try again"
                    );
                    // Nor could an agent attach, perhaps: that is no time in which it was waited for.
                    if let Some(attempt_view) = &mut self.attempt_view {
                        attempt_view.pending.end();
                    }
                    tokio::time::sleep(FAULT_PAUSE).await;
                }
            }
        }
    }

    /// One look, one action.
    async fn advance(&mut self) -> Result<(), Stop> {
        let Looked { job, source } = self.look_at_job().await?;
        let mut changes = self.changes.clone();
        if !self.is_named {
            self.is_named = true;
            trace::name_log_lines(&job, self.context.tracer.is_on());
        }
        let evidence = self.evidence(&job).await?;
        let next = job.next(evidence);
        if let Next::Launch(attempt) | Next::Watch(attempt) | Next::End(attempt) = &next
            && let Some(pending) = self.context.launchers.foreign(&job, attempt)
        {
            return self.leave(attempt, &pending, &mut changes).await;
        }
        // Why a job that was not loaded will do: `Job::apply` and the lease judge what is recorded. Launching twice is
        // harmless, and an agent of a cancelled job may not attach. Once a job is cancelled, whether its attempt has an agent
        // and a grant changes no more, so `end` hurries no commit. An attempt or a job that has ended stays so, and its
        // clean-up is due.
        match next {
            Next::Create { step, after } => self.create(&job, step, after).await,
            Next::CleanUp { step, tried } => self.clean_up_database(step, tried).await,
            Next::Launch(attempt) => {
                self.clean_up_before(&job, &attempt).await;
                self.launch(&job, attempt, changes).await
            }
            Next::Watch(attempt) => self.watch(&job, &attempt, &mut changes).await,
            Next::End(attempt) => {
                self.end(&job, &attempt).await?;
                tokio::select! {
                    _ = changes.changed() => {}
                    () = self.platform_changed(&job, &attempt) => {}
                    () = tokio::time::sleep(LOOK_PERIOD) => {}
                }
                Ok(())
            }
            // Nothing rejects END, which closes the log for good: another server may reconcile the job by now.
            Next::Finish(_) if source == Source::OwnUpdate => Ok(()),
            Next::Finish(state) => self.finish(&job, state).await,
            Next::Nothing => {
                self.clean_up(&job).await;
                Err(Stop::Over)
            }
        }
    }

    /// The job as it stands. It is not loaded right after this reconciler has changed it. A change by somebody else says nothing
    /// about the lease, and after an update that did not change the job the reconciler's copy was old.
    async fn look_at_job(&mut self) -> Result<Looked, Stop> {
        let known = known_job::seen(&mut self.changes);
        if std::mem::take(&mut self.has_changed_job)
            && let Some(job) = known
        {
            return Ok(Looked { job, source: Source::OwnUpdate });
        }
        Ok(Looked { job: Arc::new(self.load().await?), source: Source::Loaded })
    }

    /// The job as the store has it, while this reconciler holds its lease.
    async fn load(&self) -> Result<Job, Stop> {
        let JobRecord { job, lease_epoch, .. } =
            self.context.store.load(&self.id).await?.ok_or(Stop::Over)?;
        if lease_epoch == self.lease.epoch { Ok(job) } else { Err(Stop::Fenced) }
    }

    /// What was seen of this attempt; nothing of it is another attempt's.
    fn attempt_view(&mut self, attempt: &AttemptId) -> &mut AttemptView {
        let known = self.attempt_view.take().filter(|it| it.attempt == *attempt);
        self.attempt_view.insert(known.unwrap_or_else(|| AttemptView::new(attempt.clone())))
    }

    /// Asks the log only when the answer matters.
    async fn evidence(&self, job: &Job) -> Result<Evidence, Stop> {
        let Some(step) = job.current_step() else { return Ok(Evidence::default()) };
        let matters = match job.steps[step as usize].attempts.last() {
            Some(attempt) => attempt.outcome().is_some(),
            None => job.cancel.is_some(),
        };
        if matters { Ok(self.context.log.evidence(&self.id, step).await?) } else { Ok(Evidence::default()) }
    }

    async fn create(&mut self, job: &Job, step: u32, after: Option<Again>) -> Result<(), Stop> {
        let launcher_id = self.context.launchers.first().id();
        let created = Event::AttemptCreated { step, role: Role::Run, launcher_id };
        let Some(Again { why, publishes }) = after else { return self.update(created).await };
        let tried = u32::try_from(job.steps[step as usize].attempts.len()).unwrap_or(u32::MAX);
        let (pause, what) = match publishes {
            Some(made) => {
                let pause = RETRY_PAUSE.saturating_mul(PUBLISH_PAUSE_GROWTH.saturating_pow(tried - made));
                (pause, format!("what attempt {made} made will be published by attempt {}", tried + 1))
            }
            None => (
                RETRY_PAUSE.saturating_mul(tried),
                // People count steps from 1; ids, paths and messages of programs from 0.
                format!("step {} is run again (attempt {})", step + 1, tried + 1),
            ),
        };
        self.say(notice::Kind::Warning, format!("{why}; {what}")).await?;
        if self.pause(pause).await? { self.update(created).await } else { Ok(()) }
    }

    /// Before a job fails: removes scratch tables that killed attempts of the step left in the user's database.
    async fn clean_up_database(&mut self, step: u32, tried: u32) -> Result<(), Stop> {
        tokio::time::sleep(RETRY_PAUSE.saturating_mul(tried)).await;
        let launcher_id = self.context.launchers.first().id();
        self.update(Event::AttemptCreated { step, role: Role::CleanUp, launcher_id }).await
    }

    /// PendingTracker before another attempt. False: the job was cancelled meanwhile.
    async fn pause(&self, pause: Duration) -> Result<bool, Stop> {
        let end = tokio::time::sleep(pause);
        tokio::pin!(end);
        // The look before found no cancel.
        let mut changes = self.changes.clone();
        loop {
            tokio::select! {
                _ = changes.changed() => if self.load().await?.cancel.is_some() { return Ok(false) },
                () = &mut end => return Ok(true),
            }
        }
    }

    /// Says why there is no agent yet, when that is news. True: it has been waited for long enough.
    async fn note_pending(&mut self, attempt: &AttemptId, pending: &PendingStatus) -> Result<bool, Stop> {
        let turn = self.attempt_view(attempt).pending.note(pending, Instant::now());
        if turn.is_news {
            self.say(notice::Kind::Status, pending.message.clone()).await?;
            self.attempt_view(attempt).pending.told(&pending.message);
        }
        Ok(turn.is_over)
    }

    async fn say(&self, kind: notice::Kind, text: String) -> Result<(), Stop> {
        let notice = Notice { kind: kind.into(), text };
        let record = Record {
            time_unix_micros: clock::now_micros(),
            payload: Some(Payload::Notice(notice)),
            ..Record::default()
        };
        self.context.log.append(&self.id, vec![Entry { producer: Producer::server(0), record }]).await?;
        Ok(())
    }

    async fn update(&mut self, event: Event) -> Result<(), Stop> {
        self.try_update(event).await.map(drop)
    }

    /// False: the event was rejected, for the job moved on meanwhile. The next look sees where it is.
    async fn try_update(&mut self, event: Event) -> Result<bool, Stop> {
        let updated = self.context.store.update(&self.id, Some(&self.lease), event, clock::now_ms()).await;
        self.has_changed_job = matches!(updated, Ok((_, Change::Changed)));
        match updated {
            Ok(_) => Ok(true),
            Err(UpdateError::Rejected(_)) => Ok(false),
            Err(UpdateError::NotFound) => Err(Stop::Over),
            Err(UpdateError::Fenced) => Err(Stop::Fenced),
            Err(UpdateError::Store(error)) => Err(error.into()),
        }
    }
}

/// Tells that the job's state changed.
type Changes = tokio::sync::watch::Receiver<KnownJob>;

fn attempts_of(job: &Job) -> Vec<AttemptId> {
    let id = |step, number| AttemptId { job: job.id.clone(), step, number };
    let steps = (0_u32..).zip(&job.steps);
    steps
        .flat_map(|(step, it)| (1_u32..).zip(&it.attempts).map(move |(number, _)| id(step, number)))
        .collect()
}
