//! Cursor of a plain token that is newer than the store's: the store cannot be written on a full disk, or while a
//! stopped process holds it, and reading continues. Pure.

/// The last moves that the store may not have, from the first one's start to the last one's end.
#[derive(Debug, Default)]
pub(super) struct UnsavedCursor(Option<(u64, u64)>);

impl UnsavedCursor {
    /// A page between these positions was delivered.
    pub(super) fn advance(&mut self, from: u64, to: u64) {
        let begin = self.0.map_or(from, |(begin, end)| if end == from { begin } else { from });
        self.0 = Some((begin, to));
    }

    /// The cursor, given the one in the store. A stored cursor outside of the moves belongs to another reader, or to
    /// a restored log.
    pub(super) fn resolve(&mut self, stored: u64) -> u64 {
        match self.0 {
            Some((begin, end)) if (begin..end).contains(&stored) => end,
            _ => {
                self.0 = None;
                stored
            }
        }
    }

    /// Whether the store was found to be behind.
    pub(super) fn is_ahead(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_continues_while_the_store_cannot_be_written() {
        let mut unsaved = UnsavedCursor::default();
        assert_eq!(unsaved.resolve(0), 0);
        unsaved.advance(0, 10);
        assert_eq!(unsaved.resolve(0), 10);
        unsaved.advance(10, 20);
        assert_eq!((unsaved.resolve(0), unsaved.resolve(10)), (20, 20));
        assert!(unsaved.is_ahead());
        assert_eq!(unsaved.resolve(20), 20, "the store has caught up");
        assert!(!unsaved.is_ahead());
    }

    #[test]
    fn records_of_another_server_count() {
        let mut unsaved = UnsavedCursor::default();
        unsaved.advance(10, 20);
        assert_eq!(unsaved.resolve(30), 30, "it was read further elsewhere");
        unsaved.advance(10, 20);
        assert_eq!(unsaved.resolve(5), 5, "the log was restored");
        assert_eq!(unsaved.resolve(10), 10, "and that is not forgotten");
    }
}
