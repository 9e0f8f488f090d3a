//! Reading of a damaged file: pure. Each frame has a checksum. After damage, the next good frame is found by a search
//! for the next offset with a valid one.

use bytes::Bytes;
use sqlflow_proto::record::{Gap, Record, StoredRecord, gap, record::Payload};

use super::frame::{Content, Frames, HEADER, Next, PREFIX, SHORTEST_RECORD};
use super::reader_positions::{self, MAX_SHIFT};
use super::summary::{SealedAttempt, Summary};

/// Result of reading a damaged file.
#[derive(Debug, Default)]
pub(super) struct Salvaged {
    /// Summary of all records before the file.
    pub(super) head: Option<Summary>,
    /// Records in order of position, with gap records for missing ones.
    pub(super) records: Vec<StoredRecord>,
    pub(super) seals: Vec<SealedAttempt>,
    /// Whether bytes changed, or records are missing.
    pub(super) is_damaged: bool,
    /// Whether records are missing.
    pub(super) lost_records: bool,
    /// Whether the last record is missing.
    pub(super) lost_last: bool,
}

/// Reads the good frames of a file with the positions from `first` to `last`. In a file that retention wrote
/// (`is_kept`) positions may be missing without damage.
pub(super) fn salvage(bytes: &Bytes, first: u64, last: u64, is_kept: bool) -> Salvaged {
    let mut found = Salvaged::default();
    let mut end = first.saturating_sub(1);
    let mut offset = if bytes.starts_with(&HEADER) { HEADER.len() } else { 0 };
    found.is_damaged = offset == 0;
    // Whether there is damage after the last good record.
    let mut was_bad = found.is_damaged;
    while offset < bytes.len() {
        let Some((content, next)) = frame_at(bytes, offset) else {
            (found.is_damaged, was_bad) = (true, true);
            offset = resume(bytes, offset);
            continue;
        };
        offset = next;
        match content {
            Content::Summary(summary) if summary.last_position.saturating_add(1) == first => {
                found.head = found.head.or(Some(summary));
            }
            Content::Summary(_) => found.is_damaged = true,
            Content::Seal(seal) => found.seals.push(seal),
            Content::Record(record) if record.position > end && record.position <= last => {
                if record.position > end + 1 && (was_bad || !is_kept) {
                    found.miss(record.position - 1, &record);
                }
                (end, was_bad) = (record.position, false);
                found.records.push(record);
            }
            Content::Record(_) => found.is_damaged = true,
        }
    }
    if end < last && (was_bad || !is_kept) {
        let near = found.records.last().cloned().unwrap_or_default();
        found.miss(last, &near);
        found.lost_last = true;
    }
    found.is_damaged |= found.head.is_none();
    found
}

impl Salvaged {
    /// Adds a gap record for missing records. The last of them has this position; `near` is a neighbour.
    fn miss(&mut self, position: u64, near: &StoredRecord) {
        (self.is_damaged, self.lost_records) = (true, true);
        let payload = Payload::Gap(Gap { reason: gap::Reason::Damaged.into(), bytes: None });
        let record = Record {
            time_unix_micros: near.record.as_ref().map_or(0, |record| record.time_unix_micros),
            payload: Some(payload),
            ..Record::default()
        };
        self.records.push(StoredRecord {
            position,
            // With a lower shift, readers would see the gap a second time.
            shift: near.shift,
            step: near.step,
            record: Some(record),
            ..StoredRecord::default()
        });
    }
}

/// A good record after damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastGood {
    pub(super) position: u64,
    /// End of its frame.
    pub(super) end: usize,
}

/// The last good record at or after `offset` with a position after `after`; `None`: there is none.
///
/// A payload may contain the bytes of a frame. A position is therefore accepted only if the bytes before it have room
/// for all earlier records.
pub(super) fn last_good(bytes: &Bytes, mut offset: usize, after: u64) -> Option<LastGood> {
    let (begin, before) = (offset, after);
    let most = |end: usize| before.saturating_add((end - begin) as u64 / SHORTEST_RECORD);
    let mut last = None;
    let mut after = after;
    while offset < bytes.len() {
        let Some((content, end)) = frame_at(bytes, offset) else {
            offset = resume(bytes, offset);
            continue;
        };
        offset = end;
        if let Content::Record(record) = content
            && record.position > after
            && record.position <= most(end)
        {
            after = record.position;
            last = Some(LastGood { position: after, end });
        }
    }
    last
}

/// The good frame at this offset, and its end.
fn frame_at(bytes: &Bytes, offset: usize) -> Option<(Content, usize)> {
    // Most offsets fail here, which is cheaper than a checksum.
    if !matches!(bytes.get(offset + PREFIX), Some(1..=3)) {
        return None;
    }
    match Frames::new(bytes.slice(offset..), 0).next() {
        Next::Frame(frame) => {
            let end = offset + usize::try_from(frame.len()).ok()?;
            let is_possible = |content: &Content| match content {
                Content::Record(record) => record.shift <= MAX_SHIFT,
                Content::Summary(summary) => reader_positions::are_valid(&summary.shifts),
                Content::Seal(_) => true,
            };
            frame.content().ok().filter(is_possible).map(|content| (content, end))
        }
        Next::End | Next::Partial(_) | Next::Bad(_) => None,
    }
}

