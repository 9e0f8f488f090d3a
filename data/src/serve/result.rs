//! The result table of a statement.

use std::collections::VecDeque;

use arrow_array::{BooleanArray, Float64Array, Int64Array, StringArray};
use sqlflow_database::{
    Batch, ComputedColumn, ComputedKind, Error, PassthroughColumns, ResultTable, Value, Values,
};
use sqlflow_proto::agent::submitter_frame::Frame;
use sqlflow_proto::v1::{ColumnType, Head};

use super::{Failure, Server, protocol};
use crate::channel::{Channel, ChannelError, MAX_CONTENT};
use crate::failure::StepError;
use crate::link::Link;
use crate::requests::{Cell, Computed, Other, Write};
use crate::shutdown::Shutdown;

/// Maximum size of computed columns in one request, in bytes.
const MAX_ROWS_BYTES: usize = 64 << 20;

/// A staging table that is being filled.
pub struct ResultWriter {
    table: ResultTable,
    /// Places of the columns of the select that the table keeps.
    passthrough: Vec<usize>,
    computed: Vec<Computed>,
    /// Number of rows for each row of the select.
    copies: usize,
    /// The passthrough columns of the batches that the submitter has.
    batches: VecDeque<Batch>,
    /// Number of rows of the oldest batch that were written.
    written: usize,
    buffer: Vec<u8>,
}

impl ResultWriter {
    pub(super) fn create(server: &mut Server<'_>, write: Write) -> Result<Self, Failure> {
        let Write { passthrough, computed, copies } = write;
        let described = if passthrough.is_empty() {
            Vec::new()
        } else {
            server.database.describe(&server.statement.select)?
        };
        if passthrough.iter().any(|(place, _)| *place >= described.len()) || copies == 0 {
            return Err(protocol("the select has no such column"));
        }
        let selects = server.statement.selects();
        let spec = server.statement.result(&server.step.staging_suffix, &selects);
        let spec = spec.ok_or_else(|| protocol("the statement has no result table"))?;
        server.shutdown.set_leaves_nothing(None);
        let mut table = ResultTable::open(server.database, &spec)?;
        table.set_copies(copies as u64);
        server.shutdown.add_canceller(table.canceller());
        let select = PassthroughColumns {
            select: &server.statement.select,
            columns: &passthrough,
            described: &described,
        };
        let column = |it: &Computed| ComputedColumn { name: it.name.clone(), kind: it.kind };
        let columns: Vec<_> = computed.iter().map(column).collect();
        let created = table.create((!passthrough.is_empty()).then_some(select), &columns);
        let writer = Self {
            table,
            passthrough: passthrough.into_iter().map(|(place, _)| place).collect(),
            computed,
            copies,
            batches: VecDeque::new(),
            written: 0,
            buffer: Vec::new(),
        };
        if let Err(error) = created {
            // If that fails, too, something may remain, and the first error is reported.
            let _ = writer.discard(server.channel, server.shutdown);
            return Err(error.into());
        }
        Ok(writer)
    }

    /// A batch was sent to the submitter.
    pub(super) fn add_batch(&mut self, mut batch: Batch) {
        let columns = self.passthrough.iter().map(|place| batch.columns[*place].clone()).collect();
        batch.columns = columns;
        self.batches.push_back(batch);
    }

    /// The submitter needs the oldest batch no more.
    pub(super) fn end_batch(&mut self) -> Result<(), Failure> {
        let batch = self.batches.pop_front();
        if batch.is_none_or(|batch| batch.rows != self.written) {
            return Err(protocol("a batch has another number of rows"));
        }
        self.written = 0;
        Ok(())
    }

    /// Writes the next rows of the oldest batch, with the computed columns that follow on the link.
    pub(super) fn rows(&mut self, link: &mut Link, rows: usize, bytes: usize) -> Result<(), Failure> {
        if bytes > MAX_ROWS_BYTES {
            return Err(protocol("there are too many rows in it"));
        }
        self.buffer.resize(bytes, 0);
        link.bytes(&mut self.buffer)?;
        let count = rows.checked_mul(self.copies).ok_or_else(|| protocol("there are too many rows"))?;
        let computed = decode(&self.computed, count, &self.buffer)?;
        let passthrough = self.passthrough_columns(rows)?;
        let mut written = 0;
        for Part { row, rows, copies } in parts(&passthrough, rows, self.copies) {
            let count = rows * copies;
            let repeated = passthrough.iter().map(|values| values.slice(row, rows).repeat_each(copies));
            let own = computed.iter().map(|values| values.slice(written, count));
            self.table.insert(&Batch { rows: count, columns: repeated.chain(own).collect() })?;
            written += count;
        }
        Ok(())
    }

    /// The columns of the select in the next rows.
    fn passthrough_columns(&mut self, rows: usize) -> Result<Vec<Values>, Failure> {
        let begin = self.written;
        self.written = begin.saturating_add(rows);
        if self.passthrough.is_empty() {
            return Ok(Vec::new());
        }
        let batch = self.batches.front().ok_or_else(|| protocol("there is no batch"))?;
        if self.written > batch.rows {
            return Err(protocol("there are more rows than in the batch"));
        }
        Ok(batch.columns.iter().map(|values| values.slice(begin, rows)).collect())
    }

