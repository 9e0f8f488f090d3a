//! Columns and batches of a result set.

use arrow_array::{
    Array, BinaryArray, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray, UInt64Array,
};

/// A column of a result set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The database's name for the type; empty if it is not known.
    pub database_type: String,
}

/// Consecutive rows of a result set.
#[derive(Debug)]
pub struct Batch {
    /// Number of rows.
    pub rows: usize,
    /// The values of each column.
    pub columns: Vec<Values>,
}

/// The values of one column in a batch. They have one type in a batch, and another batch of the same column may have
/// another type: in SQLite any value may have any type, and a date such as `infinity` is a text.
#[derive(Debug, Clone)]
pub enum Values {
    /// Every value is NULL.
    Null,
    /// Booleans.
    Bools(BooleanArray),
    /// Integers.
    Ints(Int64Array),
    /// Integers of which one does not fit `i64`.
    Uints(UInt64Array),
    /// Floating point numbers.
    Floats(Float64Array),
    /// Texts.
    Texts(StringArray),
    /// Byte strings.
    Blobs(BinaryArray),
    /// Exact decimals, as text.
    Decimals(StringArray),
    /// Days since 1970-01-01.
    Dates(Date32Array),
    /// Microseconds since 1970-01-01, by a local clock.
    Timestamps(TimestampMicrosecondArray),
    /// Microseconds since 1970-01-01 in UTC.
    Instants(TimestampMicrosecondArray),
    /// Values of several types.
    Mixed(Vec<Value>),
}

/// A value of a column with several types.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// An integer.
    Int(i64),
    /// A floating point number.
    Float(f64),
    /// A text.
    Text(String),
    /// A byte string; also a text that is not UTF-8.
    Blob(Vec<u8>),
}

impl Values {
    /// The array; `None` if every value is NULL, or if the values have several types.
    #[must_use]
    pub fn array(&self) -> Option<&dyn Array> {
        Some(match self {
            Self::Null | Self::Mixed(_) => return None,
            Self::Bools(array) => array,
            Self::Ints(array) => array,
            Self::Uints(array) => array,
            Self::Floats(array) => array,
            Self::Texts(array) | Self::Decimals(array) => array,
            Self::Blobs(array) => array,
            Self::Dates(array) => array,
            Self::Timestamps(array) | Self::Instants(array) => array,
        })
    }

    /// Size of the texts and byte strings.
    #[must_use]
    pub fn long_bytes(&self) -> usize {
        match self {
            Self::Texts(array) | Self::Decimals(array) => array.value_data().len(),
            Self::Blobs(array) => array.value_data().len(),
            Self::Mixed(values) => values.iter().map(Value::long_bytes).sum(),
            _ => 0,
        }
    }

    /// A value of an internal query as text. `None`: NULL, or of a type that such queries do not return.
    pub(crate) fn text(&self, row: usize) -> Option<String> {
        if self.array().is_some_and(|array| array.is_null(row)) {
            return None;
        }
        match self {
            Self::Ints(array) => Some(array.value(row).to_string()),
            Self::Texts(array) | Self::Decimals(array) => Some(array.value(row).to_owned()),
            Self::Mixed(values) => match values.get(row)? {
                Value::Int(value) => Some(value.to_string()),
                Value::Text(value) => Some(value.clone()),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Value {
    fn long_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Blob(bytes) => bytes.len(),
            Self::Null | Self::Int(_) | Self::Float(_) => 0,
        }
    }
}
