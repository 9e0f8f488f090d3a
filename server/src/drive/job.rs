//! Drives one job to its end. `ending` is how it brings its attempts, and then itself, to that; `at_hand` is what it has
//! seen of the attempt that it drives; `absence` is what it says of an agent that no server hears; `unknown` is what it
//! says when the platform cannot be asked; `elsewhere` is about an attempt that this server cannot ask after; `restored`
//! is about a state that is older than the log; `stopping` decides when a platform is asked to end an attempt; `waits` is
//! when a wait is reported, and when it is over; `needs` is what a launcher is told.

mod absence;
mod at_hand;
mod elsewhere;
mod ending;
mod needs;
mod restored;
mod stopping;
#[cfg(test)]
mod tests;
mod unknown;
mod waits;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlflow_proto::record::{Notice, Record, notice, record::Payload};
use tracing::Instrument as _;

use super::Context;
use super::given_back::GivenBack;
use crate::clock;
use crate::failpoint;
use crate::job::{
    Again, AttemptId, Basis, Event, Evidence, Job, JobId, Milestones, Next, Outcome, Reason, Role,
};
use crate::launch::{Execution, LaunchError, Launched, Needs, Observation, Supervision, Ticket, Waiting};
use crate::log::{Entry, LogError, Producer};
use crate::silence::Silence;
use crate::store::{JobRecord, Lease, StoreError, UpdateError};
use crate::trace;
use at_hand::AtHand;
use stopping::{Agent, Level};
use waits::Queued;

/// How often something is looked at that nothing tells of.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// How often a job is read again that nothing tells of. The store tells of every change, so this is for its faults.
const SAFETY_PERIOD: Duration = Duration::from_secs(300);
/// How often a job that waits in a queue of this server is read again: nothing tells of a lost lease. 1,000 such jobs cost
/// 100 reads a second.
const QUEUE_PERIOD: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// Pause before the n-th new attempt of a step: n times this.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// A storage may be away for long: each pause between attempts to publish is so many times the one before.
const PUBLISH_PAUSE_GROWTH: u32 = 4;
/// Pause after the store or the log failed.
const FAULT_PAUSE: Duration = Duration::from_secs(1);
/// Timeout for an attempt that removes what others left in the user's database.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(60);
/// The kind of wait for a free place of the launcher.
const PLACE: &str = "place";
/// The kind of wait for a platform that does not take an attempt.
const LAUNCH: &str = "launch";
/// How long a platform that cannot be asked, or has no room, is asked again to start an attempt, or who its agent is.
const LAUNCH_PATIENCE: Duration = Duration::from_secs(600);

pub(super) struct JobDriver {
    context: Arc<Context>,
    given_back: Arc<GivenBack>,
    id: JobId,
    lease: Lease,
    /// What this driver has seen of the attempt that it drives.
    at_hand: Option<AtHand>,
    /// Its log lines have the trace's id.
    is_named: bool,
    /// Attempts of which nothing is left.
    cleaned: HashSet<AttemptId>,
}

/// Why driving stops before the job's end.
enum Stop {
    /// The job is over, gone, or given back.
    Over,
    /// Another server drives it.
    Fenced,
    /// Another server must drive it: this one can not, for the reason given.
    Unable(StoreError),
    /// Try again later.
    Fault(anyhow::Error),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Newer { .. } => Self::Unable(error),
            StoreError::Full
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

impl JobDriver {
    pub(super) fn new(context: Arc<Context>, given_back: Arc<GivenBack>, id: JobId, lease: Lease) -> Self {
        Self { context, given_back, id, lease, at_hand: None, is_named: false, cleaned: HashSet::new() }
    }

    pub(super) async fn run(self) {
        let span = tracing::info_span!("job", job = %self.id, trace_id = tracing::field::Empty);
        self.drive().instrument(span).await;
    }

