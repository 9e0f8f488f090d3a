//! The summary of a log: what an append must know about all earlier records. Each segment begins with the summary of
//! all records before it, so that opening a log reads its last segment only.
//!
//! Memory: about 40 bytes for each agent of each attempt, 6 for each step of the job, and 12 for each start of a server
//! during the job.

use sqlflow_job::{Evidence, StatementEnds};
use sqlflow_proto::record::{Record, StoredRecord, gap, notice, record::Payload};

use super::Producer;
use super::reader_positions::{self, Shift};

/// The summary of a log's records. In files it is this protobuf message.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Summary {
    /// The last position; 0: none.
    #[prost(uint64, tag = "1")]
    pub(super) last_position: u64,
    /// In order of step, attempt and rank.
    #[prost(message, repeated, tag = "2")]
    producers: Vec<ProducerSummary>,
    /// In order of step.
    #[prost(message, repeated, tag = "3")]
    steps: Vec<StepSummary>,
    /// Total size of all frames so far that retention may remove.
    #[prost(uint64, tag = "4")]
    pub(super) removable_bytes: u64,
    /// Total size of all frames so far that retention does not remove.
    #[prost(uint64, tag = "5")]
    pub(super) kept_bytes: u64,
    /// Whether a result was not stored, because the log had reached its limit.
    #[prost(bool, tag = "6")]
    pub(super) is_full: bool,
    /// Whether the job's end is in the log. It is the last record.
    #[prost(bool, tag = "7")]
    pub(super) is_closed: bool,
    /// Whether records were lost by damage, so that their content is not known.
    #[prost(bool, tag = "8")]
    pub(super) is_damaged: bool,
    /// The shifts of the positions that readers see.
    #[prost(message, repeated, tag = "9")]
    pub(super) shifts: Vec<Shift>,
    /// Whether the ends of statements were counted from the first record on. Earlier versions did not count them.
    #[prost(bool, tag = "10")]
    counts_ends: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProducerSummary {
    #[prost(uint32, tag = "1")]
    step: u32,
    #[prost(uint32, tag = "2")]
    attempt: u32,
    #[prost(uint64, tag = "3")]
    last_seq: u64,
    /// Whether the attempt is sealed. Only rank 0 has it.
    #[prost(bool, tag = "4")]
    sealed: bool,
    #[prost(uint32, tag = "5")]
    rank: u32,
    /// The first and the last statement of [`StatementEnds`].
    #[prost(uint32, optional, tag = "6")]
    first_ended: Option<u32>,
    #[prost(uint32, optional, tag = "7")]
    last_ended: Option<u32>,
    /// Whether records are missing that a server had acknowledged.
    #[prost(bool, tag = "8")]
    lost_records: bool,
}

impl ProducerSummary {
    fn producer(&self) -> Producer {
        Producer { step: self.step, attempt: self.attempt, rank: self.rank }
    }

    fn statement_ends(&self) -> StatementEnds {
        if self.lost_records {
            return StatementEnds::unknown();
        }
        StatementEnds::of(self.first_ended.zip(self.last_ended))
    }

    fn set_statement_ends(&mut self, ends: StatementEnds) {
        self.lost_records = ends.is_incomplete();
        (self.first_ended, self.last_ended) = ends.range().unzip();
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct StepSummary {
    #[prost(uint32, tag = "1")]
    step: u32,
    #[prost(bool, tag = "2")]
    rows: bool,
}

/// A sealed attempt, with all its ranks.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct SealedAttempt {
    #[prost(uint32, tag = "1")]
    pub(super) step: u32,
    #[prost(uint32, tag = "2")]
    pub(super) attempt: u32,
}

impl SealedAttempt {
    pub(super) fn producer(self) -> Producer {
        Producer { step: self.step, attempt: self.attempt, rank: 0 }
    }
}

impl Summary {
    /// The summary of a log of which only the last position is known.
    pub(super) fn at(last_position: u64) -> Self {
        Self { last_position, ..Self::default() }
    }

