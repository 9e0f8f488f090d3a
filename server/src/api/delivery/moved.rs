//! Cursor of a plain token that is newer than the store's: the store cannot be written on a full disk, or while a
//! stopped process holds it, and reading continues. Pure.

/// The last moves that the store may not have, from the first one's start to the last one's end.
#[derive(Debug, Default)]
pub(super) struct Moved(Option<(u64, u64)>);

impl Moved {
    /// A page between these positions was delivered.
    pub(super) fn to(&mut self, from: u64, to: u64) {
        let begin = self.0.map_or(from, |(begin, end)| if end == from { begin } else { from });
        self.0 = Some((begin, to));
    }

    /// The cursor, given the one in the store. A stored cursor outside of the moves belongs to another reader, or to
    /// a restored log.
    pub(super) fn place(&mut self, stored: u64) -> u64 {
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
        let mut moved = Moved::default();
        assert_eq!(moved.place(0), 0);
        moved.to(0, 10);
        assert_eq!(moved.place(0), 10);
        moved.to(10, 20);
        assert_eq!((moved.place(0), moved.place(10)), (20, 20));
        assert!(moved.is_ahead());
        assert_eq!(moved.place(20), 20, "the store has caught up");
        assert!(!moved.is_ahead());
    }

    #[test]
    fn records_of_another_server_count() {
        let mut moved = Moved::default();
        moved.to(10, 20);
        assert_eq!(moved.place(30), 30, "it was read further elsewhere");
        moved.to(10, 20);
        assert_eq!(moved.place(5), 5, "the log was restored");
        assert_eq!(moved.place(10), 10, "and that is not forgotten");
    }
}
