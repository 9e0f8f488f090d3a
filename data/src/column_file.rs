//! Column files: the rows of a select in a file of the workspace, for another program.
//!
//! The file has no name and goes with its last descriptor. It is a sequence of Arrow IPC streams. A column has one type in
//! a stream; where a batch has another type, as SQLite allows, a new stream begins. So no type is decided by early rows.
//!
//! Memory is bounded by one batch.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use arrow_array::{ArrayRef, NullArray, RecordBatch, RecordBatchOptions};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use sqlflow_database::{Batch, Column, Error, Limits, Results, Values};

mod union;

/// Key of a field's metadata; `decimal` marks texts that are exact decimals.
const KIND: &str = "kind";

/// A stream of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// Offset of its first byte.
    pub offset: u64,
    /// Number of its rows.
    pub rows: u64,
}

/// Writes the rows of a select.
pub struct ColumnFile<'a> {
    columns: Vec<Column>,
    types: Vec<DataType>,
    schema: SchemaRef,
    file: File,
    writer: Option<StreamWriter<Counted>>,
    streams: Vec<Stream>,
    written: u64,
    max_bytes: u64,
    has_result: bool,
    /// Called with the number of rows so far.
    on_rows: &'a mut dyn FnMut(u64) -> io::Result<()>,
}

/// What was written.
pub struct WrittenFile {
    /// The file.
    pub file: File,
    /// Its columns; `None`: the statement returned no result set.
    pub columns: Option<Vec<Column>>,
    /// Its streams.
    pub streams: Vec<Stream>,
}

impl<'a> ColumnFile<'a> {
    /// Creates the file in the working folder.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn create(max_bytes: u64, on_rows: &'a mut dyn FnMut(u64) -> io::Result<()>) -> io::Result<Self> {
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let file = File::from(open(".", flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        Ok(Self {
            columns: Vec::new(),
            types: Vec::new(),
            schema: Arc::new(Schema::empty()),
            file,
            writer: None,
            streams: Vec::new(),
            written: 0,
            max_bytes,
            has_result: false,
            on_rows,
        })
    }

    /// Ends the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> Result<WrittenFile, Error> {
        self.end_stream()?;
        let columns = self.has_result.then_some(self.columns);
        Ok(WrittenFile { file: self.file, columns, streams: self.streams })
    }

    fn end_stream(&mut self) -> Result<(), Error> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let counted = writer.into_inner().map_err(|error| self.cannot_write(&error))?;
        self.written += counted.finish().map_err(|error| self.cannot_write(&error))?;
        Ok(())
    }

    fn begin_stream(&mut self, types: Vec<DataType>, kinds: &[bool]) -> Result<(), Error> {
        self.end_stream()?;
        let fields = self.columns.iter().zip(&types).zip(kinds).map(|((column, kind), is_decimal)| {
            let field = Field::new(&column.name, kind.clone(), true);
            let kind = is_decimal.then(|| (KIND.to_owned(), "decimal".to_owned()));
            field.with_metadata(kind.into_iter().collect::<HashMap<_, _>>())
        });
        self.schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let file = self.file.try_clone().map_err(|error| self.cannot_write(&error.into()))?;
        let writer = StreamWriter::try_new(Counted::new(file), &self.schema);
        self.writer = Some(writer.map_err(|error| self.cannot_write(&error))?);
        self.types = types;
        self.streams.push(Stream { offset: self.written, rows: 0 });
        Ok(())
    }

    fn cannot_write(&self, error: &ArrowError) -> Error {
        let cause = match error {
            ArrowError::IoError(_, error) => error.to_string(),
            other => other.to_string(),
        };
        Error::user(format!("cannot store the rows of the select in the workspace: {cause}"))
    }
}

impl Results for ColumnFile<'_> {
    fn limits(&self) -> Limits {
        Limits::COMPUTED
    }

    fn result_set(&mut self, columns: &[Column]) -> Result<(), Error> {
        if self.has_result {
            return Err(Error::user("cannot read the select: it returns several result sets"));
        }
        self.has_result = true;
        columns.clone_into(&mut self.columns);
        Ok(())
    }

    fn batch(&mut self, batch: Batch) -> Result<(), Error> {
        let kinds: Vec<bool> = batch.columns.iter().map(|it| matches!(it, Values::Decimals(_))).collect();
        let arrays: Vec<ArrayRef> = batch.columns.into_iter().map(|it| array(it, batch.rows)).collect();
        let types: Vec<DataType> = arrays.iter().map(|it| it.data_type().clone()).collect();
        if self.writer.is_none() || types != self.types {
            self.begin_stream(types, &kinds)?;
        }
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let options = RecordBatchOptions::new().with_row_count(Some(batch.rows));
        let wrote = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .and_then(|batch| writer.write(&batch));
        let size = self.written + writer.get_ref().count;
        wrote.map_err(|error| self.cannot_write(&error))?;
        if size > self.max_bytes {
            return Err(Error::user(format!(
                "cannot store the rows of the select in the workspace: they have more than {} bytes; select fewer rows \
                 or columns",
                self.max_bytes
            )));
        }
        if let Some(stream) = self.streams.last_mut() {
            stream.rows += batch.rows as u64;
        }
        let rows = self.streams.iter().map(|stream| stream.rows).sum();
        (self.on_rows)(rows).map_err(|error| Error::undelivered(format!("cannot report progress: {error}")))
    }

    fn changed(&mut self, _: Option<u64>) {}
}

fn array(values: Values, rows: usize) -> ArrayRef {
    match values {
        Values::Null => Arc::new(NullArray::new(rows)),
        Values::Bools(array) => Arc::new(array),
        Values::Ints(array) => Arc::new(array),
        Values::Uints(array) => Arc::new(array),
        Values::Floats(array) => Arc::new(array),
        Values::Texts(array) | Values::Decimals(array) => Arc::new(array),
        Values::Blobs(array) => Arc::new(array),
        Values::Dates(array) => Arc::new(array),
        Values::Timestamps(array) => Arc::new(array),
        Values::Instants(array) => Arc::new(array.with_timezone("UTC")),
        Values::Mixed(values) => union::array(&values),
    }
}

/// A buffered file that counts what is written.
struct Counted {
    file: BufWriter<File>,
    count: u64,
}

impl Counted {
    fn new(file: File) -> Self {
        Self { file: BufWriter::with_capacity(1 << 20, file), count: 0 }
    }

    /// The number of bytes that were written.
    fn finish(mut self) -> Result<u64, ArrowError> {
        self.file.flush()?;
        Ok(self.count)
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
