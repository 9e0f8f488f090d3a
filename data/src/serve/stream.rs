//! The select of a statement as a stream of batches. The submitter computes columns for each batch while the next one is
//! read, and the table gets both.
//!
//! Memory is bounded by [`MAX_AHEAD`] batches: a batch is sent when the submitter needs an earlier one no more. A batch is
//! passed as a file in memory, so that sending never blocks: the submitter may be sending columns at the same time.

use sqlflow_database::{Batch, Column, Error, Limits, Results};

use super::{Failure, ResultWriter, Server, Work, protocol};
use crate::column_file;
use crate::link::Link;
use crate::requests::{Answer, Described, Request, Select};
use crate::select_columns::SelectColumns;

/// Maximum number of batches that the submitter has.
const MAX_AHEAD: usize = 2;

impl Server<'_> {
    pub(super) fn stream(&mut self, max_rows: usize, work: &mut Work) -> Result<(), Failure> {
        let mut sink = Sink {
            link: &mut self.link,
            result: work.result.as_mut(),
            max_rows: max_rows.clamp(1, Limits::COMPUTED.rows),
            columns: SelectColumns::default(),
            ahead: 0,
            rows: 0,
            failure: None,
        };
        let read = self.database.read(self.statement.select_of(Select::Statement), &mut sink);
        if let Some(failure) = sink.failure.take() {
            return Err(failure);
        }
        read?;
        sink.wait_until_ahead(0)?;
        let rows = sink.rows;
        sink.columns.finish()?;
        Ok(self.link.send(&Answer::End(rows))?)
    }
}

struct Sink<'a> {
    link: &'a mut Link,
    result: Option<&'a mut ResultWriter>,
    max_rows: usize,
    columns: SelectColumns,
    /// Number of batches that the submitter has.
    ahead: usize,
    rows: u64,
    /// Why the select was ended.
    failure: Option<Failure>,
}

impl Sink<'_> {
    fn send(&mut self, batch: Batch) -> Result<(), Failure> {
        let file = column_file::in_memory(self.columns.get(), &batch)?;
        self.wait_until_ahead(MAX_AHEAD - 1)?;
        self.link.send_file(&Answer::Batch(batch.rows), &file)?;
        self.ahead += 1;
        self.rows += batch.rows as u64;
        if let Some(result) = &mut self.result {
            result.add_batch(batch);
        }
        Ok(())
    }

    /// Waits until the submitter has no more than this number of batches, and writes what it has computed.
    fn wait_until_ahead(&mut self, count: usize) -> Result<(), Failure> {
        while self.ahead > count {
            match (self.link.next()?, &mut self.result) {
                (Some(Request::Rows { rows, bytes }), Some(result)) => {
                    result.rows(self.link, rows, bytes)?;
                }
                (Some(Request::Taken), result) => {
                    self.ahead -= 1;
                    if let Some(result) = result {
                        result.end_batch()?;
                    }
                }
                (Some(_), _) => return Err(protocol("it is not one of a stream")),
                (None, _) => return Err(Failure::Ended),
            }
        }
        Ok(())
    }

    /// Ends the select.
    fn end(&mut self, failure: Failure) -> Error {
        self.failure = Some(failure);
        Error::undelivered("cannot use the rows")
    }
}

impl Results for Sink<'_> {
    fn limits(&self) -> Limits {
        Limits { first_rows: self.max_rows, rows: self.max_rows, ..Limits::COMPUTED }
    }

    fn result_set(&mut self, columns: &[Column]) -> Result<(), Error> {
        self.columns.begin(columns)?;
        let described = columns.iter().map(Described::new).collect();
        let sent = self.link.send(&Answer::Columns(described));
        sent.map_err(|error| self.end(error.into()))
    }

    fn batch(&mut self, batch: Batch) -> Result<(), Error> {
        self.send(batch).map_err(|failure| self.end(failure))
    }

    fn changed(&mut self, _: Option<u64>) {}
}