    async fn drive(mut self) {
        loop {
            match self.advance().await {
                Ok(()) => {}
                Err(Stop::Over) => return,
                Err(Stop::Fenced) => {
                    tracing::info!("another server drives this job now");
                    return;
                }
                Err(Stop::Unable(error)) => {
                    tracing::warn!(%error, "the job is given back, for another server to drive it");
                    if self.context.store.release(&self.id, &self.lease).await.is_ok() {
                        return;
                    }
                    tokio::time::sleep(FAULT_PAUSE).await;
                }
                Err(Stop::Fault(error)) => {
                    tracing::warn!(error = format!("{error:#}"), "cannot drive the job now, will try again");
                    tokio::time::sleep(FAULT_PAUSE).await;
                }
            }
        }
    }

    /// One look, one action.
    async fn advance(&mut self) -> Result<(), Stop> {
        let mut changes = self.context.store.watch(&self.id);
        let job = self.load().await?;
        if !self.is_named {
            self.is_named = true;
            trace::name_log_lines(&job, self.context.tracer.is_on());
        }
        let evidence = self.evidence(&job).await?;
        let next = job.next(evidence);
        if let Next::Launch(attempt) | Next::Watch(attempt) | Next::End(attempt) = &next
            && let Some(waiting) = self.context.launchers.elsewhere(&job, attempt)
        {
            return self.leave(attempt, &waiting, &mut changes).await;
        }
        match next {
            Next::Create { step, after } => self.create(&job, step, after).await,
            Next::CleanUp { step, tried } => self.clean_up_database(step, tried).await,
            Next::Launch(attempt) => self.launch(&job, attempt, changes).await,
            Next::Watch(attempt) => {
                self.clean_up_ended(&job).await;
                self.watch(&job, &attempt, &mut changes).await
            }
            Next::End(attempt) => {
                self.end(&job, &attempt).await?;
                tokio::select! {
                    _ = changes.changed() => {}
                    () = self.platform_changed(&job, &attempt) => {}
                    () = tokio::time::sleep(LOOK_PERIOD) => {}
                }
                Ok(())
            }
            Next::Finish(state) => self.finish(&job, state).await,
            Next::Nothing => {
                self.clean_up(&job).await;
                Err(Stop::Over)
            }
        }
    }

    /// The job as it stands, while this driver holds its lease.
    async fn load(&self) -> Result<Job, Stop> {
        let JobRecord { job, lease_epoch, .. } =
            self.context.store.load(&self.id).await?.ok_or(Stop::Over)?;
        if lease_epoch == self.lease.epoch { Ok(job) } else { Err(Stop::Fenced) }
    }

    /// Looks at the attempt from time to time, and when its platform tells of a change, until the job is to be read again.
    async fn watch(&mut self, job: &Job, attempt: &AttemptId, changes: &mut Changes) -> Result<(), Stop> {
        let execution = self.context.launchers.of(job, attempt);
        let is_attached = Agent::of(job, attempt) != Agent::NeverAttached;
        let has_limit = job.attempt(attempt).is_some_and(|it| it.role == Role::CleanUp);
        if is_attached {
            // It may have come back to this server: the next look may be far.
            self.note_absence(job, attempt).await?;
        }
        let read_again = tokio::time::sleep(SAFETY_PERIOD);
        tokio::pin!(read_again);
        loop {
            let is_told_of = is_attached && self.at_hand(attempt).is_seen && !has_limit;
            let period = if is_told_of { self.look_period(job, attempt, &execution) } else { LOOK_PERIOD };
            let has_changed = tokio::select! {
                _ = changes.changed() => return Ok(()),
                () = &mut read_again => return Ok(()),
                () = self.platform_changed(job, attempt) => true,
                () = tokio::time::sleep(period) => false,
            };
            if is_overdue_clean_up(job, attempt) {
                return self.end(job, attempt).await;
            }
            match self.look(job, attempt.clone(), has_changed).await? {
                Look::Same => {}
                Look::Decided => return Ok(()),
            }
        }
    }

