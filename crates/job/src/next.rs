//! The next action of a reconciler: a pure function of the job's state and of the evidence in its log.

use super::cleanup::{self, StagingTables};
use super::{Attempt, AttemptId, Cause, Failure, Job, JobState, Outcome, Phase, Reason, Role, Step};

/// Maximum number of attempts of a step.
pub const MAX_ATTEMPTS: u32 = 3;
/// Maximum number of attempts to publish kept output, after the attempt that made it.
pub const MAX_PUBLISH_ATTEMPTS: u32 = 5;

/// Evidence in the result log about a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evidence {
    /// Whether a statement of the step has started.
    pub started: bool,
    /// Whether the log has rows, or the head of a result set, of the step.
    pub rows: bool,
}

/// The reason for another attempt of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    /// Failure of the previous attempt, in one sentence.
    pub why: String,
    /// Number of the attempt with kept output, if the new one only publishes it.
    pub publishes: Option<u32>,
}

/// The next action.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Record a new attempt of the step.
    Create {
        /// Index of the step.
        step: u32,
        /// The reason for a retry; `None` for the first attempt.
        after: Option<Again>,
    },
    /// Record an attempt of the step that only drops staging tables of killed attempts.
    Cleanup {
        /// Index of the step.
        step: u32,
        /// Number of failed attempts to clean up.
        tried: u32,
    },
    /// Launch the attempt, which is recorded. Launching is idempotent.
    Launch(AttemptId),
    /// Observe the attempt until it ends.
    Watch(AttemptId),
    /// Terminate the attempt, because the job was cancelled.
    End(AttemptId),
    /// Close the log and record this end.
    Finish(JobState),
    /// The job is over.
    Nothing,
}

impl Job {
    /// The next action. `evidence` is used only after an attempt that ended without success, and for a cancelled step
    /// without attempts.
    #[must_use]
    pub fn next(&self, evidence: Evidence) -> Next {
        if self.state.is_final() {
            return Next::Nothing;
        }
        let Some(index) = self.current_step() else {
            return Next::Finish(match &self.cancel {
                // A result was not stored, so the job cannot succeed, even if the attempt did.
                Some(failure) if failure.cause == Cause::Limit => JobState::Failed(failure.clone()),
                Some(_) | None if self.over_limit => JobState::Failed(Failure::over_limit()),
                // Also if it was cancelled too late: everything was executed.
                Some(_) | None => JobState::Succeeded,
            });
        };
        let step = &self.steps[index as usize];
        let Some(last) = step.attempts.last() else {
            return match &self.cancel {
                // A restored state may lack an attempt. If its agent still runs, Attach refuses it because the job has
                // ended, and the agent ends its command.
                Some(failure) => Next::Finish(cancelled(failure, may_have_executed(step, None, evidence))),
                None => Next::Create { step: index, after: None },
            };
        };
        let number = u32::try_from(step.attempts.len()).unwrap_or(u32::MAX);
        let id = AttemptId { job: self.id.clone(), step: index, number };
        match &last.phase {
            Phase::Created | Phase::Launched | Phase::Attached { .. }
                if self.cancel.is_some() && last.role == Role::Run =>
            {
                Next::End(id)
            }
            Phase::Created => Next::Launch(id),
            Phase::Launched | Phase::Attached { .. } => Next::Watch(id),
            Phase::Ended { outcome, .. } => {
                // Cleanup attempts come last, and do not change how the job ends.
                let outcome = step.last_run().and_then(Attempt::outcome).unwrap_or(outcome);
                match self.after_end(index, step, outcome, evidence) {
                    Next::Finish(JobState::Failed(failure)) => Self::cleanup(index, step, failure, evidence),
                    next => next,
                }
            }
        }
    }

    fn cleanup(index: u32, step: &Step, failure: Failure, evidence: Evidence) -> Next {
        match cleanup::staging_tables(step, evidence) {
            StagingTables::Clean => Next::Finish(JobState::Failed(failure)),
            StagingTables::Left { tried } => Next::Cleanup { step: index, tried },
            StagingTables::GivenUp => {
                let message = format!(
                    "{}; cannot drop a staging table: it is still in the database, and its name contains the job's id",
                    failure.message
                );
                Next::Finish(JobState::Failed(Failure { message, ..failure }))
            }
        }
    }

