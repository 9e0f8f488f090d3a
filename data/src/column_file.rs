//! Column files: the rows of a select in a file of the workspace, for another program.
//!
//! The file has no name and goes with its last descriptor. It is a sequence of Arrow IPC streams. A column has one type in
//! a stream; where a batch has another type, as SQLite allows, a new stream begins. So no type is decided by early rows.
//! The other program reads each batch as soon as it is reported.
//!
//! Memory is bounded by one batch.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use arrow_array::{ArrayRef, NullArray, RecordBatch, RecordBatchOptions};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use nix::fcntl::{OFlag, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use sqlflow_database::{Batch, Column, Error, Limits, Results, Values};

use crate::select_columns::SelectColumns;

mod union;

/// Key of a field's metadata; `decimal` marks texts that are exact decimals.
const KIND: &str = "kind";

/// Writes the rows of a select.
pub struct ColumnFile<'a> {
    columns: SelectColumns,
    schema: SchemaRef,
    file: File,
    writer: Option<StreamWriter<Counted>>,
    rows: u64,
    /// Size of the streams that have ended.
    written: u64,
    max_bytes: u64,
    report: &'a mut dyn FnMut(&File, Written<'_>) -> io::Result<()>,
}

/// What the file has so far.
pub enum Written<'a> {
    /// Its columns are known.
    Columns(&'a [Column]),
    /// More of it can be read.
    Rows {
        /// Number of rows.
        rows: u64,
        /// Its size.
        bytes: u64,
    },
}

impl<'a> ColumnFile<'a> {
    /// Creates the file in the working folder. `report` is called when it has more.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn create(
        max_bytes: u64,
        report: &'a mut dyn FnMut(&File, Written<'_>) -> io::Result<()>,
    ) -> io::Result<Self> {
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let file = File::from(open(".", flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        Ok(Self {
            columns: SelectColumns::default(),
            schema: Arc::new(Schema::empty()),
            file,
            writer: None,
            rows: 0,
            written: 0,
            max_bytes,
            report,
        })
    }

    /// Ends the file. Returns the number of its rows.
    ///
    /// # Errors
    /// It cannot be written, or the statement returned no result set.
    pub fn finish(mut self) -> Result<u64, Error> {
        self.end_stream()?;
        std::mem::take(&mut self.columns).finish()?;
        self.report(Written::Rows { rows: self.rows, bytes: self.written })?;
        Ok(self.rows)
    }

    fn report(&mut self, written: Written<'_>) -> Result<(), Error> {
        (self.report)(&self.file, written)
            .map_err(|error| Error::undelivered(format!("cannot report progress: {error}")))
    }

    fn end_stream(&mut self) -> Result<(), Error> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let counted = writer.into_inner().map_err(|error| self.cannot_write(&error))?;
        self.written += counted.finish().map_err(|error| self.cannot_write(&error))?;
        Ok(())
    }

    fn begin_stream(&mut self, schema: SchemaRef) -> Result<(), Error> {
        self.end_stream()?;
        let file = self.file.try_clone().map_err(|error| self.cannot_write(&error.into()))?;
        let writer = StreamWriter::try_new(Counted::new(file), &schema);
        self.writer = Some(writer.map_err(|error| self.cannot_write(&error))?);
        self.schema = schema;
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
        self.columns.begin(columns)?;
        self.report(Written::Columns(columns))
    }

    fn batch(&mut self, batch: Batch) -> Result<(), Error> {
        let arrays = arrays(&batch);
        let schema = schema_of(self.columns.get(), &batch.columns, &arrays);
        if self.writer.is_none() || schema != self.schema {
            self.begin_stream(schema)?;
        }
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let wrote =
            record_batch(Arc::clone(&self.schema), arrays, batch.rows).and_then(|batch| writer.write(&batch));
        let wrote = wrote.and_then(|()| writer.flush());
        let bytes = self.written + writer.get_ref().count;
        wrote.map_err(|error| self.cannot_write(&error))?;
        if bytes > self.max_bytes {
            return Err(Error::user(format!(
                "cannot store the rows of the select in the workspace: they have more than {} bytes; select fewer rows \
                 or columns",
                self.max_bytes
            )));
        }
        self.rows += batch.rows as u64;
        self.report(Written::Rows { rows: self.rows, bytes })
    }

    fn changed(&mut self, _: Option<u64>) {}
}

/// Writes one batch to memory, as a stream of its own. The memory goes with its last descriptor.
///
/// # Errors
/// There is no memory.
pub fn in_memory(columns: &[Column], batch: &Batch) -> Result<File, Error> {
    let cannot = |cause: String| Error::undelivered(format!("cannot pass rows to the submitter: {cause}"));
    let file = memfd_create("rows", MFdFlags::MFD_CLOEXEC).map_err(|error| cannot(error.to_string()))?;
    let file = File::from(file);
    let arrays = arrays(batch);
    let schema = schema_of(columns, &batch.columns, &arrays);
    let write = || {
        let mut writer = StreamWriter::try_new(BufWriter::with_capacity(1 << 20, &file), &schema)?;
        writer.write(&record_batch(Arc::clone(&schema), arrays, batch.rows)?)?;
        writer.finish()?;
        writer.into_inner()?.flush().map_err(ArrowError::from)
    };
    write().map_err(|error| cannot(error.to_string()))?;
    Ok(file)
}