    /// How often to look at an attempt whose end its platform tells: for what else there is to see.
    fn look_period(&self, job: &Job, attempt: &AttemptId, execution: &Execution) -> Duration {
        if self.is_heard_here(job, attempt) {
            execution.look_period()
        } else {
            // The server that hears its agent may end.
            execution.look_period().min(Silence::period_of(self.context.limits.silence))
        }
    }

    /// Waits until the platform has changed something about the attempt, and it is time to look.
    async fn platform_changed(&mut self, job: &Job, attempt: &AttemptId) {
        self.context.launchers.of(job, attempt).changed().await;
        let changes = &mut self.at_hand(attempt).changes;
        let look = changes.look_at(Instant::now());
        tokio::time::sleep_until(look.into()).await;
        changes.looked(look);
    }

    /// What was seen of this attempt; nothing of it is another attempt's.
    fn at_hand(&mut self, attempt: &AttemptId) -> &mut AtHand {
        let known = self.at_hand.take().filter(|it| it.attempt == *attempt);
        self.at_hand.insert(known.unwrap_or_else(|| AtHand::new(attempt.clone())))
    }

    /// Asks the log only when the answer matters: after an attempt that did not succeed.
    async fn evidence(&self, job: &Job) -> Result<Evidence, Stop> {
        let Some(step) = job.current_step() else { return Ok(Evidence::default()) };
        match job.steps[step as usize].attempts.last() {
            Some(attempt) if attempt.outcome().is_some() => {
                Ok(self.context.log.evidence(&self.id, step).await?)
            }
            _ => Ok(Evidence::default()),
        }
    }

    async fn create(&mut self, job: &Job, step: u32, after: Option<Again>) -> Result<(), Stop> {
        let place = self.context.launchers.first().place();
        let created = Event::AttemptCreated { step, role: Role::Run, place };
        let Some(Again { why, publishes }) = after else { return self.update(created).await };
        let tried = u32::try_from(job.steps[step as usize].attempts.len()).unwrap_or(u32::MAX);
        let (pause, what) = match publishes {
            Some(made) => {
                let pause = RETRY_PAUSE.saturating_mul(PUBLISH_PAUSE_GROWTH.saturating_pow(tried - made));
                (pause, format!("what attempt {made} made will be published by attempt {}", tried + 1))
            }
            None => (
                RETRY_PAUSE.saturating_mul(tried),
                format!("step {step} is run again (attempt {})", tried + 1),
            ),
        };
        self.say(notice::Kind::Warning, format!("{why}; {what}")).await?;
        if self.pause(pause).await? { self.update(created).await } else { Ok(()) }
    }

    /// Before a job fails: removes scratch tables that killed attempts of the step left in the user's database.
    async fn clean_up_database(&mut self, step: u32, tried: u32) -> Result<(), Stop> {
        tokio::time::sleep(RETRY_PAUSE.saturating_mul(tried)).await;
        let place = self.context.launchers.first().place();
        self.update(Event::AttemptCreated { step, role: Role::CleanUp, place }).await
    }

    /// Waits before another attempt. False: the job was cancelled meanwhile.
    async fn pause(&self, pause: Duration) -> Result<bool, Stop> {
        let end = tokio::time::sleep(pause);
        tokio::pin!(end);
        let mut changes = self.context.store.watch(&self.id);
        loop {
            let job = self.load().await?;
            if job.cancel.is_some() {
                return Ok(false);
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = &mut end => return Ok(true),
            }
        }
    }

