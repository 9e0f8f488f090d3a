//! Terminal records, for the termination message of a Pod whose other records are lost: the few that say what became of
//! a statement or model, and the position of the last result. They hold no data, so they may be in a Pod's status.

use std::collections::VecDeque;

use sqlflow_proto::record::{Record, record::Payload};

/// Maximum number, which is more than fits into a termination message.
const LIMIT: usize = 32;

/// Unacknowledged terminal records. Pure; at most 32 records without data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TerminalRecords {
    /// Sequence number of the last record with a result, even if it is acknowledged; 0: there was none.
    pub last_result: u64,
    /// Starts and ends of statements, and models, in order.
    pub records: VecDeque<Record>,
}

impl TerminalRecords {
    /// Adds a record.
    pub fn note(&mut self, record: &Record) {
        match record.payload {
            Some(Payload::Started(_) | Payload::Ended(_) | Payload::Model(_))
                if self.records.len() < LIMIT =>
            {
                self.records.push_back(record.clone());
            }
            Some(
                Payload::Head(_)
                | Payload::Rows(_)
                | Payload::Display(_)
                | Payload::Started(_)
                | Payload::Ended(_)
                | Payload::Model(_),
            ) => self.last_result = record.seq,
            Some(
                Payload::Output(_)
                | Payload::Progress(_)
                | Payload::Metrics(_)
                | Payload::Gap(_)
                | Payload::Notice(_),
            )
            | None => {}
        }
    }

    /// Drops records: a server holds everything up to `seq`.
    pub fn ack(&mut self, seq: u64) {
        while self.records.front().is_some_and(|record| record.seq <= seq) {
            self.records.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::record::{Output, StatementEnded};
    use sqlflow_proto::v1::EncodedRows;

    use super::*;

    fn record(seq: u64, payload: Payload) -> Record {
        Record { seq, payload: Some(payload), ..Record::default() }
    }

    #[test]
    fn terminal_records_are_kept_until_acknowledged() {
        let mut terminal_records = TerminalRecords::default();
        terminal_records.note(&record(1, Payload::Rows(EncodedRows::default())));
        terminal_records.note(&record(2, Payload::Ended(StatementEnded::default())));
        terminal_records.note(&record(3, Payload::Output(Output::default())));
        assert_eq!((terminal_records.last_result, terminal_records.records.len()), (1, 1));
        terminal_records.ack(1);
        assert_eq!((terminal_records.last_result, terminal_records.records.len()), (1, 1));
        terminal_records.ack(2);
        assert!(terminal_records.records.is_empty());
    }

    #[test]
    fn record_beyond_the_limit_counts_as_a_result() {
        let mut terminal_records = TerminalRecords::default();
        for seq in 1..=40 {
            terminal_records.note(&record(seq, Payload::Ended(StatementEnded::default())));
        }
        assert_eq!((terminal_records.last_result, terminal_records.records.len()), (40, LIMIT));
    }
}
