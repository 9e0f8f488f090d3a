//! Offsets of positions in a segment, within [`SPACING`] bytes.

/// Distance of entries in bytes, and the maximum number of bytes that are read in excess.
pub(super) const SPACING: u64 = 64 * 1024;

/// A sparse index of a segment: 16 bytes for each [`SPACING`] bytes, 2 KiB for 8 MiB.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// Positions and offsets of frames, both increasing.
    places: Vec<(u64, u64)>,
}

impl Index {
    /// Adds a record. Records are added in order; duplicates have no effect.
    pub(super) fn note(&mut self, position: u64, offset: u64) {
        if self.places.last().is_none_or(|(_, last)| offset >= last + SPACING) {
            self.places.push((position, offset));
        }
    }

    /// Offset of a frame at or before the first record after position `after`; `None`: the beginning.
    pub(super) fn locate(&self, after: u64) -> Option<u64> {
        let count = self.places.partition_point(|(position, _)| *position <= after.saturating_add(1));
        Some(self.places.get(count.checked_sub(1)?)?.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_is_at_or_before_record() {
        let mut index = Index::default();
        // Every second position is missing, as after compaction.
        let records: Vec<_> = (1..5_000_u64).map(|n| (2 * n, 40 + n * 100)).collect();
        for (position, offset) in &records {
            index.note(*position, *offset);
        }
        assert_eq!(index.locate(0), None);
        for after in 2..9_990 {
            let wanted = records.iter().find(|(position, _)| *position > after).unwrap().1;
            let found = index.locate(after).unwrap();
            assert!(found <= wanted && wanted - found <= SPACING + 100, "after {after}");
        }
    }
}
