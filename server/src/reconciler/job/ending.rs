//! How a reconciler brings an attempt, and then the job, to its end in the records, and cleans up behind them.

use std::io;
use std::time::{Duration, Instant};

use sqlflow_job::{AttemptId, Basis, Event, Failure, Job, JobState, Outcome, Reason, Role};
use sqlflow_launcher::{AgentArtifacts, Execution, Observation, Supervision};
use sqlflow_os::clock;
use sqlflow_os::exhaustion::is_exhaustion;
use sqlflow_proto::record::{Record, notice};
use sqlflow_result_log::{Entry, LogError, Missing, Producer};

use super::stopping::{self, Agent, Level};
use super::{JobReconciler, Stop, attempts_of};
use crate::reconciler::inferred_outcome;
use crate::trace;

/// The agent that speaks for an attempt.
pub(super) const LEADER: u32 = 0;
/// Timeout for an attempt that removes what others left in the user's database.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the reconciler waits for a reported agent to leave, before it leaves cleaning up to housekeeping.
const LEAVE_TIME: Duration = Duration::from_secs(5);
/// How long what an agent left is tried again when it cannot be read, by an error that may pass, such as EIO.
const READ_PATIENCE: Duration = Duration::from_secs(60);

impl JobReconciler {
    /// Ends an attempt of a cancelled job, or one that cleans up and takes too long. The stream's server tells an attached
    /// agent of the cancel; the platform is asked when that does not help.
    pub(super) async fn end(&mut self, job: &Job, attempt: &AttemptId) -> Result<(), Stop> {
        let lasted = self.attempt_view(attempt).ending.note(Instant::now());
        let agent = Agent::of(job, attempt);
        let execution = self.context.launchers.of(job, attempt);
        let observation = execution.observe().await;
        self.note_unknown(attempt, &observation).await?;
        if let Observation::Gone(artifacts) = observation {
            let ended = Some(ended_on_purpose(job, attempt));
            return match agent {
                Agent::NeverAttached if execution.supervision() == Supervision::Agent => {
                    self.settle_without_agent(attempt.clone(), *artifacts, ended).await
                }
                Agent::NeverAttached | Agent::Attached | Agent::Granted => {
                    self.settle(attempt.clone(), *artifacts, ended).await
                }
            };
        }
        // Each look asks again, since a platform may not have heard it; that never asks for more.
        if let Some(level) = stopping::level(agent, lasted, self.context.limits.grace) {
            execution.stop(level == Level::Forced).await;
        }
        Ok(())
    }

    /// A database may hold up the removal, for example while another session uses the table: the job ends anyway. The waits
    /// before it runs have limits of their own.
    pub(super) fn is_overdue_clean_up(&mut self, job: &Job, execution: &Execution, now_ms: i64) -> bool {
        let limit = i64::try_from(CLEAN_UP_TIMEOUT.as_millis()).unwrap_or(i64::MAX);
        let attempt = execution.attempt();
        let Some(clean_up) = job.attempt(attempt).filter(|it| it.role == Role::CleanUp) else { return false };
        let begun_ms = match execution.supervision() {
            Supervision::Agent => clean_up.attached_ms,
            // No agent attaches. A server that takes the job over begins to count again.
            Supervision::Controller => self.attempt_view(attempt).seen_ms,
        };
        begun_ms.is_some_and(|begun_ms| begun_ms.saturating_add(limit) < now_ms)
    }

    /// Nothing of an attempt runs whose agent is not known to have attached. `known`: how it ended, if the reconciler knows it.
    ///
    /// The end is recorded first. If an agent attached meanwhile, through another server, the record is rejected: then the
    /// next look decides, on a newer state.
    pub(super) async fn settle_without_agent(
        &mut self,
        attempt: AttemptId,
        artifacts: AgentArtifacts,
        known: Option<Outcome>,
    ) -> Result<(), Stop> {
        let durable = self.context.log.last_seq(&attempt, LEADER).await?;
        if inferred_outcome::had_agent(&artifacts, durable) {
            // The state is older than that, as after a backup was restored.
            return self.settle(attempt, artifacts, known).await;
        }
        let outcome = inferred_outcome::without_agent(&artifacts, known);
        self.found_ended(attempt, outcome, Basis::NeverAttached).await
    }

    /// Nothing of an attempt runs any more whose agent had attached: takes over what it left, and records how it ended.
    pub(super) async fn settle(
        &mut self,
        attempt: AttemptId,
        mut artifacts: AgentArtifacts,
        known: Option<Outcome>,
    ) -> Result<(), Stop> {
        self.take_over(&attempt, &mut artifacts).await?;
        let missing = Missing {
            said: inferred_outcome::said(&artifacts),
            gap: inferred_outcome::gap(clock::now_micros()),
        };
        // From here on no stream that is still open somewhere can add to the attempt.
        let last_seqs = self.context.log.seal(&attempt, Some(missing)).await?;
        let last_seq = last_seqs.get(&LEADER).copied().unwrap_or(0);
        let memory = self.context.memory_peaks.in_words(&attempt);
        let outcome = inferred_outcome::of_artifacts(&artifacts, last_seq, known, &memory);
        self.found_ended(attempt, outcome, Basis::Attached).await
    }