    /// Adds a record, which takes `frame_bytes` in its file.
    pub(super) fn note(&mut self, stored: &StoredRecord, frame_bytes: u64) {
        self.counts_ends |= self.last_position == 0;
        self.last_position = stored.position;
        reader_positions::add_shift(&mut self.shifts, stored.position, stored.shift);
        let Some(record) = &stored.record else { return };
        if is_removable(record) {
            self.removable_bytes += frame_bytes;
        } else {
            self.kept_bytes += frame_bytes;
        }
        let producer = Producer::of(stored);
        if producer.is_agent() && record.seq > 0 {
            self.producer_mut(producer).last_seq = record.seq;
        }
        if producer.is_agent() {
            self.note_statement_ends(producer, record);
        }
        match &record.payload {
            Some(Payload::Head(_) | Payload::Rows(_)) => self.step_mut(stored.step).rows = true,
            // An entry without rows means that a statement started.
            Some(Payload::Started(_) | Payload::Ended(_)) => {
                self.step_mut(stored.step);
            }
            Some(Payload::Gap(_)) if is_of_limit(record) => {
                self.is_full = true;
                self.step_mut(stored.step).rows = true;
            }
            Some(Payload::Notice(_)) if is_end(record) => self.is_closed = true,
            // The missing records may include the start of a statement, and rows.
            Some(Payload::Gap(gap)) if gap.reason() == gap::Reason::LogRestored => {
                self.step_mut(stored.step).rows = true;
            }
            Some(
                Payload::Output(_)
                | Payload::Progress(_)
                | Payload::Metrics(_)
                | Payload::Display(_)
                | Payload::Gap(_)
                | Payload::Notice(_)
                | Payload::Model(_),
            )
            | None => {}
        }
    }

    /// The last position that readers see.
    pub(super) fn reader_last_position(&self) -> u64 {
        reader_positions::to_readers(&self.shifts, self.last_position)
    }

    pub(super) fn note_seal(&mut self, seal: SealedAttempt) {
        self.producer_mut(seal.producer()).sealed = true;
    }

    /// The producer's last seq; 0: none.
    pub(super) fn last_seq(&self, producer: Producer) -> u64 {
        self.producer(producer).map_or(0, |it| it.last_seq)
    }

    /// The last seq of each rank of the producer's attempt.
    pub(super) fn last_seqs(&self, of: Producer) -> impl Iterator<Item = (Producer, u64)> {
        let all = self.producers.iter().map(|it| (it.producer(), it.last_seq));
        all.filter(move |(it, _)| (it.step, it.attempt) == (of.step, of.attempt))
    }

    /// Whether the producer's attempt is sealed.
    pub(super) fn is_sealed(&self, producer: Producer) -> bool {
        self.producer(Producer { rank: 0, ..producer }).is_some_and(|it| it.sealed)
    }

    pub(super) fn evidence(&self, step: u32) -> Evidence {
        if self.is_damaged {
            // The lost records may include a start or rows, and no statement may be repeated on a guess.
            return Evidence { started: true, rows: true };
        }
        match self.steps.binary_search_by_key(&step, |it| it.step) {
            Ok(index) => Evidence { started: true, rows: self.steps[index].rows },
            Err(_) => Evidence::default(),
        }
    }

    /// The ends of statements that the producer recorded.
    pub(super) fn statement_ends(&self, producer: Producer) -> StatementEnds {
        if self.is_damaged || (!self.counts_ends && self.last_position > 0) {
            return StatementEnds::unknown();
        }
        self.recorded_ends(producer)
    }

    fn recorded_ends(&self, producer: Producer) -> StatementEnds {
        self.producer(producer).map_or_else(StatementEnds::default, ProducerSummary::statement_ends)
    }

    fn note_statement_ends(&mut self, producer: Producer, record: &Record) {
        let before = self.recorded_ends(producer);
        let mut ends = before;
        note_ends(&mut ends, record);
        if ends != before {
            self.producer_mut(producer).set_statement_ends(ends);
        }
    }

    fn producer(&self, producer: Producer) -> Option<&ProducerSummary> {
        let index = self.producers.binary_search_by_key(&producer, ProducerSummary::producer).ok()?;
        self.producers.get(index)
    }

    fn producer_mut(&mut self, producer: Producer) -> &mut ProducerSummary {
        let index = match self.producers.binary_search_by_key(&producer, ProducerSummary::producer) {
            Ok(index) => index,
            Err(index) => {
                let Producer { step, attempt, rank } = producer;
                let new = ProducerSummary { step, attempt, rank, ..ProducerSummary::default() };
                self.producers.insert(index, new);
                index
            }
        };
        &mut self.producers[index]
    }

