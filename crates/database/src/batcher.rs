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
}

impl Limits {
    /// For results that people look at: the first rows of a slow query arrive early.
    pub const SHOWN: Self = Self { first_rows: 100, rows: 4096, bytes: 512 << 10 };
    /// For results that are only computed with.
    pub const COMPUTED: Self = Self { first_rows: 65_536, rows: 65_536, bytes: 4 << 20 };
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

    /// Whether the batch is complete, when this time has passed since its first row.
    pub(crate) fn is_full(&self, age: Duration) -> bool {
        self.rows >= self.max_rows || self.bytes >= self.limits.bytes || (self.rows > 0 && age >= MAX_DELAY)
    }

    /// Begins the next batch.
    pub(crate) fn next(&mut self) {
        (self.rows, self.bytes, self.max_rows) = (0, 0, self.limits.rows);
    }
}