fn arrays(batch: &Batch) -> Vec<ArrayRef> {
    batch.columns.iter().map(|it| array(it, batch.rows)).collect()
}

fn record_batch(schema: SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_new_with_options(schema, arrays, &RecordBatchOptions::new().with_row_count(Some(rows)))
}

/// The schema of a batch.
fn schema_of(columns: &[Column], values: &[Values], arrays: &[ArrayRef]) -> SchemaRef {
    let fields = columns.iter().zip(values).zip(arrays).map(|((column, values), array)| {
        let field = Field::new(&column.name, array.data_type().clone(), true);
        let is_decimal = matches!(values, Values::Decimals(_));
        let kind = is_decimal.then(|| (KIND.to_owned(), "decimal".to_owned()));
        field.with_metadata(kind.into_iter().collect::<HashMap<_, _>>())
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The array of a column. It shares the memory of the values.
fn array(values: &Values, rows: usize) -> ArrayRef {
    match values {
        Values::Null => Arc::new(NullArray::new(rows)),
        Values::Bools(array) => Arc::new(array.clone()),
        Values::Ints(array) => Arc::new(array.clone()),
        Values::Uints(array) => Arc::new(array.clone()),
        Values::Floats(array) => Arc::new(array.clone()),
        Values::Texts(array) | Values::Decimals(array) => Arc::new(array.clone()),
        Values::Blobs(array) => Arc::new(array.clone()),
        Values::Dates(array) => Arc::new(array.clone()),
        Values::Timestamps(array) => Arc::new(array.clone()),
        Values::Instants(array) => Arc::new(array.clone().with_timezone("UTC")),
        Values::Mixed(values) => union::array(values),
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

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use arrow_array::{Int64Array, StringArray};
    use arrow_ipc::reader::StreamReader;
    use sqlflow_database::Value;

    use super::*;

    fn column(name: &str) -> Column {
        Column { name: name.to_owned(), database_type: String::new(), kind: None }
    }

    /// Writes batches of one column. Returns the file, and its rows and its size after each report.
    fn write(batches: Vec<(usize, Values)>, max_bytes: u64) -> Result<(File, Vec<(u64, u64)>), Error> {
        let (mut passed, mut reports) = (None, Vec::new());
        let mut report = |file: &File, written: Written<'_>| {
            match written {
                Written::Columns(columns) => {
                    assert_eq!(columns, [column("a")]);
                    passed = Some(file.try_clone()?);
                }
                Written::Rows { rows, bytes } => {
                    // All of it can be read.
                    assert_eq!(file.metadata()?.len(), bytes);
                    reports.push((rows, bytes));
                }
            }
            Ok(())
        };
        let mut file = ColumnFile::create(max_bytes, &mut report).unwrap();
        file.result_set(&[column("a")])?;
        for (rows, values) in batches {
            file.batch(Batch { rows, columns: vec![values] })?;
        }
        assert_eq!(file.finish()?, reports.last().unwrap().0);
        Ok((passed.unwrap(), reports))
    }

    fn texts() -> StringArray {
        StringArray::from(vec![Some("1.50"), None])
    }

    /// Decimals and texts are the same arrays, and differ in the metadata of their column.
    #[test]
    fn stream_begins_where_a_column_changes_its_type() {
        let ints = || Values::Ints(Int64Array::from(vec![1, 2]));
        let mixed = Values::Mixed(vec![Value::Int(1), Value::Text("x".to_owned())]);
        let batches = vec![
            (2, ints()),
            (2, ints()),
            (2, Values::Decimals(texts())),
            (2, Values::Texts(texts())),
            (3, Values::Null),
            (2, mixed),
        ];
        let (mut file, reports) = write(batches, 1 << 20).unwrap();
        assert_eq!(reports.iter().map(|it| it.0).collect::<Vec<_>>(), [2, 4, 6, 8, 11, 13, 13]);
        let size = reports.last().unwrap().1;
        let (mut found, mut rows) = (Vec::new(), Vec::new());
        file.rewind().unwrap();
        while file.stream_position().unwrap() < size {
            let reader = StreamReader::try_new(&file, None).unwrap();
            let field = reader.schema().field(0).clone();
            rows.push(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>());
            found.push((field.data_type().to_string(), field.metadata().get(KIND).cloned()));
        }
        assert_eq!(rows, [4, 2, 2, 3, 2]);
        let decimal = Some("decimal".to_owned());
        assert_eq!(found[0], ("Int64".to_owned(), None));
        assert_eq!(found[1..3], [("Utf8".to_owned(), decimal), ("Utf8".to_owned(), None)]);
        assert_eq!(found[3], ("Null".to_owned(), None));
        assert!(found[4].0.starts_with("Union"), "{found:?}");
    }

    #[test]
    fn file_beyond_its_limit_is_an_error() {
        let error = write(vec![(2, Values::Texts(texts()))], 100).expect_err("it has more than 100 bytes");
        assert!(error.message.contains("more than 100 bytes; select fewer rows"), "{error}");
    }

    #[test]
    fn statement_without_a_result_set_is_an_error() {
        let mut report = |_: &File, _: Written<'_>| panic!("there is nothing to read");
        let file = ColumnFile::create(100, &mut report).unwrap();
        let error = file.finish().expect_err("there is nothing to read");
        assert_eq!(error.message, "cannot read the select: it returns no result set; write a SELECT");
    }
}
