//! How an attempt ended whose agent cannot say so any more: from what it left, and from what is durable.

use sqlflow_proto::record::{Gap, Record, gap, record::Payload};

use crate::convert;
use crate::job::{Outcome, Reason};
use crate::launch::Remains;

/// The end of an attempt, as far as it can be known.
#[derive(Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    /// The attempt said more than the log holds.
    pub(super) output_missing: bool,
}

/// The verdict on an attempt of which `last_seq` records are durable. `known` is what the driver knows better than
/// the agent's absence tells (it was cancelled, it never attached).
pub(super) fn of_remains(remains: &Remains, last_seq: u64, known: Option<Outcome>) -> Verdict {
    let Some(left) = &remains.outcome else {
        let never_spoke = known.as_ref().is_some_and(|outcome| outcome.reason == Reason::LaunchFailed);
        let seen = || remains.seen.as_ref().map(convert::outcome);
        return Verdict {
            outcome: known.or_else(seen).unwrap_or_else(|| lost(&remains.last_words)),
            output_missing: !never_spoke,
        };
    };
    let output_missing = left.last_seq > last_seq;
    let mut outcome = convert::outcome(left);
    if outcome.succeeded() && output_missing {
        // Success needs every result to be durable.
        outcome = Outcome::by_server(
            Reason::Lost,
            "the program succeeded, but the agent was killed before its results were delivered",
            true,
        );
    }
    Verdict { outcome, output_missing }
}

/// The outcome of an attempt whose agent ended before it attached.
pub(super) fn never_attached(remains: &Remains) -> Outcome {
    if let Some(seen) = &remains.seen {
        return Outcome::by_server(
            Reason::LaunchFailed,
            format!("{}, before it attached to a server", seen.message),
            true,
        );
    }
    let detail =
        if remains.last_words.is_empty() { String::new() } else { format!(": {}", remains.last_words) };
    Outcome::by_server(
        Reason::LaunchFailed,
        format!("the agent ended before it attached to a server{detail}"),
        true,
    )
}

fn lost(last_words: &str) -> Outcome {
    let mut outcome = Outcome::by_server(
        Reason::Lost,
        "the agent was killed, and the program with it, before it could report how it ended",
        true,
    );
    outcome.detail = last_words.to_owned();
    outcome
}

/// The record that stands where an agent's undelivered output would be.
pub(super) fn gap(time_unix_micros: i64) -> Record {
    let gap = Gap { reason: gap::Reason::AgentLost.into(), bytes: None };
    Record { time_unix_micros, payload: Some(Payload::Gap(gap)), ..Record::default() }
}
