//! The records that an append adds, and their positions: pure.

use prost::Message as _;
use sqlflow_proto::record::{Gap, Record, StoredRecord, gap, record::Payload};

use super::summary::{Summary, is_end, is_removable};
use super::{Entry, LogError, Producer, frame};

/// The records that `entries` add to a log with this summary, in order, or the reason to reject all of them. `limit` is
/// the maximum size of an attempt's records that retention does not remove. A result beyond it becomes a gap record
/// with the same seq.
///
/// The job's end closes the log. A reconciler that lost its lease without knowing it may still append records. They are
/// dropped, so that the end is stored once and is the last record. New records of an attempt are rejected as after a
/// seal.
pub(super) fn plan_append(
    summary: &Summary,
    entries: Vec<Entry>,
    limit: u64,
) -> Result<Vec<StoredRecord>, LogError> {
    let mut records = Vec::with_capacity(entries.len());
    // Agents in these entries; more than one is rare.
    let mut seqs: Vec<(Producer, u64)> = Vec::new();
    let mut sealed = None;
    let mut position = summary.last_position;
    let mut kept_bytes = summary.kept_bytes;
    let mut is_closed = summary.is_closed;
    for Entry { producer, mut record } in entries {
        let by_agent = producer.is_agent() && record.seq > 0;
        if by_agent {
            let index = seqs.iter().position(|(known, _)| *known == producer).unwrap_or_else(|| {
                seqs.push((producer, summary.last_seq(producer)));
                seqs.len() - 1
            });
            let last = &mut seqs[index].1;
            if record.seq <= *last {
                continue;
            }
            if record.seq > *last + 1 && !stands_for_earlier(&record) {
                return Err(LogError::Gap { producer, expected: *last + 1, got: record.seq });
            }
            *last = record.seq;
            if is_closed || summary.is_sealed(producer) {
                sealed = Some(LogError::Sealed { producer });
            }
        }
        if is_closed {
            continue;
        }
        is_closed = is_end(&record);
        position += 1;
        if by_agent && is_result(&record) && kept_bytes + record.encoded_len() as u64 > limit {
            record = not_taken(&record);
        }
        let is_kept = !is_removable(&record);
        let Producer { step, attempt, rank } = producer;
        let stored = StoredRecord { position, step, attempt, rank, record: Some(record), shift: 0 };
        if by_agent && is_kept {
            kept_bytes += frame::record_len(&stored);
        }
        records.push(stored);
    }
    match sealed {
        Some(error) => Err(error),
        None => Ok(records),
    }
}

/// Whether the limit applies. Other records are small and few.
fn is_result(record: &Record) -> bool {
    matches!(
        record.payload,
        Some(Payload::Head(_) | Payload::Rows(_) | Payload::Metrics(_) | Payload::Display(_))
    )
}

/// Whether the record stands for all missing records before it, because their agent is lost.
fn stands_for_earlier(record: &Record) -> bool {
    let Some(Payload::Gap(gap)) = &record.payload else { return false };
    matches!(gap.reason(), gap::Reason::AgentLost | gap::Reason::LogRestored)
}