    async fn launch(&mut self, job: &Job, attempt: AttemptId, mut changes: Changes) -> Result<(), Stop> {
        let at_hand = self.at_hand(&attempt);
        at_hand.missing.end();
        at_hand.waits.begin(LAUNCH, Instant::now());
        let execution = self.context.launchers.of(job, &attempt);
        if self.has_records(&attempt).await? {
            return self.take_up(&execution).await;
        }
        let launched = match self.needs(&execution).await? {
            Ok(needs) => self.launch_in_turn(&execution, &needs, &mut changes).await?,
            Err(error) => Some(Err(error)),
        };
        // It waits for a place no more: it is read again.
        let Some(launched) = launched else { return Ok(()) };
        match launched {
            Ok(Launched { tracker_url }) => {
                failpoint::reach("after-launch");
                self.update(Event::AttemptLaunched { attempt, tracker_url }).await
            }
            Err(LaunchError::Refused { message, retryable }) => {
                let outcome = Outcome::by_server(Reason::LaunchFailed, message, retryable);
                let basis = Basis::NeverAttached;
                self.update(Event::AttemptFoundEnded { attempt, outcome, basis }).await
            }
            Err(LaunchError::NoPlace { .. }) => Ok(()),
            Err(LaunchError::Later(why)) => {
                let waiting = Waiting { kind: LAUNCH, why, patience: LAUNCH_PATIENCE };
                if self.waits(&attempt, &waiting).await? {
                    // It may have been started all the same, and only the answer was lost.
                    return self.give_up(job, attempt, waiting.why).await;
                }
                tokio::time::sleep(LOOK_PERIOD).await;
                Ok(())
            }
        }
    }

    /// Launches the attempt as soon as there is a free place; `None`: its job has changed meanwhile.
    async fn launch_in_turn(
        &mut self,
        execution: &Execution,
        needs: &Needs,
        changes: &mut Changes,
    ) -> Result<Option<Result<Launched, LaunchError>>, Stop> {
        let attempt = execution.attempt();
        let mut ticket = execution.queue();
        let mut queued = Queued::default();
        let mut reload = clock::every(QUEUE_PERIOD);
        loop {
            let before = match execution.launch(needs).await {
                Err(LaunchError::NoPlace { before }) => before,
                launched => return Ok(Some(launched)),
            };
            let is_told = self.waits_for_place(attempt, &mut queued, before).await?;
            tokio::select! {
                // It may have been cancelled.
                _ = changes.changed() => return Ok(None),
                // One without a lease must not keep others from their turn.
                _ = reload.tick() => drop(self.load().await?),
                () = turn(ticket.as_mut()) => {}
                () = tokio::time::sleep(LOOK_PERIOD), if !is_told => {}
            }
        }
    }

    /// Says that the attempt waits for a free place, when that is news; whether it has been said.
    async fn waits_for_place(
        &mut self,
        attempt: &AttemptId,
        queued: &mut Queued,
        before: usize,
    ) -> Result<bool, Stop> {
        let why = format!("waiting for a free place, {} before it", queued.note(before));
        let waiting = Waiting { kind: PLACE, why, patience: Duration::MAX };
        self.waits(attempt, &waiting).await?;
        Ok(self.at_hand(attempt).waits.is_told())
    }

    /// Looks whether the attempt still runs. `job` was read before that: if its agent was attached then and nothing runs
    /// now, the agent is gone. `has_changed`: the platform said so.
    async fn look(&mut self, job: &Job, attempt: AttemptId, has_changed: bool) -> Result<Look, Stop> {
        let execution = self.context.launchers.of(job, &attempt);
        // Where no agent comes, the platform's word counts as an agent's.
        let attached = Agent::of(job, &attempt) != Agent::NeverAttached
            || execution.supervision() == Supervision::Controller;
        let observation = execution.observe().await;
        self.note_unknown(&attempt, &observation).await?;
        match observation {
            Observation::Running => {
                let at_hand = self.at_hand(&attempt);
                at_hand.missing.end();
                at_hand.is_seen = true;
                self.note_milestones(job, attempt.clone()).await?;
                if attached {
                    let at_hand = self.at_hand(&attempt);
                    at_hand.waits.end();
                    at_hand.refused = None;
                    self.note_absence(job, &attempt).await?;
                    return Ok(Look::Same);
                }
                let waiting = self.silence(job, &attempt);
                self.wait_or_give_up(job, attempt, waiting).await
            }
            // The platform's word may be old: it is there.
            Observation::Waiting(_) if attached && execution.supervision() == Supervision::Agent => {
                self.at_hand(&attempt).waits.end();
                Ok(Look::Same)
            }
            Observation::Waiting(waiting) => {
                self.at_hand(&attempt).missing.end();
                self.wait_or_give_up(job, attempt, waiting).await
            }
            Observation::Unknown(_) => Ok(Look::Same),
            Observation::Gone(remains) if attached => {
                self.settle(attempt, *remains, None).await?;
                Ok(Look::Decided)
            }
            Observation::Gone(remains) => {
                let missing = self.at_hand(&attempt).missing.note(Instant::now());
                // Without a sign of its end it may be starting: it takes its lock a moment after it was launched.
                if has_changed || remains.tell_of_an_end() || missing > self.context.limits.attach {
                    self.settle_without_agent(attempt, *remains, None).await?;
                    return Ok(Look::Decided);
                }
                Ok(Look::Same)
            }
        }
    }

