//! When a batch is complete. Pure: the caller reads the clock.

use std::time::Duration;

/// Maximum number of rows in a batch.
pub(crate) const BATCH_ROWS: usize = 4096;
/// Size of a batch in bytes, which the last row may exceed.
pub(crate) const BATCH_BYTES: usize = 512 << 10;
/// Maximum size of a row in bytes, as MySQL's `max_allowed_packet` has by default.
pub(crate) const MAX_ROW: usize = 64 << 20;
/// Maximum number of rows in the first batch, so that the first rows of a slow query arrive early.
pub(crate) const FIRST_BATCH_ROWS: usize = 100;
/// Maximum time for which the rows of a slow query wait for more rows.
pub(crate) const MAX_DELAY: Duration = Duration::from_millis(200);

/// Counts the rows of the batch that is being filled.
#[derive(Debug)]
pub(crate) struct Batcher {
    rows: usize,
    bytes: usize,
    max_rows: usize,
}

impl Batcher {
    pub(crate) fn new() -> Self {
        Self { rows: 0, bytes: 0, max_rows: FIRST_BATCH_ROWS }
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
        self.rows >= self.max_rows || self.bytes >= BATCH_BYTES || (self.rows > 0 && age >= MAX_DELAY)
    }

    /// Begins the next batch.
    pub(crate) fn next(&mut self) {
        (self.rows, self.bytes, self.max_rows) = (0, 0, BATCH_ROWS);
    }
}