    fn after_end(&self, index: u32, step: &Step, outcome: &Outcome, evidence: Evidence) -> Next {
        if let Some(failure) = &self.cancel {
            return Next::Finish(cancelled(failure, may_have_executed(step, Some(outcome), evidence)));
        }
        let publishes = step.kept_output();
        let may_go_on = match publishes {
            // Nothing is executed again, so no effect is repeated.
            Some(made) => {
                let tried = step.attempts.len() - made as usize;
                // The deadline was that of this attempt's Pod; the next one has its own.
                let is_late = outcome.reason == Reason::Deadline;
                (outcome.output_kept || outcome.retryable || is_late) && tried < MAX_PUBLISH_ATTEMPTS as usize
            }
            None => {
                outcome.retryable && step.attempts.len() < MAX_ATTEMPTS as usize && may_repeat(step, evidence)
            }
        };
        if may_go_on {
            let why = outcome.message.clone();
            return Next::Create { step: index, after: Some(Again { why, publishes }) };
        }
        Next::Finish(JobState::Failed(failure_of(step, outcome, evidence)))
    }
}

/// The end of a job that was cancelled for this reason.
fn cancelled(why: &Failure, may_have_executed: bool) -> JobState {
    let mut failure = why.clone();
    if may_have_executed {
        failure.message = format!("{}; {MAY_HAVE_EXECUTED}", failure.message);
    }
    JobState::Failed(failure)
}

/// Whether the step can be retried without repeating an effect or a row.
///
/// A statement that reads what it replaces is not repeated once its commit was granted, because it would read its own
/// result.
///
/// If no statement started, no statement that is not repeatable was executed, because a submitter waits for the
/// acknowledgement of `statement started` before it executes one. If a statement started, the step is retried only if
/// it is repeatable, and only if no row of it is in the log.
#[must_use]
fn may_repeat(step: &Step, evidence: Evidence) -> bool {
    !may_have_replaced_input(step) && (!evidence.started || (step.repeatable && !evidence.rows))
}

/// Whether the step reads what it replaces, and may have replaced it.
fn may_have_replaced_input(step: &Step) -> bool {
    step.overwrites_input && cleanup::unclear_grant(step).is_some()
}

/// Part of each message about an effect that a repetition would double.
const MAY_HAVE_EXECUTED: &str = "a statement that must not be repeated had started, so it may have executed: check before you run it again";

/// Whether a statement that is not repeatable started and its result is unknown. This is decided from what is durable,
/// whatever the reason of the attempt's end.
fn may_have_executed(step: &Step, outcome: Option<&Outcome>, evidence: Evidence) -> bool {
    let has_started = evidence.started || outcome.is_some_and(Outcome::is_unproved_success);
    let has_effect = if step.repeatable { may_have_replaced_input(step) } else { has_started };
    has_effect && outcome.is_none_or(leaves_open)
}

/// Whether the result of the last statement is unknown after this outcome.
fn leaves_open(outcome: &Outcome) -> bool {
    match outcome.reason {
        // The command succeeded.
        Reason::Succeeded | Reason::PublishFailed => false,
        // The submitter reported that the statement failed. If the connection to the database was lost, the result is
        // unknown; if the database refused the statement (a lock), it is known.
        Reason::Exited => outcome.unexplained || (outcome.retryable && !outcome.not_executed),
        Reason::Signaled
        | Reason::OutOfMemory
        | Reason::Cancelled
        | Reason::StartFailed
        | Reason::InputFailed
        | Reason::Refused
        | Reason::AgentFailed
        | Reason::Lost
        | Reason::LaunchFailed
        | Reason::Deadline
        | Reason::Terminated => true,
    }
}

fn failure_of(step: &Step, outcome: &Outcome, evidence: Evidence) -> Failure {
    let cause = match outcome.reason {
        // The command succeeded, in an earlier attempt.
        _ if step.kept_output().is_some() => Cause::Storage,
        _ if may_have_executed(step, Some(outcome), evidence) => Cause::MayHaveExecuted,
        Reason::InputFailed | Reason::PublishFailed if outcome.user_error => Cause::StatementFailed,
        // Another attempt superseded it.
        Reason::Lost | Reason::Terminated | Reason::Refused => Cause::Lost,
        // The agent failed.
        Reason::AgentFailed if evidence.started || outcome.is_unproved_success() => Cause::Lost,
        Reason::Exited | Reason::Succeeded => Cause::StatementFailed,
        Reason::Signaled => Cause::Killed,
        Reason::OutOfMemory => Cause::OutOfMemory,
        Reason::Cancelled => Cause::Killed,
        Reason::StartFailed | Reason::LaunchFailed | Reason::AgentFailed => Cause::LaunchFailed,
        Reason::InputFailed | Reason::PublishFailed => Cause::Storage,
        Reason::Deadline => Cause::Deadline,
    };
    let message = match cause {
        Cause::MayHaveExecuted => format!("{}; {MAY_HAVE_EXECUTED}", outcome.message),
        Cause::Lost if evidence.rows => {
            format!("{}; rows of it were delivered already, so it is not repeated", outcome.message)
        }
        _ => outcome.message.clone(),
    };
    Failure { cause, message }
}