    /// Goes on waiting for the attempt's agent, unless that was long enough.
    async fn wait_or_give_up(
        &mut self,
        job: &Job,
        attempt: AttemptId,
        waiting: Waiting,
    ) -> Result<Look, Stop> {
        if self.waits(&attempt, &waiting).await? {
            self.give_up(job, attempt, waiting.why).await?;
            return Ok(Look::Decided);
        }
        Ok(Look::Same)
    }

    /// Records what the platform tells of the attempt's start, once.
    async fn note_milestones(&self, job: &Job, attempt: AttemptId) -> Result<(), Stop> {
        if job.attempt(&attempt).is_none_or(|it| it.milestones.is_complete()) {
            return Ok(());
        }
        let milestones = self.context.launchers.of(job, &attempt).milestones().await;
        if milestones == Milestones::default() {
            return Ok(());
        }
        self.update(Event::MilestonesSeen { attempt, milestones }).await
    }

    /// What an attempt waits for whose agent runs and is not attached.
    fn silence(&mut self, job: &Job, attempt: &AttemptId) -> Waiting {
        let waiting = self.context.launchers.of(job, attempt).silence();
        let refusals = self.context.refusals.clone();
        let refused = self.at_hand(attempt).refused.get_or_insert_with(|| refusals.of(attempt));
        let Some(refusal) = refused.last() else { return waiting };
        let why = format!("its agent has reached the server and could not attach: {}", refusal.why);
        // A server that cannot tell who an agent is knows nothing against it.
        let patience =
            if refusal.may_pass { waiting.patience.max(LAUNCH_PATIENCE) } else { waiting.patience };
        Waiting { why, patience, ..waiting }
    }

    /// Says why there is no agent yet, when that is news. True: it has been waited for long enough.
    async fn waits(&mut self, attempt: &AttemptId, waiting: &Waiting) -> Result<bool, Stop> {
        let turn = self.at_hand(attempt).waits.note(waiting, Instant::now());
        if turn.is_news {
            self.say(notice::Kind::Status, waiting.why.clone()).await?;
        }
        Ok(turn.is_over)
    }

    /// Ends an attempt that was waited for long enough. That is recorded first: an agent that comes now is refused, and if
    /// one came just before, the attempt goes on.
    async fn give_up(&mut self, job: &Job, attempt: AttemptId, why: String) -> Result<(), Stop> {
        let outcome = given_up(job, &attempt, why);
        if self.try_update(Event::AttemptGivenUp { attempt: attempt.clone(), outcome }).await? {
            self.context.launchers.of(job, &attempt).stop(true).await;
        }
        Ok(())
    }

