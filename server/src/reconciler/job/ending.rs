//! Ends of attempts and jobs: records them, and cleans up.

use std::io;
use std::time::{Duration, Instant};

use sqlflow_job::{AttemptId, Basis, Event, Failure, Job, JobState, Outcome, Reason, Role};
use sqlflow_launcher::{AgentArtifacts, Execution, Observation, Supervision};
use sqlflow_os::clock;
use sqlflow_os::exhaustion::is_exhaustion;
use sqlflow_proto::record::{Record, notice, record::Payload};
use sqlflow_result_log::{Entry, LogError, Missing, Producer};

use super::stopping::{self, Agent, Level};
use super::{JobReconciler, ReconcileError, attempts_of};
use crate::agent_records::{self, ModelRight};
use crate::reconciler::inferred_outcome;
use crate::success;
use crate::trace;

/// Rank of the agent that reports an attempt's outcome.
pub(super) const LEADER: u32 = 0;
/// Timeout for an attempt that drops staging tables in the user's database.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(60);
/// Time to wait for the exit of agents of a finished job. After it, cleaning up is left to housekeeping.
const LEAVE_TIME: Duration = Duration::from_secs(5);
/// Timeout for retrying a read of an agent's artifacts after a retryable error, such as EIO.
const READ_RETRY_TIMEOUT: Duration = Duration::from_secs(60);

impl JobReconciler {
    /// Ends an attempt of a cancelled job, or a cleanup attempt that timed out. An attached agent receives the
    /// cancel on its stream; the platform is asked if that has no effect.
    pub(super) async fn end(&mut self, job: &Job, attempt: &AttemptId) -> Result<(), ReconcileError> {
        let lasted = self.observations(attempt).ending.note(Instant::now());
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
        // Repeated, since a platform may have missed the request. It is idempotent.
        if let Some(level) = stopping::level(agent, lasted, self.context.limits.grace) {
            execution.stop(level == Level::Forced).await;
        }
        Ok(())
    }

    /// Whether a cleanup attempt timed out. The database may block it, for example while another session uses the
    /// table; the job ends anyway. Pending reasons have their own timeouts.
    pub(super) fn is_overdue_cleanup(&mut self, job: &Job, execution: &Execution, now_ms: i64) -> bool {
        let limit = i64::try_from(CLEANUP_TIMEOUT.as_millis()).unwrap_or(i64::MAX);
        let attempt = execution.attempt();
        let Some(cleanup) = job.attempt(attempt).filter(|it| it.role == Role::Cleanup) else { return false };
        let begun_ms = match execution.supervision() {
            Supervision::Agent => cleanup.attached_ms,
            // No agent attaches. A server that takes over the job starts the timeout again.
            Supervision::Controller => self.observations(attempt).first_running_ms,
        };
        begun_ms.is_some_and(|begun_ms| begun_ms.saturating_add(limit) < now_ms)
    }

    /// Records the end of an attempt that does not run and whose agent is not known to have attached. `known`: its
    /// outcome, if the reconciler knows it.
    ///
    /// If an agent attached meanwhile, through another server, the record is rejected, and the next read decides.
    pub(super) async fn settle_without_agent(
        &mut self,
        attempt: AttemptId,
        artifacts: AgentArtifacts,
        known: Option<Outcome>,
    ) -> Result<(), ReconcileError> {
        let durable = self.context.log.last_seq(&attempt, LEADER).await?;
        if inferred_outcome::had_agent(&artifacts, durable) {
            // The state is older than the log, for example after a restore from a backup.
            return self.settle(attempt, artifacts, known).await;
        }
        let outcome = inferred_outcome::without_agent(&artifacts, known);
        self.found_ended(attempt, outcome, Basis::NeverAttached).await
    }

    /// Records the end of an attempt that had an agent and does not run any more. Its artifacts are logged first.
    pub(super) async fn settle(
        &mut self,
        attempt: AttemptId,
        mut artifacts: AgentArtifacts,
        known: Option<Outcome>,
    ) -> Result<(), ReconcileError> {
        // Read now: an agent may have got a grant after the reconciler read its copy.
        let job = match says_anything(&artifacts) {
            true => self.context.store.load(&self.id).await?.map(|record| record.job),
            false => None,
        };
        self.take_over(&attempt, &mut artifacts, job.as_ref()).await?;
        let missing = Missing {
            said: inferred_outcome::last_sent_seq(&artifacts),
            gap: inferred_outcome::gap(clock::now_micros()),
        };
        // After this no open stream can append records of the attempt.
        let last_seqs = self.context.log.seal(&attempt, Some(missing)).await?;
        let last_seq = last_seqs.get(&LEADER).copied().unwrap_or(0);
        let memory = self.context.memory_peaks.in_words(&attempt);
        let mut outcome = inferred_outcome::of_artifacts(&artifacts, last_seq, known, &memory);
        // Only a success needs the proof.
        if let Some(job) = job.as_ref().filter(|_| outcome.succeeded()) {
            let log = &*self.context.log;
            let ends = log.statement_ends(&attempt).await?;
            outcome = success::believed(outcome, log, job, &attempt, ends).await?;
        }
        self.found_ended(attempt, outcome, Basis::Attached).await
    }

    /// Records the attempt's outcome. It is logged only if it was accepted: an agent may have been faster.
    async fn found_ended(
        &mut self,
        attempt: AttemptId,
        outcome: Outcome,
        basis: Basis,
    ) -> Result<(), ReconcileError> {
        let event = Event::AttemptFoundEnded { attempt: attempt.clone(), outcome: outcome.clone(), basis };
        self.update(event).await?;
        self.log_end(&attempt, &outcome);
        Ok(())
    }

