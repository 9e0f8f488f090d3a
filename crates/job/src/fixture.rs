//! Jobs for tests.

use crate::{Job, JobId, Step, StepKind};

/// A step of one standard statement, without attempts.
pub fn step(repeatable: bool) -> Step {
    Step {
        first_statement: 0,
        statement_count: 1,
        kind: StepKind::Standard,
        model: String::new(),
        repeatable,
        writes_table: false,
        overwrites_input: false,
        attempts: Vec::new(),
    }
}

/// A job of one such step.
pub fn job(repeatable: bool) -> Job {
    Job::new(JobId::generate(), vec![step(repeatable)])
}
