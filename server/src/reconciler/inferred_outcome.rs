//! Outcome of an attempt whose agent did not report one. It is inferred from the agent's artifacts and from the log.

use sqlflow_job::{Outcome, Reason};
use sqlflow_launcher::{AgentArtifacts, End};
use sqlflow_proto::record::{Gap, Record, gap, record::Payload};

use crate::agent_outcome;

/// Inferred outcome of an attempt that had an agent, with `last_seq` durable records. `known` is an outcome that the
/// reconciler knows better than the artifacts do (the attempt was cancelled). `memory` is the peak memory use from
/// heartbeats, see [`crate::memory_peaks::MemoryPeaks::in_words`].
pub(super) fn of_artifacts(
    artifacts: &AgentArtifacts,
    last_seq: u64,
    known: Option<Outcome>,
    memory: &str,
) -> Outcome {
    let unreported = |mut found: Outcome| {
        found.message.push_str(memory);
        known.unwrap_or(found)
    };
    let reported = match &artifacts.end {
        End::Reported(reported) => reported,
        End::ReportedByPlatform(seen) => return unreported(agent_outcome::from_wire(seen)),
        End::Unknown => return unreported(lost(&artifacts.log_tail)),
    };
    let outcome = agent_outcome::from_wire(reported);
    if outcome.succeeded() && reported.last_seq > last_seq {
        // A success requires that every result is durable.
        return Outcome::by_server(
            Reason::Lost,
            "results lost: the program succeeded, but its agent ended before its results were delivered",
            true,
        );
    }
    outcome
}

/// Last sequence number that the attempt's agent sent. Without a report it is unknown, so it is the highest possible
/// one.
pub(super) fn last_sent_seq(artifacts: &AgentArtifacts) -> u64 {
    artifacts.reported().map_or(u64::MAX, |reported| reported.last_seq)
}

/// Records to log in place of an attempt's undelivered output, if only its terminal records are left: those after
/// `durable`, with a gap record for each range between them. Empty if a result is lost.
pub(super) fn replacement_records(
    artifacts: &AgentArtifacts,
    durable: u64,
    time_unix_micros: i64,
) -> Vec<Record> {
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

/// Whether the attempt had an agent with an assignment, even if the store does not know it. Only such an agent has
/// records.
pub(super) fn had_agent(artifacts: &AgentArtifacts, last_seq: u64) -> bool {
    last_seq > 0 || artifacts.reported().is_some_and(|reported| reported.last_seq > 0)
}

/// Outcome of an attempt that never had an agent. `known` is what the reconciler knows of it.
pub(super) fn without_agent(artifacts: &AgentArtifacts, known: Option<Outcome>) -> Outcome {
    match artifacts.reported() {
        // A success requires an agent that executed something.
        Some(reported) if !agent_outcome::from_wire(reported).succeeded() => {
            agent_outcome::from_wire(reported)
        }
        _ => known.unwrap_or_else(|| never_attached(artifacts)),
    }
}

/// Outcome of an attempt whose agent ended before it attached.
fn never_attached(artifacts: &AgentArtifacts) -> Outcome {
    if let End::ReportedByPlatform(seen) = &artifacts.end {
        let outcome = agent_outcome::from_wire(seen);
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
        if artifacts.log_tail.is_empty() { String::new() } else { format!(": {}", artifacts.log_tail) };
    Outcome::by_server(
        Reason::LaunchFailed,
        format!("the agent ended before it attached to a server{detail}"),
        true,
    )
}

fn lost(log_tail: &str) -> Outcome {
    let mut outcome = Outcome::by_server(
        Reason::Lost,
        "the agent was killed, and the program with it, before it could report how it ended",
        true,
    );
    outcome.detail = log_tail.to_owned();
    outcome
}

/// Record that replaces an agent's undelivered output.
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

    /// Ten records: the second is a result, the seventh the end of a statement.
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
        let records = replacement_records(&succeeded(), durable, 0);
        records.iter().map(|it| (it.seq, matches!(it.payload, Some(Payload::Gap(_))))).collect()
    }

    #[test]
    fn gap_records_replace_lost_output() {
        assert_eq!(seqs(2), [(6, true), (7, false), (10, true)]);
        assert_eq!(seqs(6), [(7, false), (10, true)]);
        assert_eq!(seqs(7), [(10, true)]);
        assert_eq!(seqs(10), []);
    }

    #[test]
    fn records_prove_an_agent() {
        let silent = AgentArtifacts { log_tail: "no such server".to_owned(), ..AgentArtifacts::default() };
        assert!(!had_agent(&silent, 0));
        assert!(had_agent(&silent, 1), "the log has some");
        assert!(had_agent(&succeeded(), 0), "its outcome names some");
        let outcome = without_agent(&silent, None);
        assert_eq!((outcome.reason, outcome.retryable), (Reason::LaunchFailed, true));
        assert!(outcome.message.ends_with("no such server"), "{}", outcome.message);
        let cancelled = Outcome::by_server(Reason::Cancelled, "cancelled", false);
        assert_eq!(without_agent(&silent, Some(cancelled.clone())), cancelled);
    }

    /// What the platform observed (deadline exceeded, OOM kill, eviction) says nothing about records.
    #[test]
    fn inferred_outcome_implies_a_gap_record() {
        for (wire, reason) in [
            (agent::outcome::Reason::Deadline, Reason::Deadline),
            (agent::outcome::Reason::OutOfMemory, Reason::OutOfMemory),
            (agent::outcome::Reason::Lost, Reason::Lost),
        ] {
            let seen = agent::Outcome { reason: wire.into(), ..agent::Outcome::default() };
            let artifacts =
                AgentArtifacts { end: End::ReportedByPlatform(seen), ..AgentArtifacts::default() };
            assert_eq!(of_artifacts(&artifacts, 5, None, "").reason, reason);
            assert!(last_sent_seq(&artifacts) > 5, "the number of its records is unknown");
        }
    }

    #[test]
    fn deadline_before_attach_is_not_retryable() {
        let reason = agent::outcome::Reason::Deadline.into();
        let seen = agent::Outcome { reason, message: "too long".to_owned(), ..agent::Outcome::default() };
        let outcome = without_agent(
            &AgentArtifacts { end: End::ReportedByPlatform(seen), ..AgentArtifacts::default() },
            None,
        );
        assert_eq!((outcome.reason, outcome.retryable), (Reason::Deadline, false));
    }

    #[test]
    fn lost_result_has_no_replacement_records() {
        assert_eq!(seqs(1), []);
        assert_eq!(of_artifacts(&succeeded(), 1, None, "").reason, Reason::Lost);
        assert_eq!(of_artifacts(&succeeded(), 10, None, "").reason, Reason::Succeeded);
    }

    #[test]
    fn inferred_outcome_contains_peak_memory_from_heartbeats() {
        let memory = "; its processes had used up to 900 MiB of memory";
        let message = |artifacts, known| of_artifacts(&artifacts, 0, known, memory).message;
        assert!(message(AgentArtifacts::default(), None).ends_with(memory));
        let killed = agent::Outcome {
            reason: agent::outcome::Reason::OutOfMemory.into(),
            message: "killed for lack of memory".to_owned(),
            ..agent::Outcome::default()
        };
        let seen = AgentArtifacts { end: End::ReportedByPlatform(killed), ..AgentArtifacts::default() };
        assert_eq!(message(seen, None), format!("killed for lack of memory{memory}"));
        let cancelled = Outcome::by_server(Reason::Cancelled, "cancelled", false);
        assert_eq!(message(AgentArtifacts::default(), Some(cancelled)), "cancelled");
    }
}
