//! Requests of the submitter, and their answers.

use serde::{Deserialize, Serialize};
use sqlflow_database::{Column, ComputedKind, Error, ErrorKind, Kind, Value};

/// A request of the submitter. If it fails, the answer is [`Answer::Error`].
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The database's language. Answer: [`Answer::Dialect`].
    Dialect,
    /// Reads a select of the step's statement. The answers are [`Answer::ColumnFile`] with a file, [`Answer::Rows`] as it
    /// grows, and [`Answer::End`].
    Read(Select),
    /// Describes a select. Answer: [`Answer::Columns`].
    Describe(Query),
    /// Asks for some values of a column that are not NULL. Answer: [`Answer::Values`].
    Sample {
        /// The select.
        query: Query,
        /// The column.
        column: String,
        /// The type of the values, in SQLite.
        of_type: Option<String>,
    },
    /// Checks a later statement. Answer: [`Answer::Done`].
    Check {
        /// Index of the statement.
        statement: u32,
        /// Only the syntax.
        syntax_only: bool,
        /// Whether an earlier statement may drop tables.
        may_drop: bool,
    },
    /// Checks the syntax of a select of a later statement. Answer: [`Answer::Done`].
    CheckSelect(Query),
    /// Runs a statement that changes a setting, in a session for checks. Answer: [`Answer::IsSet`].
    Set {
        /// Index of the statement.
        statement: u32,
    },
    /// Asks what functions and triggers of a statement may do. Answer: [`Answer::Effects`].
    Effects {
        /// Index of the statement.
        statement: u32,
    },
    /// Asks whether a statement depends, through a view or function, on one of these tables. Answer: [`Answer::Depends`].
    Depends {
        /// Index of the statement.
        statement: u32,
        /// Names of tables, in lower case.
        names: Vec<String>,
    },
    /// Asks what routines of the database may do. Answer: [`Answer::Routines`].
    Routines,
    /// Checks that the result table of a statement can be written. Answer: [`Answer::Done`].
    CheckResult {
        /// Index of the statement.
        statement: u32,
    },
    /// Creates the staging table of the step's statement. Answer: [`Answer::Done`].
    Write(Write),
    /// Reads the select of the step's statement as a stream. The answers are [`Answer::Columns`], [`Answer::Batch`] for each
    /// batch, and [`Answer::End`].
    Stream {
        /// Maximum number of rows of a batch.
        max_rows: usize,
    },
    /// Computed columns for the next rows of the oldest batch that the submitter has. The bytes follow. No answer, except to
    /// an error.
    Rows {
        /// Number of rows of the select; without columns of the select, of the table.
        rows: usize,
        /// Number of bytes.
        bytes: usize,
    },
    /// The submitter needs the oldest batch no more. No answer.
    Taken,
    /// Sends computed rows to the client. Answer: [`Answer::Done`].
    Show {
        /// Names of the columns.
        columns: Vec<String>,
        /// Their values.
        values: Vec<Vec<Cell>>,
    },
    /// Publishes the result table when the submitter has succeeded. Answer: [`Answer::Done`], when all rows are written.
    Publish {
        /// What to tell the user after that.
        line: String,
    },
}

impl Request {
    /// Index of the statement that it is about; `None`: the step's own.
    pub fn statement(&self) -> Option<u32> {
        match self {
            Self::Describe(query) | Self::CheckSelect(query) | Self::Sample { query, .. } => {
                Some(query.statement)
            }
            Self::Check { statement, .. }
            | Self::Set { statement }
            | Self::Effects { statement }
            | Self::Depends { statement, .. }
            | Self::CheckResult { statement } => Some(*statement),
            _ => None,
        }
    }
}

/// A select of the step's extended statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// The select of the statement.
    Statement,
    /// `validation.select`.
    Validation,
}

/// A select of a statement of the step document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Query {
    /// Index of the statement.
    pub statement: u32,
    /// Which of its selects.
    pub select: Select,
}