    /// Ends an attempt of a cancelled job, or one that cleans up and takes too long. The stream's server tells an attached
    /// agent of the cancel; the platform is asked when that does not help.
    async fn end(&mut self, job: &Job, attempt: &AttemptId) -> Result<(), Stop> {
        let lasted = self.at_hand(attempt).ending.note(Instant::now());
        let agent = Agent::of(job, attempt);
        let execution = self.context.launchers.of(job, attempt);
        let observation = execution.observe().await;
        self.note_unknown(attempt, &observation).await?;
        if let Observation::Gone(remains) = observation {
            let ended = Some(ended_on_purpose(job, attempt));
            return match agent {
                Agent::NeverAttached if execution.supervision() == Supervision::Agent => {
                    self.settle_without_agent(attempt.clone(), *remains, ended).await
                }
                Agent::NeverAttached | Agent::Attached | Agent::Granted => {
                    self.settle(attempt.clone(), *remains, ended).await
                }
            };
        }
        // Each look asks again, since a platform may not have heard it; that never asks for more.
        if let Some(level) = stopping::level(agent, lasted, self.context.limits.grace) {
            execution.stop(level == Level::Forced).await;
        }
        Ok(())
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

    async fn update(&self, event: Event) -> Result<(), Stop> {
        self.try_update(event).await.map(drop)
    }

    /// False: the event was rejected, for the job moved on meanwhile. The next look sees where it is.
    async fn try_update(&self, event: Event) -> Result<bool, Stop> {
        match self.context.store.update(&self.id, Some(&self.lease), event, clock::now_ms()).await {
            Ok(_) => Ok(true),
            Err(UpdateError::Rejected(_)) => Ok(false),
            Err(UpdateError::NotFound) => Err(Stop::Over),
            Err(UpdateError::Fenced) => Err(Stop::Fenced),
            Err(UpdateError::Store(error)) => Err(error.into()),
        }
    }
}

/// What a look at an attempt came to.
enum Look {
    /// Nothing that changes the job.
    Same,
    /// Something was recorded, or could not be since the job is another than it was: it is read again.
    Decided,
}

/// Tells that the job's state changed.
type Changes = tokio::sync::watch::Receiver<u64>;

/// Waits until it may be the attempt's turn.
async fn turn(ticket: Option<&mut Ticket>) {
    match ticket {
        Some(ticket) => ticket.changed().await,
        None => tokio::time::sleep(LOOK_PERIOD).await,
    }
}

/// The outcome of an attempt that was waited for long enough. That is the end, but for work that an earlier attempt kept:
/// to publish it is tried again.
fn given_up(job: &Job, attempt: &AttemptId, why: String) -> Outcome {
    let is_kept = job.steps.get(attempt.step as usize).is_some_and(|step| step.kept_output().is_some());
    Outcome::by_server(Reason::LaunchFailed, why, is_kept)
}

/// The outcome of an attempt that a driver ends, should its agent not report one.
fn ended_on_purpose(job: &Job, attempt: &AttemptId) -> Outcome {
    match job.attempt(attempt).map(|it| it.role) {
        Some(Role::CleanUp) => {
            let limit = CLEAN_UP_TIMEOUT.as_secs();
            let why = format!(
                "the scratch table was not dropped within {limit} s; another session of the database may be using it"
            );
            Outcome::by_server(Reason::Deadline, why, false)
        }
        Some(Role::Run) | None => {
            let why = job.cancel.as_ref().map_or("the job was cancelled", |failure| &failure.message);
            Outcome::by_server(Reason::Cancelled, why, false)
        }
    }
}

/// A database may hold up the removal, for example while another session uses the table: the job ends anyway. The waits
/// before an agent is attached have limits of their own.
fn is_overdue_clean_up(job: &Job, attempt: &AttemptId) -> bool {
    let limit = i64::try_from(CLEAN_UP_TIMEOUT.as_millis()).unwrap_or(i64::MAX);
    job.attempt(attempt)
        .filter(|it| it.role == Role::CleanUp)
        .and_then(|it| it.attached_ms)
        .is_some_and(|attached_ms| attached_ms.saturating_add(limit) < clock::now_ms())
}

fn attempts_of(job: &Job) -> Vec<AttemptId> {
    let id = |step, number| AttemptId { job: job.id.clone(), step, number };
    let steps = (0_u32..).zip(&job.steps);
    steps
        .flat_map(|(step, it)| (1_u32..).zip(&it.attempts).map(move |(number, _)| id(step, number)))
        .collect()
}
