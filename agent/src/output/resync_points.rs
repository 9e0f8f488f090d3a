//! Offsets of some records in the overflow file. After a lost part, reading resumes at the next one. Pure.

use std::collections::VecDeque;

/// Distance between two starts in a small file.
const MIN_DISTANCE: u64 = 64 << 10;
/// Maximum number of starts for any file size.
const MOST: u64 = 4096;

/// Start of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// Offset in the file.
    pub(super) at: u64,
    /// Sequence number of the record.
    pub(super) seq: u64,
}

/// Starts of records, in order.
#[derive(Debug)]
pub(super) struct Starts {
    distance: u64,
    known: VecDeque<Start>,
}

impl Starts {
    /// For a file of at most `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { distance: (limit / MOST).max(MIN_DISTANCE), known: VecDeque::new() }
    }

    /// Adds a start, if it is far enough from the last one.
    pub(super) fn note(&mut self, start: Start) {
        if self.known.back().is_none_or(|last| start.at - last.at >= self.distance) {
            self.known.push_back(start);
        }
    }

    /// The first start at or after this offset. Drops those before it.
    pub(super) fn from(&mut self, at: u64) -> Option<Start> {
        let before = self.known.partition_point(|it| it.at < at);
        self.known.drain(..before);
        self.known.front().copied()
    }

    /// No record is left.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    /// Moves this offset to the beginning of the file. Drops what was before it.
    pub(super) fn rebase(&mut self, at: u64) {
        self.from(at);
        self.known.iter_mut().for_each(|it| it.at -= at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_starts_is_bounded_for_any_file_size() {
        for limit in [256 << 20, 1 << 40] {
            let mut starts = Starts::new(limit);
            for seq in 0..100_000 {
                starts.note(Start { at: seq * (limit / 100_000), seq });
            }
            assert!(starts.known.len() as u64 <= MOST, "{}", starts.known.len());
            assert!(starts.known.len() > 1000, "{}", starts.known.len());
        }
    }

    #[test]
    fn starts_are_rebased_with_the_file() {
        let mut starts = Starts::new(1 << 20);
        for at in [0, 100, MIN_DISTANCE, 2 * MIN_DISTANCE] {
            starts.note(Start { at, seq: at + 1 });
        }
        assert_eq!(starts.from(1), Some(Start { at: MIN_DISTANCE, seq: MIN_DISTANCE + 1 }));
        starts.rebase(2 * MIN_DISTANCE);
        assert_eq!(starts.from(0), Some(Start { at: 0, seq: 2 * MIN_DISTANCE + 1 }));
        assert_eq!(starts.from(1), None);
    }
}