fn not_taken(record: &Record) -> Record {
    let gap = Gap { reason: gap::Reason::Limit.into(), bytes: Some(record.encoded_len() as u64) };
    Record { payload: Some(Payload::Gap(gap)), ..record.clone() }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::record::{Notice, Output, notice};
    use sqlflow_proto::v1::EncodedRows;

    use super::super::summary::{SealedAttempt, is_of_limit};
    use super::*;

    const NO_LIMIT: u64 = u64::MAX;

    fn agent(step: u32, attempt: u32) -> Producer {
        Producer { step, attempt, rank: 0 }
    }

    fn said(step: u32, attempt: u32, seq: u64) -> Entry {
        let payload = Some(Payload::Output(Output::default()));
        Entry { producer: agent(step, attempt), record: Record { seq, payload, ..Record::default() } }
    }

    fn rows(seq: u64) -> Entry {
        let payload = Some(Payload::Rows(EncodedRows { count: 100, ..EncodedRows::default() }));
        Entry { producer: agent(0, 1), record: Record { seq, payload, ..Record::default() } }
    }

    fn notice() -> Entry {
        let payload = Some(Payload::Notice(Notice { text: "it waits".to_owned(), ..Notice::default() }));
        Entry { producer: Producer::server(0), record: Record { payload, ..Record::default() } }
    }

    fn after(entries: Vec<Entry>) -> Summary {
        let mut summary = Summary::default();
        for record in plan_append(&Summary::default(), entries, NO_LIMIT).unwrap() {
            summary.note(&record, frame::record_len(&record));
        }
        summary
    }

    fn planned(summary: &Summary, entries: Vec<Entry>) -> Vec<(u64, u32, u64)> {
        let records = plan_append(summary, entries, NO_LIMIT).unwrap();
        records.iter().map(|it| (it.position, it.attempt, it.record.as_ref().unwrap().seq)).collect()
    }

    #[test]
    fn positions_increase_and_duplicates_are_dropped() {
        let summary = after(vec![said(0, 1, 1), notice(), said(0, 1, 2)]);
        assert_eq!(
            planned(
                &summary,
                vec![said(0, 1, 1), said(0, 1, 2), said(0, 1, 3), said(0, 1, 3), notice(), said(0, 2, 1)]
            ),
            [(4, 1, 3), (5, 0, 0), (6, 2, 1)]
        );
    }

    #[test]
    fn ranks_number_separately_and_are_sealed_together() {
        let by_rank = |rank, seq| Entry { producer: Producer { rank, ..agent(0, 1) }, ..said(0, 1, seq) };
        let mut summary = after(vec![by_rank(0, 1), by_rank(1, 1), by_rank(1, 2)]);
        assert_eq!(
            planned(&summary, vec![by_rank(1, 2), by_rank(0, 2), by_rank(2, 1)]),
            [(4, 1, 2), (5, 1, 1)]
        );
        let refused = plan_append(&summary, vec![by_rank(0, 3)], NO_LIMIT);
        assert!(matches!(refused, Err(LogError::Gap { expected: 2, got: 3, .. })));
        summary.note_seal(SealedAttempt { step: 0, attempt: 1 });
        for rank in 0..3 {
            let refused = plan_append(
                &summary,
                vec![by_rank(rank, 3 - u64::from(rank == 0) - 2 * u64::from(rank == 2))],
                NO_LIMIT,
            );
            assert!(matches!(refused, Err(LogError::Sealed { .. })), "rank {rank}: {refused:?}");
        }
    }

    #[test]
    fn skipped_record_rejects_all() {
        let summary = after(vec![said(0, 1, 1)]);
        let refused = plan_append(&summary, vec![said(0, 1, 2), said(0, 1, 4)], NO_LIMIT);
        assert!(matches!(refused, Err(LogError::Gap { expected: 3, got: 4, .. })));
        let refused = plan_append(&summary, vec![said(0, 2, 2)], NO_LIMIT);
        assert!(matches!(refused, Err(LogError::Gap { expected: 1, .. })), "seqs belong to one attempt");
    }

    #[test]
    fn gap_of_lost_agent_stands_for_all_missing() {
        let summary = after(vec![said(0, 1, 1)]);
        let gap = |reason: gap::Reason, seq| {
            let payload = Some(Payload::Gap(Gap { reason: reason.into(), bytes: None }));
            Entry { producer: agent(0, 1), record: Record { seq, payload, ..Record::default() } }
        };
        assert_eq!(
            planned(&summary, vec![gap(gap::Reason::AgentLost, 5), said(0, 1, 6)]),
            [(2, 1, 5), (3, 1, 6)]
        );
        assert_eq!(planned(&summary, vec![gap(gap::Reason::AgentLost, 1)]), []);
        assert_eq!(planned(&summary, vec![gap(gap::Reason::LogRestored, 9)]), [(2, 1, 9)]);
        let refused = plan_append(&summary, vec![gap(gap::Reason::Drain, 5)], NO_LIMIT);
        assert!(matches!(refused, Err(LogError::Gap { .. })));
    }

    #[test]
    fn sealed_attempt_accepts_only_duplicates() {
        let mut summary = after(vec![said(0, 1, 1)]);
        summary.note_seal(SealedAttempt { step: 0, attempt: 1 });
        assert_eq!(planned(&summary, vec![said(0, 1, 1)]), []);
        assert!(matches!(
            plan_append(&summary, vec![said(0, 1, 2)], NO_LIMIT),
            Err(LogError::Sealed { producer: Producer { step: 0, attempt: 1, rank: 0 } })
        ));
        assert!(matches!(plan_append(&summary, vec![said(0, 1, 3)], NO_LIMIT), Err(LogError::Gap { .. })));
        let about_it = Entry { producer: agent(0, 1), ..notice() };
        assert_eq!(planned(&summary, vec![about_it, said(0, 2, 1)]), [(2, 1, 0), (3, 2, 1)]);
    }

    #[test]
    fn end_is_stored_once_and_last() {
        let end = || {
            let notice = Notice { kind: notice::Kind::End.into(), text: "the job succeeded".to_owned() };
            let record = Record { payload: Some(Payload::Notice(notice)), ..Record::default() };
            Entry { producer: Producer::server(0), record }
        };
        let about_it = || Entry { producer: agent(0, 1), ..notice() };
        let opened = after(vec![said(0, 1, 1)]);
        assert_eq!(planned(&opened, vec![notice(), end(), end(), notice()]), [(2, 0, 0), (3, 0, 0)]);
        let closed = after(vec![said(0, 1, 1), end()]);
        assert_eq!(planned(&closed, vec![end(), notice(), about_it(), said(0, 1, 1)]), []);
        let refused = plan_append(&closed, vec![said(0, 1, 2)], NO_LIMIT);
        assert!(matches!(
            refused,
            Err(LogError::Sealed { producer: Producer { step: 0, attempt: 1, rank: 0 } })
        ));
    }

    #[test]
    fn full_log_replaces_results_by_gaps() {
        let summary = after(vec![rows(1)]);
        let records =
            plan_append(&summary, vec![rows(2), said(0, 1, 3), notice()], summary.kept_bytes + 1).unwrap();
        let gaps: Vec<_> = records.iter().map(|it| is_of_limit(it.record.as_ref().unwrap())).collect();
        assert_eq!(gaps, [true, false, false]);
        assert_eq!(records[0].record.as_ref().unwrap().seq, 2);
    }
}
