//! Cleanup of staging tables that attempts left in the user's database: pure.
//!
//! A submitter that fails drops its staging table; one that is killed cannot. The next attempt of the step drops it,
//! but a job that ends has no next attempt. So an attempt of [`Role::Cleanup`] does it before the job ends.

use super::{Attempt, EndedBy, Evidence, Phase, Reason, Role, Step};

/// Maximum number of cleanup attempts. After them the job ends, and its failure reports the remaining tables.
pub const MAX_CLEANUPS: u32 = 3;

/// State of a step's staging tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StagingTables {
    /// None is left.
    Clean,
    /// A killed attempt may have left a table.
    Left {
        /// Number of failed cleanup attempts.
        tried: u32,
    },
    /// A table could not be dropped.
    GivenUp,
}

/// The staging tables that the attempts of a step left. All of them have ended.
pub(crate) fn staging_tables(step: &Step, evidence: Evidence) -> StagingTables {
    let runs = step.attempts.iter().filter(|attempt| attempt.role == Role::Run);
    // Each attempt first drops the tables of earlier ones.
    let left = runs.filter_map(what_is_left).next_back();
    // If an agent could not report, the log may lack the record that its statement started.
    let is_unheard = |attempt: &Attempt| {
        matches!(attempt.phase, Phase::Ended { instance: Some(_), by: EndedBy::Server, .. })
    };
    let may_have_started = evidence.started || step.attempts.iter().any(is_unheard);
    if !step.writes_table || !may_have_started || left != Some(Table::Left) {
        return StagingTables::Clean;
    }
    let cleanups = step.attempts.iter().filter(|attempt| attempt.role == Role::Cleanup);
    let mut tried = 0;
    for attempt in cleanups {
        tried += 1;
        if attempt.outcome().is_some_and(super::Outcome::succeeded) {
            return StagingTables::Clean;
        }
    }
    if tried < MAX_CLEANUPS { StagingTables::Left { tried } } else { StagingTables::GivenUp }
}

/// Number of the attempt with a grant whose result is unknown. After a later attempt whose statement started, it cannot
/// be found out any more, because that one dropped the table.
#[must_use]
pub fn unclear_grant(step: &Step) -> Option<u32> {
    let runs = (1..).zip(&step.attempts).filter(|(_, attempt)| attempt.role == Role::Run);
    let (number, last) = runs.filter(|(_, attempt)| what_is_left(attempt).is_some()).last()?;
    let is_told = last.outcome().is_some_and(|outcome| outcome.not_executed);
    (last.granted && !is_told && what_is_left(last) == Some(Table::Left)).then_some(number)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    /// The submitter ran to its end with a connection to the database, and dropped the table.
    Dropped,
    /// It may have been killed while a table was in the database.
    Left,
}

/// `None`: its first statement did not start.
fn what_is_left(attempt: &Attempt) -> Option<Table> {
    let Some(outcome) = attempt.outcome() else { return Some(Table::Left) };
    match outcome.reason {
        // Its connection was lost, or the result is unknown: it may not have dropped the table.
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