    fn step_mut(&mut self, step: u32) -> &mut StepSummary {
        let index = match self.steps.binary_search_by_key(&step, |it| it.step) {
            Ok(index) => index,
            Err(index) => {
                self.steps.insert(index, StepSummary { step, rows: false });
                index
            }
        };
        &mut self.steps[index]
    }
}

/// Adds what the record of an agent says about the ends of its statements.
pub fn note_ends(ends: &mut StatementEnds, record: &Record) {
    if let (Some(Payload::Ended(_)), Some(statement)) = (&record.payload, record.statement) {
        ends.note(statement);
    }
    // It stands for records that may have been ends: the log was restored from an older copy, or the agent's disk was
    // damaged.
    if let Some(Payload::Gap(gap)) = &record.payload
        && matches!(gap.reason(), gap::Reason::LogRestored | gap::Reason::Damaged)
    {
        ends.lose();
    }
}

/// Whether the record stands for a result that was not stored.
pub(super) fn is_of_limit(record: &Record) -> bool {
    matches!(&record.payload, Some(Payload::Gap(gap)) if gap.reason() == gap::Reason::Limit)
}

/// Whether the record is the job's end.
pub(super) fn is_end(record: &Record) -> bool {
    matches!(&record.payload, Some(Payload::Notice(notice)) if notice.kind() == notice::Kind::End)
}

/// Whether retention may remove the record: output, and progress that newer progress replaces.
pub(super) fn is_removable(record: &Record) -> bool {
    match &record.payload {
        Some(Payload::Output(_) | Payload::Progress(_)) => true,
        Some(Payload::Gap(gap)) => gap.reason() == gap::Reason::Retention,
        Some(
            Payload::Head(_)
            | Payload::Rows(_)
            | Payload::Started(_)
            | Payload::Ended(_)
            | Payload::Metrics(_)
            | Payload::Display(_)
            | Payload::Notice(_)
            | Payload::Model(_),
        )
        | None => false,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use sqlflow_proto::record::{Output, StatementEnded, StatementStarted};
    use sqlflow_proto::v1::Head;

    use super::*;

    fn agent((step, attempt): (u32, u32)) -> Producer {
        Producer { step, attempt, rank: 0 }
    }

    fn stored(position: u64, step: u32, attempt: u32, seq: u64, payload: Payload) -> StoredRecord {
        let record = Record { seq, payload: Some(payload), ..Record::default() };
        StoredRecord { position, step, attempt, record: Some(record), ..StoredRecord::default() }
    }

    /// A backup may miss a statement that was executed. It must not be executed again.
    #[test]
    fn records_missing_after_restore_count_as_statement_and_rows() {
        let mut summary = Summary::default();
        let gap = sqlflow_proto::record::Gap { reason: gap::Reason::LogRestored.into(), bytes: None };
        summary.note(&stored(1, 0, 1, 9, Payload::Gap(gap)), 10);
        assert_eq!(summary.evidence(0), Evidence { started: true, rows: true });
    }

    fn ended(position: u64, seq: u64, statement: u32) -> StoredRecord {
        let mut stored = stored(position, 0, 1, seq, Payload::Ended(StatementEnded::default()));
        stored.record.as_mut().unwrap().statement = Some(statement);
        stored
    }

    #[test]
    fn ends_are_counted_for_each_attempt() {
        let mut summary = Summary::default();
        summary.note(&ended(1, 1, 0), 10);
        let mut summary = Summary::decode(summary.encode_to_vec().as_slice()).unwrap();
        summary.note(&ended(2, 2, 1), 10);
        assert_eq!(summary.statement_ends(agent((0, 1))), StatementEnds::of(Some((0, 1))));
        assert_eq!(summary.statement_ends(agent((0, 2))), StatementEnds::default());
        for reason in [gap::Reason::LogRestored, gap::Reason::Damaged] {
            let mut summary = summary.clone();
            let gap = sqlflow_proto::record::Gap { reason: reason.into(), bytes: None };
            summary.note(&stored(3, 0, 1, 9, Payload::Gap(gap)), 10);
            assert_eq!(summary.statement_ends(agent((0, 1))), StatementEnds::unknown());
            assert_eq!(summary.statement_ends(agent((0, 2))), StatementEnds::default());
        }
    }

    /// Its first records were counted by a server that did not know ends.
    #[test]
    fn ends_in_a_log_of_an_earlier_version_are_unknown() {
        let mut summary = Summary { last_position: 7, ..Summary::default() };
        summary.note(&ended(8, 1, 1), 10);
        assert_eq!(summary.statement_ends(agent((0, 1))), StatementEnds::unknown());
    }

    #[test]
    fn summary_survives_encoding() {
        let mut summary = Summary::default();
        summary.note(&stored(1, 3, 1, 1, Payload::Started(StatementStarted {})), 10);
        summary.note(&stored(2, 0, 2, 1, Payload::Head(Head::default())), 20);
        summary.note(&stored(3, 0, 2, 2, Payload::Output(Output::default())), 30);
        summary.note_seal(SealedAttempt { step: 3, attempt: 1 });
        let summary = Summary::decode(summary.encode_to_vec().as_slice()).unwrap();
        assert_eq!([(3, 1), (0, 2), (0, 1)].map(|it| summary.last_seq(agent(it))), [1, 2, 0]);
        assert!(summary.is_sealed(agent((3, 1))) && !summary.is_sealed(agent((0, 2))));
        assert_eq!(summary.evidence(3), Evidence { started: true, rows: false });
        assert_eq!(summary.evidence(0), Evidence { started: true, rows: true });
        assert_eq!(summary.evidence(1), Evidence::default());
        assert_eq!((summary.last_position, summary.removable_bytes, summary.kept_bytes), (3, 30, 30));
    }
}
