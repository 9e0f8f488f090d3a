//! Where in a segment a position is, to within [`SPACING`] bytes.

/// Bytes between two places that an index knows; a reader reads that much too much at the most.
pub(super) const SPACING: u64 = 64 * 1024;

/// A sparse index of one segment: 16 bytes for every [`SPACING`] bytes, 2 KiB for 8 MiB.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// Position and offset of frames, both rising.
    places: Vec<(u64, u64)>,
}

impl Index {
    /// There is a record of this position at this offset. Records come in order; repeats do no harm.
    pub(super) fn note(&mut self, position: u64, offset: u64) {
        if self.places.last().is_none_or(|(_, last)| offset >= last + SPACING) {
            self.places.push((position, offset));
        }
    }

    /// Offset of a frame at or before the first record after position `after`; `None`: begin at the beginning.
    pub(super) fn locate(&self, after: u64) -> Option<u64> {
        let count = self.places.partition_point(|(position, _)| *position <= after.saturating_add(1));
        Some(self.places.get(count.checked_sub(1)?)?.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_leads_behind_the_record() {
        let mut index = Index::default();
        // Every second position is missing, as after a compaction.
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
