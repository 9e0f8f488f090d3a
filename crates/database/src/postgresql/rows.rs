//! The rows of a result set, collected into batches.

use std::time::{Duration, Instant};

use super::binary::{BinaryColumn, Form};
use super::frames::{FrameError, MAX_FRAME};
use super::messages::{self, Cells, Field};
use super::types;
use crate::batcher::{Batcher, CLOCK_ROWS, Limits, MAX_DELAY};
use crate::printed::{self, Decoder, PrintedColumn};
use crate::{Batch, Column, Values};

/// The values of one column of the batch that is being filled.
enum Cell {
    Printed(PrintedColumn, Decoder),
    Binary(BinaryColumn),
}

impl Cells for Cell {
    fn push(&mut self, value: &[u8]) -> Option<usize> {
        match self {
            Self::Printed(column, _) => {
                column.push(value);
                Some(0)
            }
            Self::Binary(column) => column.push(value),
        }
    }

    fn push_null(&mut self) {
        match self {
            Self::Printed(column, _) => column.push_null(),
            Self::Binary(column) => column.push_null(),
        }
    }
}

impl Cell {
    fn take(&mut self) -> Values {
        match self {
            Self::Printed(column, decoder) => printed::decode(&column.take(), *decoder),
            Self::Binary(column) => column.take(),
        }
    }
}

/// A result set that is being received.
pub(super) struct RowReader {
    columns: Vec<Cell>,
    batcher: Batcher,
    /// When the first row of the batch arrived.
    since: Instant,
}

impl RowReader {
    /// For printed values.
    pub(super) fn new(fields: &[Field], limits: Limits) -> Self {
        Self::with(fields.iter().map(printed_cell).collect(), limits)
    }

    /// For values in binary form, of the columns whose type has one.
    pub(super) fn binary(fields: &[Field], limits: Limits) -> Self {
        let cell = |field: &Field| match Form::of(field.oid) {
            Some(form) => Cell::Binary(BinaryColumn::new(form)),
            None => printed_cell(field),
        };
        Self::with(fields.iter().map(cell).collect(), limits)
    }

    fn with(columns: Vec<Cell>, limits: Limits) -> Self {
        Self { columns, batcher: Batcher::new(limits), since: Instant::now() }
    }

    /// Adds a DataRow. Returns a batch that is complete.
    pub(super) fn add(&mut self, body: &[u8]) -> Result<Option<Batch>, FrameError> {
        if self.batcher.rows() == 0 {
            self.since = Instant::now();
        }
        let size = messages::add_row(body, &mut self.columns).ok_or(FrameError::Malformed)?;
        if size > MAX_FRAME {
            return Err(FrameError::TooLong(size));
        }
        self.batcher.add(size);
        // `time_left` limits the wait for a slow query.
        let reads_clock = self.batcher.rows().is_multiple_of(CLOCK_ROWS);
        let age = if reads_clock { self.since.elapsed() } else { Duration::ZERO };
        Ok(self.batcher.is_full(age).then(|| self.take()))
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
        let batch =
            Batch { rows: self.batcher.rows(), columns: self.columns.iter_mut().map(Cell::take).collect() };
        self.batcher.next();
        batch
    }
}

fn printed_cell(field: &Field) -> Cell {
    Cell::Printed(PrintedColumn::default(), types::decoder(field))
}

/// Describes the columns of a result set.
pub(super) fn columns(fields: &[Field]) -> Vec<Column> {
    fields.iter().map(types::column).collect()
}