    pub(super) fn publication(self, line: String) -> Publication {
        Publication { table: self.table, line }
    }

    /// Drops the staging table.
    pub(super) fn discard(mut self, channel: &Channel, shutdown: &Shutdown) -> Result<(), StepError> {
        drop_staging(&mut self.table, shutdown)?;
        shutdown.set_leaves_nothing(channel.spare());
        Ok(())
    }
}

/// Consecutive rows of the select that are written at once, each so often.
struct Part {
    row: usize,
    rows: usize,
    copies: usize,
}

/// Divides rows such that their texts and byte strings, with all copies, have at most [`MAX_ROWS_BYTES`], or are of one
/// row of the table.
fn parts(passthrough: &[Values], rows: usize, copies: usize) -> Vec<Part> {
    let total: usize = passthrough.iter().map(Values::long_bytes).sum();
    if copies == 1 || total.saturating_mul(copies) <= MAX_ROWS_BYTES {
        return vec![Part { row: 0, rows, copies }];
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut room = 0;
    for row in 0..rows {
        let bytes: usize = passthrough.iter().map(|values| values.slice(row, 1).long_bytes()).sum();
        let needed = bytes.saturating_mul(copies);
        match parts.last_mut() {
            Some(last) if needed <= room => last.rows += 1,
            _ if needed <= MAX_ROWS_BYTES => {
                parts.push(Part { row, rows: 1, copies });
                room = MAX_ROWS_BYTES;
            }
            _ => {
                let at_once = (MAX_ROWS_BYTES / bytes).max(1);
                let begins = (0..copies).step_by(at_once);
                parts.extend(begins.map(|it| Part { row, rows: 1, copies: at_once.min(copies - it) }));
                room = 0;
            }
        }
        room = room.saturating_sub(needed);
    }
    parts
}

fn drop_staging(table: &mut ResultTable, shutdown: &Shutdown) -> Result<(), StepError> {
    shutdown.begin_clean_up();
    // A late cancellation may end the first statement.
    table.clear().or_else(|_| table.clear()).map_err(|error| Error { is_unclear: true, ..error }.into())
}

/// A complete staging table, to be published when the submitter has succeeded.
pub struct Publication {
    table: ResultTable,
    line: String,
}

impl Publication {
    /// Waits for the submitter's success and the grant, and replaces the old table. `report` reports an error.
    ///
    /// # Errors
    /// The table is not published, unless the error is unclear.
    pub fn publish(
        mut self,
        statement: u32,
        channel: &mut Channel,
        shutdown: &Shutdown,
        report: &dyn Fn(&StepError, &mut Channel),
    ) -> Result<(), StepError> {
        if let Err(error) = channel.wait_for_submitter() {
            let error = self.give_up(error.into(), shutdown);
            if !error.is_unclear() {
                shutdown.set_leaves_nothing(channel.spare());
            }
            return Err(error);
        }
        let replaced = match self.table.replaced() {
            Ok(replaced) => replaced,
            Err(error) => return Err(self.give_up(error.into(), shutdown)),
        };
        match channel.commit(statement) {
            Ok(()) => {}
            Err(ChannelError::Io(error)) => {
                // The server may have recorded the grant. As long as the staging table exists, the old table was not
                // replaced: the cleanup says so.
                return Err(error.into());
            }
            Err(refused) => return Err(self.give_up(refused.into(), shutdown)),
        }
        shutdown.begin_clean_up();
        if let Err(error) = self.table.publish() {
            if error.is_unclear {
                return Err(error.into());
            }
            let error = StepError::NotExecuted(Box::new(error.into()));
            // Before the staging table goes: without it and without a report, the table counts as replaced.
            report(&error, channel);
            return Err(match drop_staging(&mut self.table, shutdown) {
                Ok(()) => StepError::Reported(Box::new(error)),
                Err(_) => StepError::Unclear(Box::new(error)),
            });
        }
        if let Some(lost) = replaced {
            crate::print_line(&format!("replaced table {} {lost}", self.table.name()));
        }
        crate::print_line(&self.line);
        Ok(())
    }

    /// Drops the staging table after an error.
    fn give_up(&mut self, error: StepError, shutdown: &Shutdown) -> StepError {
        match drop_staging(&mut self.table, shutdown) {
            Ok(()) => StepError::NotExecuted(Box::new(error)),
            Err(_) => StepError::Unclear(Box::new(error)),
        }
    }
}

/// Sends computed rows to the client.
pub(super) fn show(
    channel: &mut Channel,
    statement: u32,
    names: Vec<String>,
    values: Vec<Vec<Cell>>,
) -> Result<(), Failure> {
    let rows = values.first().map_or(0, Vec::len);
    if values.iter().any(|it| it.len() != rows) {
        return Err(protocol("columns of different lengths"));
    }
    let columns = values.into_iter().map(shown).collect::<Result<Vec<_>, _>>()?;
    let column_types = names.iter().map(|_| ColumnType { database_type: String::new() }).collect();
    let head = Frame::Head(Head { column_names: names, column_types });
    channel.send(Some(statement), head).map_err(StepError::from)?;
    if rows > 0 {
        let encoded = crate::rows::encode(&Batch { rows, columns });
        if encoded.len() > MAX_CONTENT {
            return Err(Error::user(format!(
                "cannot show {rows} rows: they have more than {MAX_CONTENT} bytes"
            ))
            .into());
        }
        channel.send_rows(statement, &encoded).map_err(StepError::from)?;
    }
    Ok(())
}

/// Values of one type stay so.
fn shown(cells: Vec<Cell>) -> Result<Values, Failure> {
    fn text(value: &Value) -> Option<&str> {
        if let Value::Text(text) = value { Some(text) } else { None }
    }
    let values = cells.into_iter().map(value).collect::<Result<Vec<_>, _>>()?;
    let float = |it| if let &Value::Float(number) = it { Some(number) } else { None };
    let int = |it| if let &Value::Int(number) = it { Some(number) } else { None };
    Ok(if let Some(texts) = all(&values, text) {
        Values::Texts(StringArray::from(texts))
    } else if let Some(floats) = all(&values, float) {
        Values::Floats(Float64Array::from(floats))
    } else if let Some(ints) = all(&values, int) {
        Values::Ints(Int64Array::from(ints))
    } else {
        Values::Mixed(values)
    })
}

/// What each value is; `None`: one of them is something else.
fn all<T, U>(values: impl IntoIterator<Item = T>, pick: impl Fn(T) -> Option<U>) -> Option<Vec<U>> {
    values.into_iter().map(pick).collect()
}

fn value(cell: Cell) -> Result<Value, Failure> {
    Ok(match cell {
        Cell::Null(()) => Value::Null,
        Cell::Bool(value) => Value::Int(value.into()),
        Cell::Int(value) => Value::Int(value),
        Cell::Float(value) => Value::Float(value),
        Cell::Text(value) => Value::Text(value),
        Cell::Other(Other::Float(text)) => {
            Value::Float(text.parse().map_err(|_| protocol("a number is malformed"))?)
        }
        Cell::Other(Other::Blob(_)) => return Err(protocol("a byte string cannot be shown")),
    })
}

/// Decodes computed columns: one after the other, little-endian.
fn decode(columns: &[Computed], rows: usize, mut bytes: &[u8]) -> Result<Vec<Values>, Failure> {
    let mut decoded = Vec::with_capacity(columns.len());
    for column in columns {
        let width = if column.values.is_some() { 4 } else { 8 };
        let own = rows.checked_mul(width).and_then(|length| bytes.split_at_checked(length));
        let Some((own, rest)) = own else {
            return Err(protocol("the columns are too short"));
        };
        bytes = rest;
        decoded.push(match &column.values {
            Some(values) => of_places(column.kind, values, own)?,
            None => plain(column.kind, own)?,
        });
    }
    if bytes.is_empty() { Ok(decoded) } else { Err(protocol("the columns are too long")) }
}

fn plain(kind: ComputedKind, bytes: &[u8]) -> Result<Values, Failure> {
    let words = bytes.as_chunks::<8>().0.iter();
    match kind {
        ComputedKind::Float => {
            let numbers = words.map(|it| f64::from_le_bytes(*it)).map(|it| (!it.is_nan()).then_some(it));
            Ok(Values::Floats(numbers.collect()))
        }
        ComputedKind::Int => {
            Ok(Values::Ints(words.map(|it| i64::from_le_bytes(*it)).collect::<Vec<_>>().into()))
        }
        ComputedKind::Bool | ComputedKind::Text => Err(protocol("a column has no values")),
    }
}

/// A column whose rows are places in a list of values.
fn of_places(kind: ComputedKind, values: &[Cell], bytes: &[u8]) -> Result<Values, Failure> {
    fn text(cell: Option<&Cell>) -> Option<&str> {
        if let Some(Cell::Text(text)) = cell { Some(text) } else { None }
    }
    let places = bytes.as_chunks::<4>().0.iter().map(|it| u32::from_le_bytes(*it) as usize);
    let cells = places.map(|it| values.get(it));
    let int = |it| if let Some(&Cell::Int(number)) = it { Some(number) } else { None };
    let bool = |it| if let Some(&Cell::Bool(value)) = it { Some(value) } else { None };
    let found = match kind {
        ComputedKind::Text => all(cells, text).map(|it| Values::Texts(StringArray::from(it))),
        ComputedKind::Int => all(cells, int).map(|it| Values::Ints(Int64Array::from(it))),
        ComputedKind::Bool => all(cells, bool).map(|it| Values::Bools(BooleanArray::from(it))),
        ComputedKind::Float => None,
    };
    found.ok_or_else(|| protocol("a value has another type than its column"))
}
