//! How an attempt ended whose agent cannot say so any more: from what it left, and from what is durable.

use sqlflow_job::{Outcome, Reason};
use sqlflow_launcher::{AgentArtifacts, End};
use sqlflow_proto::record::{Gap, Record, gap, record::Payload};

use crate::wire;

/// The inferred outcome of an attempt that had an agent, of which `last_seq` records are durable. `known` is what the reconciler knows
/// better than the agent's absence tells (it was cancelled); `memory` is what heartbeats said, see
/// [`crate::memory_peaks::MemoryPeaks::in_words`].
pub(super) fn of_artifacts(
    artifacts: &AgentArtifacts,
    last_seq: u64,
    known: Option<Outcome>,
    memory: &str,
) -> Outcome {
    let without_its_word = |mut found: Outcome| {
        found.message.push_str(memory);
        known.unwrap_or(found)
    };
    let left = match &artifacts.end {
        End::Reported(left) => left,
        End::Seen(seen) => return without_its_word(wire::outcome(seen)),
        End::Unknown => return without_its_word(lost(&artifacts.last_words)),
    };
    let outcome = wire::outcome(left);
    if outcome.succeeded() && left.last_seq > last_seq {
        // Success needs every result to be durable.
        return Outcome::by_server(
            Reason::Lost,
            "results lost: the program succeeded, but its agent ended before its results were delivered",
            true,
        );
    }
    outcome
}

/// The last seq that the attempt's agent has given. One that could not report the end may have said more than anyone knows.
pub(super) fn said(artifacts: &AgentArtifacts) -> u64 {
    artifacts.reported().map_or(u64::MAX, |left| left.last_seq)
}

/// The records to log for an attempt of which `durable` are, when all that is left of the others are terminal records: those after
/// `durable`, with a gap for all between them. None when a result is lost.
pub(super) fn stand_in(artifacts: &AgentArtifacts, durable: u64, time_unix_micros: i64) -> Vec<Record> {
    let (Some(terminal_records), Some(outcome)) = (&artifacts.terminal_records, artifacts.reported()) else {
        return Vec::new();
    };
    if terminal_records.last_result > durable {
        return Vec::new();
    }
    let last_seq = outcome.last_seq;
    let mut records = Vec::new();
    let mut last = durable;
    for mark in terminal_records.records.iter().filter(|it| it.seq <= last_seq) {
        if mark.seq <= last {
            continue;
        }
        if mark.seq > last + 1 {
            records.push(Record { seq: mark.seq - 1, ..gap(time_unix_micros) });
        }
        last = mark.seq;
        records.push(mark.clone());
    }
    if last < last_seq {
        records.push(Record { seq: last_seq, ..gap(time_unix_micros) });
    }
    records
}

/// Whether the attempt had an agent with an assignment, whatever the store knows of it: only such an agent has records.
pub(super) fn had_agent(artifacts: &AgentArtifacts, last_seq: u64) -> bool {
    last_seq > 0 || artifacts.reported().is_some_and(|left| left.last_seq > 0)
}

/// The outcome of an attempt that never had an agent. `known` is what the reconciler knows of it.
pub(super) fn without_agent(artifacts: &AgentArtifacts, known: Option<Outcome>) -> Outcome {
    match artifacts.reported() {
        // A success needs an agent that did something.
        Some(left) if !wire::outcome(left).succeeded() => wire::outcome(left),
        _ => known.unwrap_or_else(|| never_attached(artifacts)),
    }
}

