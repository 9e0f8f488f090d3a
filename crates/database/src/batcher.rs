//! When a batch is complete. Pure: the caller reads the clock.

use std::time::Duration;

/// Bounds of a batch. Its last row may exceed the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of rows in the first batch.
    pub first_rows: usize,
    /// Maximum number of rows in each other batch.
    pub rows: usize,
    /// Size in bytes.
    pub bytes: usize,
    /// In SQLite, which cannot be woken while it waits for a row: number of rows after which the clock is read. That takes as
    /// long as reading two numbers.
    pub timed_rows: usize,
}

/// Number of rows after which the clock is read where a slow query is noticed otherwise. Reading it costs as much as reading
/// a value.
pub(crate) const CLOCK_ROWS: usize = 64;

impl Limits {
    /// For results that people look at: the first rows of a slow query arrive early.
    pub const SHOWN: Self = Self { first_rows: 100, rows: 4096, bytes: 512 << 10, timed_rows: 1 };
    /// For results that are only computed with.
    pub const COMPUTED: Self = Self { first_rows: 65_536, rows: 65_536, bytes: 4 << 20, timed_rows: 16 };
}

/// Maximum size of a row in bytes, as MySQL's `max_allowed_packet` has by default.
pub(crate) const MAX_ROW: usize = 64 << 20;
/// Maximum time for which the rows of a slow query wait for more rows.
pub(crate) const MAX_DELAY: Duration = Duration::from_millis(200);

/// Counts the rows of the batch that is being filled.
#[derive(Debug)]
pub(crate) struct Batcher {
    rows: usize,
    bytes: usize,
    max_rows: usize,
    limits: Limits,
}

impl Batcher {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { rows: 0, bytes: 0, max_rows: limits.first_rows, limits }
    }

    /// Adds a row of this size.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.rows += 1;
        self.bytes += bytes;
    }

    /// Number of rows in the batch.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether the next row's time matters.
    pub(crate) fn is_timed(&self) -> bool {
        self.rows.is_multiple_of(self.limits.timed_rows)
    }

    /// Whether the batch is complete, when this time has passed since its first row.
    pub(crate) fn is_full(&self, age: Duration) -> bool {
        self.rows >= self.max_rows || self.bytes >= self.limits.bytes || (self.rows > 0 && age >= MAX_DELAY)
    }

    /// Begins the next batch.
    pub(crate) fn next(&mut self) {
        (self.rows, self.bytes, self.max_rows) = (0, 0, self.limits.rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_row_is_timed_and_then_each_or_some() {
        let timed = |limits| {
            let mut batcher = Batcher::new(limits);
            let rows = (0..40).filter(|_| {
                let is_timed = batcher.is_timed();
                batcher.add(8);
                is_timed
            });
            rows.collect::<Vec<_>>()
        };
        assert_eq!(timed(Limits::SHOWN).len(), 40);
        assert_eq!(timed(Limits::COMPUTED), [0, 16, 32]);
    }

    #[test]
    fn old_batch_is_full_unless_it_is_empty() {
        let mut batcher = Batcher::new(Limits::COMPUTED);
        assert!(!batcher.is_full(MAX_DELAY));
        batcher.add(8);
        assert!(batcher.is_full(MAX_DELAY));
        assert!(!batcher.is_full(Duration::ZERO));
    }
}
