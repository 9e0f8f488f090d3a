//! The rows of a result set, collected into batches.

use std::time::{Duration, Instant};

use super::messages::{self, Field};
use super::types;
use crate::batcher::{Batcher, Limits, MAX_DELAY};
use crate::printed::{self, Decoder, PrintedColumn};
use crate::{Batch, Column};

/// A result set that is being received.
pub(super) struct RowReader {
    columns: Vec<PrintedColumn>,
    decoders: Vec<Decoder>,
    batcher: Batcher,
    /// When the first row of the batch arrived.
    since: Instant,
}

impl RowReader {
    pub(super) fn new(fields: &[Field], limits: Limits) -> Self {
        Self {
            columns: fields.iter().map(|_| PrintedColumn::default()).collect(),
            decoders: fields.iter().map(types::decoder).collect(),
            batcher: Batcher::new(limits),
            since: Instant::now(),
        }
    }

    /// Adds a DataRow. Returns a batch that is complete. `None`: the row is malformed.
    pub(super) fn add(&mut self, body: &[u8]) -> Option<Option<Batch>> {
        let now = Instant::now();
        if self.batcher.rows() == 0 {
            self.since = now;
        }
        let size = messages::add_row(body, &mut self.columns)?;
        self.batcher.add(size);
        Some(self.batcher.is_full(now - self.since).then(|| self.take()))
    }

    /// Time for which the rows of the batch may wait for more rows. `None`: there are none.
    pub(super) fn time_left(&self) -> Option<Duration> {
        (self.batcher.rows() > 0).then(|| MAX_DELAY.saturating_sub(self.since.elapsed()))
    }

    /// The remaining rows, if any.
    pub(super) fn rest(&mut self) -> Option<Batch> {
        (self.batcher.rows() > 0).then(|| self.take())
    }

    fn take(&mut self) -> Batch {
        let decode =
            |(column, decoder): (&mut PrintedColumn, &Decoder)| printed::decode(&column.take(), *decoder);
        let batch = Batch {
            rows: self.batcher.rows(),
            columns: self.columns.iter_mut().zip(&self.decoders).map(decode).collect(),
        };
        self.batcher.next();
        batch
    }
}

/// Describes the columns of a result set.
pub(super) fn columns(fields: &[Field]) -> Vec<Column> {
    fields.iter().map(types::column).collect()
}