/// The outcome of an attempt whose agent ended before it attached.
fn never_attached(artifacts: &AgentArtifacts) -> Outcome {
    if let End::Seen(seen) = &artifacts.end {
        let outcome = wire::outcome(seen);
        if outcome.reason == Reason::Deadline {
            // Another attempt would have no more time.
            return outcome;
        }
        return Outcome::by_server(
            Reason::LaunchFailed,
            format!("{}, before it attached to a server", seen.message),
            true,
        );
    }
    let detail =
        if artifacts.last_words.is_empty() { String::new() } else { format!(": {}", artifacts.last_words) };
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

#[cfg(test)]
mod tests {
    use sqlflow_launcher::TerminalRecords;
    use sqlflow_proto::agent;
    use sqlflow_proto::record::StatementEnded;

    use super::*;

    /// Ten records, the second a result, the seventh the end of a statement.
    fn succeeded() -> AgentArtifacts {
        let outcome = agent::Outcome {
            reason: agent::outcome::Reason::Succeeded.into(),
            last_seq: 10,
            ..agent::Outcome::default()
        };
        let ended =
            Record { seq: 7, payload: Some(Payload::Ended(StatementEnded::default())), ..Record::default() };
        let terminal_records = TerminalRecords { last_result: 2, records: vec![ended] };
        AgentArtifacts {
            end: End::Reported(outcome),
            terminal_records: Some(terminal_records),
            ..AgentArtifacts::default()
        }
    }

    fn seqs(durable: u64) -> Vec<(u64, bool)> {
        let records = stand_in(&succeeded(), durable, 0);
        records.iter().map(|it| (it.seq, matches!(it.payload, Some(Payload::Gap(_))))).collect()
    }

    #[test]
    fn gaps_stand_for_output_that_is_lost() {
        assert_eq!(seqs(2), [(6, true), (7, false), (10, true)]);
        assert_eq!(seqs(6), [(7, false), (10, true)]);
        assert_eq!(seqs(7), [(10, true)]);
        assert_eq!(seqs(10), []);
    }

    #[test]
    fn records_tell_that_there_was_an_agent() {
        let silent = AgentArtifacts { last_words: "no such server".to_owned(), ..AgentArtifacts::default() };
        assert!(!had_agent(&silent, 0));
        assert!(had_agent(&silent, 1), "the log has some");
        assert!(had_agent(&succeeded(), 0), "its outcome speaks of some");
        let outcome = without_agent(&silent, None);
        assert_eq!((outcome.reason, outcome.retryable), (Reason::LaunchFailed, true));
        assert!(outcome.message.ends_with("no such server"), "{}", outcome.message);
        let cancelled = Outcome::by_server(Reason::Cancelled, "cancelled", false);
        assert_eq!(without_agent(&silent, Some(cancelled.clone())), cancelled);
    }

    /// A Pod past its deadline, killed for memory, evicted: what the platform saw says nothing of records.
    #[test]
    fn an_inferred_outcome_comes_with_a_gap_record() {
        for (wire, reason) in [
            (agent::outcome::Reason::Deadline, Reason::Deadline),
            (agent::outcome::Reason::OutOfMemory, Reason::OutOfMemory),
            (agent::outcome::Reason::Lost, Reason::Lost),
        ] {
            let seen = agent::Outcome { reason: wire.into(), ..agent::Outcome::default() };
            let artifacts = AgentArtifacts { end: End::Seen(seen), ..AgentArtifacts::default() };
            assert_eq!(of_artifacts(&artifacts, 5, None, "").reason, reason);
            assert!(said(&artifacts) > 5, "nobody knows how much it said");
        }
    }

    #[test]
    fn a_deadline_before_an_agent_attached_is_final() {
        let reason = agent::outcome::Reason::Deadline.into();
        let seen = agent::Outcome { reason, message: "too long".to_owned(), ..agent::Outcome::default() };
        let outcome =
            without_agent(&AgentArtifacts { end: End::Seen(seen), ..AgentArtifacts::default() }, None);
        assert_eq!((outcome.reason, outcome.retryable), (Reason::Deadline, false));
    }

    #[test]
    fn nothing_stands_for_a_result_that_is_lost() {
        assert_eq!(seqs(1), []);
        assert_eq!(of_artifacts(&succeeded(), 1, None, "").reason, Reason::Lost);
        assert_eq!(of_artifacts(&succeeded(), 10, None, "").reason, Reason::Succeeded);
    }

    #[test]
    fn what_heartbeats_said_of_memory_is_in_the_inferred_outcome_of_an_agent_that_is_gone() {
        let memory = "; its processes had used up to 900 MiB of memory";
        let message = |artifacts, known| of_artifacts(&artifacts, 0, known, memory).message;
        assert!(message(AgentArtifacts::default(), None).ends_with(memory));
        let killed = agent::Outcome {
            reason: agent::outcome::Reason::OutOfMemory.into(),
            message: "killed for lack of memory".to_owned(),
            ..agent::Outcome::default()
        };
        let seen = AgentArtifacts { end: End::Seen(killed), ..AgentArtifacts::default() };
        assert_eq!(message(seen, None), format!("killed for lack of memory{memory}"));
        let cancelled = Outcome::by_server(Reason::Cancelled, "cancelled", false);
        assert_eq!(message(AgentArtifacts::default(), Some(cancelled)), "cancelled");
    }
}
