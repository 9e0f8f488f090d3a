//! When a job must remove what its attempts left in the user's database: pure.
//!
//! A submitter that fails by itself drops its scratch table. One that is killed cannot. The next attempt of the step
//! drops it, but a job that ends has no next attempt. So before it ends, an attempt of [`Role::CleanUp`] does it.

use super::{Attempt, EndedBy, Evidence, Phase, Reason, Role, Step};

/// Attempts to clean up at the most. After that the job ends, and its failure says what is left.
pub const MAX_CLEAN_UPS: u32 = 3;

/// What is left of a step's scratch tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scratch {
    /// Nothing.
    Clean,
    /// A killed attempt may have left a table. So many attempts to clean up have failed.
    Left {
        /// Attempts to clean up so far.
        tried: u32,
    },
    /// It could not be removed.
    GivenUp,
}

/// What the attempts of a step left, all of which have ended.
pub(crate) fn scratch(step: &Step, evidence: Evidence) -> Scratch {
    let runs = step.attempts.iter().filter(|attempt| attempt.role == Role::Run);
    // Each attempt begins by dropping what earlier ones left.
    let left = runs.filter_map(what_is_left).next_back();
    // Of an agent that could not report, the log may not have what its submitter said: that it had started.
    let is_unheard = |attempt: &Attempt| {
        matches!(attempt.phase, Phase::Ended { instance: Some(_), by: EndedBy::Server, .. })
    };
    let may_have_started = evidence.started || step.attempts.iter().any(is_unheard);
    if !step.writes_table || !may_have_started || left != Some(Table::Left) {
        return Scratch::Clean;
    }
    let clean_ups = step.attempts.iter().filter(|attempt| attempt.role == Role::CleanUp);
    let mut tried = 0;
    for attempt in clean_ups {
        tried += 1;
        if attempt.outcome().is_some_and(super::Outcome::succeeded) {
            return Scratch::Clean;
        }
    }
    if tried < MAX_CLEAN_UPS { Scratch::Left { tried } } else { Scratch::GivenUp }
}

/// Number of the attempt that was granted its commit and did not report what became of it. After a later one that came to its
/// statement nothing tells any more what became of the grant: that one dropped the table.
#[must_use]
pub fn unclear_grant(step: &Step) -> Option<u32> {
    let runs = (1..).zip(&step.attempts).filter(|(_, attempt)| attempt.role == Role::Run);
    let (number, last) = runs.filter(|(_, attempt)| what_is_left(attempt).is_some()).last()?;
    let is_told = last.outcome().is_some_and(|outcome| outcome.not_executed);
    (last.granted && !is_told && what_is_left(last) == Some(Table::Left)).then_some(number)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    /// The submitter ran to its end, could reach the database, and dropped what there was.
    Dropped,
    /// It may have been killed with a table in the database.
    Left,
}

/// `None`: it did not come to its first statement.
fn what_is_left(attempt: &Attempt) -> Option<Table> {
    let Some(outcome) = attempt.outcome() else { return Some(Table::Left) };
    match outcome.reason {
        // Its connection was lost, or it cannot say: it may not have dropped the table.
        Reason::Exited if outcome.retryable || outcome.unexplained => Some(Table::Left),
        Reason::Succeeded | Reason::Exited => Some(Table::Dropped),
        Reason::StartFailed | Reason::InputFailed | Reason::LaunchFailed => None,
        Reason::Signaled
        | Reason::OutOfMemory
        | Reason::Cancelled
        | Reason::PublishFailed
        | Reason::Refused
        | Reason::AgentFailed
        | Reason::Lost
        | Reason::Deadline
        | Reason::Terminated => Some(Table::Left),
    }
}