    /// Writes a log line. To be called right after the event that ends the attempt.
    pub(super) fn log_end(&self, attempt: &AttemptId, outcome: &Outcome) {
        if self.has_changed_job {
            tracing::info!(%attempt, reason = outcome.reason.name(), outcome = outcome.message, "the attempt has ended");
        }
    }

    /// Appends the attempt's artifacts to the log. The inferred outcome states what is missing or damaged.
    async fn take_over(
        &mut self,
        attempt: &AttemptId,
        artifacts: &mut AgentArtifacts,
        job: Option<&Job>,
    ) -> Result<(), ReconcileError> {
        let right = job.map_or(ModelRight::None, |job| ModelRight::of(job, attempt));
        let durable = self.context.log.last_seq(attempt, LEADER).await?;
        let records = inferred_outcome::replacement_records(artifacts, durable, clock::now_micros());
        let mut entries: Vec<_> = records.into_iter().map(|it| replacement(attempt, it, right)).collect();
        loop {
            match self.context.log.append(&self.id, entries).await {
                Ok(appended) if appended.is_full => {
                    self.update(Event::CancelRequested(Failure::over_limit())).await?;
                }
                Ok(_) => {}
                Err(LogError::Gap { .. } | LogError::Sealed { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            let Some(source) = &mut artifacts.records else { return Ok(()) };
            entries = match source.batch().await {
                // Not after each batch: the next try reads those before the error again.
                Ok(batch) if batch.is_empty() => {
                    self.observations(attempt).unreadable.end();
                    return Ok(());
                }
                Ok(batch) => batch.into_iter().map(|record| entry(attempt, record, right)).collect(),
                Err(error) => {
                    if !self.is_permanent(attempt, &error, Instant::now()) {
                        // Nothing is decided while a retry may succeed. The log drops duplicates.
                        return Err(ReconcileError::Retry(error.into()));
                    }
                    tracing::error!(%attempt, %error, "cannot read the agent's undelivered records; they are lost");
                    return Ok(());
                }
            };
        }
    }

    /// Whether an error of reading an attempt's artifacts is permanent. Exhausted resources are always temporary.
    fn is_permanent(&mut self, attempt: &AttemptId, error: &io::Error, now: Instant) -> bool {
        if is_exhaustion(error) {
            return false;
        }
        let is_damage = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
        is_damage || self.observations(attempt).unreadable.note(now) >= READ_RETRY_TIMEOUT
    }

    /// Closes the log, then records the end, so that a client that sees the end sees a complete log.
    pub(super) async fn finish(&mut self, job: &Job, state: JobState) -> Result<(), ReconcileError> {
        // An older stream than the one that reported the success may have been refused a result.
        if state == JobState::Succeeded && self.context.log.append(&self.id, Vec::new()).await?.is_full {
            return self.update(Event::CancelRequested(Failure::over_limit())).await;
        }
        // A platform reports milestones of short attempts late.
        for attempt in attempts_of(job) {
            self.note_milestones(job, attempt).await?;
        }
        let text = match &state {
            JobState::Failed(failure) => failure.message.clone(),
            _ => JobState::SUCCEEDED.to_owned(),
        };
        // The log accepts one end only. It may have one already, from a reconciler that died or lost its lease after
        // writing it.
        self.append_notice(notice::Kind::End, text).await?;
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

    /// Cleans up the attempts of a finished job. Housekeeping removes what remains.
    pub(super) async fn cleanup(&mut self, job: &Job) {
        let deadline = Instant::now() + LEAVE_TIME;
        for attempt in attempts_of(job) {
            let execution = self.context.launchers.of(job, &attempt);
            while matches!(execution.observe().await, Observation::Running) && Instant::now() < deadline {
                let changed = execution.changed();
                let _ = tokio::time::timeout(Duration::from_millis(100), changed).await;
                // The exit stays a change, so this limits the polling.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let _ = self.cleanup_one(&execution, false).await;
        }
    }
}

/// Outcome of an attempt that a reconciler ends, if its agent reports none.
fn ended_on_purpose(job: &Job, attempt: &AttemptId) -> Outcome {
    match job.attempt(attempt).map(|it| it.role) {
        Some(Role::Cleanup) => {
            let limit = CLEANUP_TIMEOUT.as_secs();
            let why = format!(
                "the staging table was not dropped within {limit} s; another session of the database may be using it"
            );
            Outcome::by_server(Reason::Deadline, why, false)
        }
        Some(Role::Run) | None => {
            let why = job.cancel.as_ref().map_or("the job was cancelled", |failure| &failure.message);
            Outcome::by_server(Reason::Cancelled, why, false)
        }
    }
}

/// Whether there is anything of an agent that could be true or not.
fn says_anything(artifacts: &AgentArtifacts) -> bool {
    artifacts.records.is_some() || artifacts.terminal_records.is_some() || artifacts.reported().is_some()
}

/// An entry in place of undelivered records. The gaps are this server's: terminal records of an agent are no gaps.
fn replacement(attempt: &AttemptId, record: Record, right: ModelRight) -> Entry {
    match &record.payload {
        Some(Payload::Gap(_)) => Entry { producer: Producer::agent(attempt, LEADER), record },
        _ => entry(attempt, record, right),
    }
}

fn entry(attempt: &AttemptId, record: Record, right: ModelRight) -> Entry {
    Entry { producer: Producer::agent(attempt, LEADER), record: agent_records::admitted(record, right) }
}