    /// Records how the attempt ended. It is a line of the log only if it counts: an agent may have been faster.
    async fn found_ended(&mut self, attempt: AttemptId, outcome: Outcome, basis: Basis) -> Result<(), Stop> {
        let event = Event::AttemptFoundEnded { attempt: attempt.clone(), outcome: outcome.clone(), basis };
        self.update(event).await?;
        self.log_end(&attempt, &outcome);
        Ok(())
    }

    /// To be called right after the event that ends the attempt.
    pub(super) fn log_end(&self, attempt: &AttemptId, outcome: &Outcome) {
        if self.has_changed_job {
            tracing::info!(%attempt, reason = outcome.reason.name(), outcome = outcome.message, "the attempt has ended");
        }
    }

    /// Logs what the attempt left. The inferred outcome says what is missing or damaged.
    async fn take_over(&mut self, attempt: &AttemptId, artifacts: &mut AgentArtifacts) -> Result<(), Stop> {
        let durable = self.context.log.last_seq(attempt, LEADER).await?;
        let mut records = inferred_outcome::stand_in(artifacts, durable, clock::now_micros());
        loop {
            let entries = records.into_iter().map(|record| entry(attempt, record)).collect();
            match self.context.log.append(&self.id, entries).await {
                Ok(appended) if appended.is_full => {
                    self.update(Event::CancelRequested(Failure::over_limit())).await?;
                }
                Ok(_) => {}
                Err(LogError::Gap { .. } | LogError::Sealed { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            let Some(source) = &mut artifacts.records else { return Ok(()) };
            records = match source.batch().await {
                // Not after each batch: the next try reads those before the fault again.
                Ok(batch) if batch.is_empty() => {
                    self.attempt_view(attempt).unreadable.end();
                    return Ok(());
                }
                Ok(batch) => batch,
                Err(error) => {
                    if !self.is_lasting(attempt, &error, Instant::now()) {
                        // Nothing is decided while it may still be read: the log drops what comes a second time.
                        return Err(Stop::Fault(error.into()));
                    }
                    tracing::error!(%attempt, %error, "what the agent could not deliver is lost");
                    return Ok(());
                }
            };
        }
    }

    /// Whether the error, with which a read of what the attempt left has failed now, is lasting. Exhausted resources come back
    /// at some time.
    fn is_lasting(&mut self, attempt: &AttemptId, error: &io::Error, now: Instant) -> bool {
        if is_exhaustion(error) {
            return false;
        }
        let is_damage = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
        is_damage || self.attempt_view(attempt).unreadable.note(now) >= READ_PATIENCE
    }

    /// Closes the log, then records the end: who sees the end sees a complete log.
    pub(super) async fn finish(&mut self, job: &Job, state: JobState) -> Result<(), Stop> {
        // A stream that is older than the one that reported the success may have been refused a result last.
        if state == JobState::Succeeded && self.context.log.append(&self.id, Vec::new()).await?.is_full {
            return self.update(Event::CancelRequested(Failure::over_limit())).await;
        }
        // Of short attempts the platform tells late.
        for attempt in attempts_of(job) {
            self.note_milestones(job, attempt).await?;
        }
        let text = match &state {
            JobState::Failed(failure) => failure.message.clone(),
            _ => JobState::SUCCEEDED.to_owned(),
        };
        // The log takes one end only: it may be there already, from a reconciler that died or lost its lease after that.
        self.say(notice::Kind::End, text).await?;
        self.update(Event::Finished(state.clone())).await?;
        if self.has_changed_job {
            let attempts: usize = job.steps.iter().map(|step| step.attempts.len()).sum();
            let why = match &state {
                JobState::Failed(failure) => Some(failure.message.as_str()),
                JobState::Pending | JobState::Running | JobState::Succeeded => None,
            };
            tracing::info!(state = state.name(), attempts, why, "the job has ended");
        }
        if self.context.tracer.is_on()
            && let Some(record) = self.context.store.load(&self.id).await?
        {
            self.context.tracer.take(trace::spans(&record, clock::now_ms()));
        }
        Ok(())
    }

    /// Removes what the attempts of a job that is over left. What stays is left to housekeeping.
    pub(super) async fn clean_up(&mut self, job: &Job) {
        let deadline = Instant::now() + LEAVE_TIME;
        for attempt in attempts_of(job) {
            let execution = self.context.launchers.of(job, &attempt);
            while matches!(execution.observe().await, Observation::Running) && Instant::now() < deadline {
                let changed = execution.changed();
                let _ = tokio::time::timeout(Duration::from_millis(100), changed).await;
                // An exit stays a change.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let _ = self.clean_up_one(&execution, false).await;
        }
    }
}

/// The outcome of an attempt that a reconciler ends, should its agent not report one.
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

fn entry(attempt: &AttemptId, record: Record) -> Entry {
    Entry { producer: Producer::agent(attempt, LEADER), record }
}