/// Offset of the next good frame after a bad one, or the end.
fn resume(bytes: &Bytes, bad: usize) -> usize {
    // In most cases the length is intact, and only the payload is damaged.
    if let Next::Frame(frame) = Frames::new(bytes.slice(bad..), 0).next()
        && let Ok(length) = usize::try_from(frame.len())
        && (bad + length == bytes.len() || frame_at(bytes, bad + length).is_some())
    {
        return bad + length;
    }
    (bad + 1..bytes.len()).find(|&offset| frame_at(bytes, offset).is_some()).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::record::Output;

    use super::super::frame::{push_record, push_seal, push_summary};
    use super::*;

    fn record(position: u64) -> StoredRecord {
        let output = Output { data: Bytes::from(vec![b'x'; 50]), ..Output::default() };
        let record = Record { seq: position, payload: Some(Payload::Output(output)), ..Record::default() };
        StoredRecord { position, step: 1, attempt: 2, record: Some(record), ..StoredRecord::default() }
    }

    fn file() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = HEADER.to_vec();
        push_summary(&mut bytes, &Summary::at(10));
        let mut offsets = Vec::new();
        for position in 11..=15 {
            offsets.push(bytes.len());
            push_record(&mut bytes, &record(position));
        }
        push_seal(&mut bytes, &SealedAttempt { step: 1, attempt: 2 });
        (bytes, offsets)
    }

    fn positions(found: &Salvaged) -> Vec<(u64, bool)> {
        let is_gap = |it: &StoredRecord| matches!(it.record.as_ref().unwrap().payload, Some(Payload::Gap(_)));
        found.records.iter().map(|it| (it.position, is_gap(it))).collect()
    }

    #[test]
    fn whole_file_is_not_damaged() {
        let found = salvage(&file().0.into(), 11, 15, false);
        assert!(!found.is_damaged && !found.lost_records);
        assert_eq!(found.records, (11..=15).map(record).collect::<Vec<_>>());
        assert_eq!((found.seals.len(), found.head.unwrap().last_position), (1, 10));
    }

    #[test]
    fn flipped_bit_loses_one_frame() {
        let (whole, offsets) = file();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let found = salvage(&bytes.into(), 11, 15, false);
            assert!(found.is_damaged, "bit {bit}");
            let gaps = positions(&found).into_iter().filter(|(_, is_gap)| *is_gap).count();
            let in_record = bit / 8 >= offsets[0] && bit / 8 < offsets[4] + (offsets[1] - offsets[0]);
            assert_eq!((gaps, found.lost_records), (usize::from(in_record), in_record), "bit {bit}");
            assert_eq!(positions(&found).iter().map(|it| it.0).collect::<Vec<_>>(), [11, 12, 13, 14, 15]);
        }
    }

    #[test]
    fn truncated_records_become_gap_at_last_position() {
        let (whole, offsets) = file();
        let found = salvage(&whole[..offsets[2] + 5].to_vec().into(), 11, 15, false);
        assert_eq!(positions(&found), [(11, false), (12, false), (15, true)]);
        let found = salvage(&Bytes::new(), 11, 15, false);
        assert_eq!(positions(&found), [(15, true)]);
    }

    /// Printed text may look like a frame. It is found when the frame around it is damaged.
    #[test]
    fn impossible_position_is_rejected() {
        for (forged, believed) in [(u64::MAX, 12), (12 + 1_000, 12), (13, 13)] {
            let mut printed = Vec::new();
            push_record(&mut printed, &record(forged));
            let output = Output { data: Bytes::from(printed), ..Output::default() };
            let around = Record { payload: Some(Payload::Output(output)), ..Record::default() };
            let mut bytes = Vec::new();
            push_record(&mut bytes, &record(12));
            let its_length = bytes.len();
            push_record(&mut bytes, &StoredRecord { record: Some(around), ..record(13) });
            bytes[its_length] ^= 1;
            let last = last_good(&bytes.into(), 0, 11).map(|it| it.position);
            assert_eq!(last, Some(believed), "forged {forged}");
        }
    }

    #[test]
    fn positions_removed_by_retention_are_not_missing() {
        let mut bytes = HEADER.to_vec();
        push_summary(&mut bytes, &Summary::default());
        for position in [3, 8, 9] {
            push_record(&mut bytes, &record(position));
        }
        assert!(!salvage(&bytes.clone().into(), 1, 12, true).is_damaged);
        let middle = bytes.len() - 100;
        bytes[middle] ^= 1;
        let found = salvage(&bytes.into(), 1, 12, true);
        assert_eq!(positions(&found), [(3, false), (8, true), (9, false)]);
    }
}