/// The staging table.
#[derive(Debug, PartialEq, Deserialize)]
pub struct Write {
    /// Columns of the select that it keeps: the place in the select, and the name in the table.
    pub passthrough: Vec<(usize, String)>,
    /// Computed columns.
    pub computed: Vec<Computed>,
    /// Number of rows for each row of the select.
    pub copies: usize,
}

/// A computed column.
#[derive(Debug, PartialEq, Deserialize)]
pub struct Computed {
    /// Its name.
    pub name: String,
    /// The kind of its values.
    #[serde(with = "ComputedType")]
    pub kind: ComputedKind,
    /// The possible values. A row has the place of its value, in 32 bits. Without them, a row has its value, in 64 bits.
    pub values: Option<Vec<Cell>>,
}

/// The kind of a computed column.
#[derive(Deserialize)]
#[serde(remote = "ComputedKind", rename_all = "snake_case")]
enum ComputedType {
    Bool,
    Int,
    Float,
    Text,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// What JSON has no form for.
    Other(Other),
    Null(()),
}

/// A value that JSON has no form for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Other {
    /// A number in its shortest form, `NaN`, `inf` or `-inf`.
    Float(String),
    /// In hexadecimal digits.
    Blob(String),
}

/// An answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<'a> {
    Done,
    Dialect(&'static str),
    /// A file, whose descriptor is passed: name and type of each column. It grows.
    ColumnFile(Vec<(&'a str, &'a str)>),
    /// What the file has so far.
    Rows {
        rows: u64,
        bytes: u64,
    },
    Columns(Vec<Described<'a>>),
    Values(Vec<Cell>),
    /// Whether the setting was changed. It was not, if that would change more than the session.
    IsSet(bool),
    Effects {
        may_change_names: bool,
        calls_functions: bool,
    },
    Depends(bool),
    Routines {
        /// Whether some routine or trigger may change names.
        may_change_names: bool,
        has_event_triggers: bool,
    },
    /// A batch of this number of rows, as an Arrow IPC stream in a file, whose descriptor is passed.
    Batch(usize),
    /// All rows were read: their number.
    End(u64),
    Error(Failed<'a>),
}

/// A described column.
#[derive(Debug, Serialize)]
pub struct Described<'a> {
    name: &'a str,
    database_type: &'a str,
    /// The kind of its values, if the type decides it.
    kind: Option<&'static str>,
}

/// An error.
#[derive(Debug, Serialize)]
pub struct Failed<'a> {
    message: &'a str,
    kind: &'static str,
    is_syntax: bool,
    /// Names that are similar to the one that does not exist.
    similar: Vec<String>,
}

impl<'a> Described<'a> {
    pub fn new(column: &'a Column) -> Self {
        let kind = column.kind.map(|kind| match kind {
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Float => "float",
            Kind::Blob => "blob",
            Kind::Decimal => "decimal",
            Kind::Date => "date",
            Kind::Timestamp => "timestamp",
            Kind::Instant => "instant",
        });
        Self { name: &column.name, database_type: &column.database_type, kind }
    }
}

impl<'a> Failed<'a> {
    /// `message`: the error's, without secrets.
    pub fn new(error: &'a Error, message: &'a str, similar: Vec<String>) -> Self {
        let kind = match error.kind {
            ErrorKind::User => "user",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Busy => "busy",
            ErrorKind::Undelivered => "undelivered",
        };
        Self { message, kind, is_syntax: error.is_syntax, similar }
    }
}

impl From<Value> for Cell {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null(()),
            Value::Int(value) => Self::Int(value),
            Value::Float(value) if value.is_finite() => Self::Float(value),
            Value::Float(value) => Self::Other(Other::Float(value.to_string())),
            Value::Text(value) => Self::Text(value),
            Value::Blob(value) | Value::NotUtf8(value) => Self::Other(Other::Blob(hex(&value))),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
