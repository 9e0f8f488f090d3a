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
    /// The kind that the type gives to all values. `None`: the type decides nothing, as in SQLite, or the values are
    /// texts.
    pub kind: Option<Kind>,
}

/// The kind of a column's values, if the column's type decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Booleans.
    Bool,
    /// Integers.
    Int,
    /// Floating point numbers.
    Float,
    /// Byte strings.
    Blob,
    /// Exact decimals.
    Decimal,
    /// Dates.
    Date,
    /// Times by a local clock.
    Timestamp,
    /// Times in UTC.
    Instant,
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
    /// A byte string.
    Blob(Vec<u8>),
    /// A text that is not UTF-8. Readers get it as a byte string; it cannot be written as one.
    NotUtf8(Vec<u8>),
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
            Self::Texts(array) | Self::Decimals(array) => spanned(array.value_offsets()),
            Self::Blobs(array) => spanned(array.value_offsets()),
            Self::Mixed(values) => values.iter().map(Value::long_bytes).sum(),
            _ => 0,
        }
    }

    /// Some consecutive values.
    #[must_use]
    pub fn slice(&self, begin: usize, count: usize) -> Self {
        match self {
            Self::Null => Self::Null,
            Self::Bools(array) => Self::Bools(array.slice(begin, count)),
            Self::Ints(array) => Self::Ints(array.slice(begin, count)),
            Self::Uints(array) => Self::Uints(array.slice(begin, count)),
            Self::Floats(array) => Self::Floats(array.slice(begin, count)),
            Self::Texts(array) => Self::Texts(array.slice(begin, count)),
            Self::Blobs(array) => Self::Blobs(array.slice(begin, count)),
            Self::Decimals(array) => Self::Decimals(array.slice(begin, count)),
            Self::Dates(array) => Self::Dates(array.slice(begin, count)),
            Self::Timestamps(array) => Self::Timestamps(array.slice(begin, count)),
            Self::Instants(array) => Self::Instants(array.slice(begin, count)),
            Self::Mixed(values) => Self::Mixed(values[begin..begin + count].to_vec()),
        }
    }

    /// Each value so many times.
    #[must_use]
    pub fn repeat_each(self, times: usize) -> Self {
        fn repeated<T: Copy, A: FromIterator<T>>(values: impl Iterator<Item = T>, times: usize) -> A {
            values.flat_map(|it| std::iter::repeat_n(it, times)).collect()
        }
        if times == 1 {
            return self;
        }
        match self {
            Self::Null => Self::Null,
            Self::Bools(array) => Self::Bools(repeated(array.iter(), times)),
            Self::Ints(array) => Self::Ints(repeated(array.iter(), times)),
            Self::Uints(array) => Self::Uints(repeated(array.iter(), times)),
            Self::Floats(array) => Self::Floats(repeated(array.iter(), times)),
            Self::Texts(array) => Self::Texts(repeated(array.iter(), times)),
            Self::Blobs(array) => Self::Blobs(repeated(array.iter(), times)),
            Self::Decimals(array) => Self::Decimals(repeated(array.iter(), times)),
            Self::Dates(array) => Self::Dates(repeated(array.iter(), times)),
            Self::Timestamps(array) => Self::Timestamps(repeated(array.iter(), times)),
            Self::Instants(array) => Self::Instants(repeated(array.iter(), times)),
            Self::Mixed(values) => {
                let repeated = values.into_iter().flat_map(|it| std::iter::repeat_n(it, times));
                Self::Mixed(repeated.collect())
            }
        }
    }

    /// A value by itself. A boolean is 0 or 1, a date or time the number of its unit, and a decimal is a text.
    pub(crate) fn value(&self, row: usize) -> Value {
        if self.array().is_some_and(|array| array.is_null(row)) {
            return Value::Null;
        }
        match self {
            Self::Null => Value::Null,
            Self::Bools(array) => Value::Int(array.value(row).into()),
            Self::Ints(array) => Value::Int(array.value(row)),
            Self::Uints(array) => {
                let value = array.value(row);
                i64::try_from(value).map_or(Value::Float(value as f64), Value::Int)
            }
            Self::Floats(array) => Value::Float(array.value(row)),
            Self::Texts(array) | Self::Decimals(array) => Value::Text(array.value(row).to_owned()),
            Self::Blobs(array) => Value::Blob(array.value(row).to_owned()),
            Self::Dates(array) => Value::Int(array.value(row).into()),
            Self::Timestamps(array) | Self::Instants(array) => Value::Int(array.value(row)),
            Self::Mixed(values) => values.get(row).cloned().unwrap_or(Value::Null),
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

/// The bytes of an array, which may be a part of a larger one.
fn spanned(offsets: &[i32]) -> usize {
    let begin = offsets.first().copied().unwrap_or_default();
    let end = offsets.last().copied().unwrap_or_default();
    usize::try_from(end - begin).unwrap_or_default()
}

impl Value {
    /// Size of a text or byte string.
    pub(crate) fn long_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Blob(bytes) | Self::NotUtf8(bytes) => bytes.len(),
            Self::Null | Self::Int(_) | Self::Float(_) => 0,
        }
    }
}
