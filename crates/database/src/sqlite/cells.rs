//! The cells of one column in a batch.

use arrow_array::builder::{BinaryBuilder, Float64Builder, Int64Builder, StringBuilder};
use rusqlite::types::ValueRef;

use crate::{Value, Values};

/// Cells. They begin with the type of the first value, and become mixed with the first one of another type.
#[derive(Debug)]
pub(super) enum Cells {
    Nulls(usize),
    Ints(Int64Builder),
    Floats(Float64Builder),
    Texts(StringBuilder),
    Blobs(BinaryBuilder),
    Mixed(Vec<Value>),
}

impl Default for Cells {
    fn default() -> Self {
        Self::Nulls(0)
    }
}

impl Cells {
    /// Adds a value. Numbers of the type so far are added in the caller's loop.
    #[inline]
    pub(super) fn push(&mut self, value: ValueRef<'_>) {
        match (&mut *self, value) {
            (Self::Ints(cells), ValueRef::Integer(value)) => cells.append_value(value),
            (Self::Floats(cells), ValueRef::Real(value)) => cells.append_value(value),
            _ => self.push_other(value),
        }
    }

    #[inline(never)]
    fn push_other(&mut self, value: ValueRef<'_>) {
        match (&mut *self, value) {
            (Self::Texts(cells), ValueRef::Text(text)) if let Ok(text) = std::str::from_utf8(text) => {
                cells.append_value(text);
            }
            (Self::Blobs(cells), ValueRef::Blob(value)) => cells.append_value(value),
            (Self::Mixed(cells), value) => cells.push(mixed(value)),
            (Self::Nulls(count), ValueRef::Null) => *count += 1,
            (Self::Ints(cells), ValueRef::Null) => cells.append_null(),
            (Self::Floats(cells), ValueRef::Null) => cells.append_null(),
            (Self::Texts(cells), ValueRef::Null) => cells.append_null(),
            (Self::Blobs(cells), ValueRef::Null) => cells.append_null(),
            (Self::Nulls(count), value) => {
                *self = first(*count, value);
                self.push(value);
            }
            (_, value) => {
                let mut cells = std::mem::take(self).into_mixed();
                cells.push(mixed(value));
                *self = Self::Mixed(cells);
            }
        }
    }

    /// The values of the batch.
    pub(super) fn finish(self) -> Values {
        match self {
            Self::Nulls(_) => Values::Null,
            Self::Ints(mut cells) => Values::Ints(cells.finish()),
            Self::Floats(mut cells) => Values::Floats(cells.finish()),
            Self::Texts(mut cells) => Values::Texts(cells.finish()),
            Self::Blobs(mut cells) => Values::Blobs(cells.finish()),
            Self::Mixed(cells) => Values::Mixed(cells),
        }
    }

    fn into_mixed(self) -> Vec<Value> {
        match self.finish() {
            Values::Ints(cells) => cells.iter().map(|it| it.map_or(Value::Null, Value::Int)).collect(),
            Values::Floats(cells) => cells.iter().map(|it| it.map_or(Value::Null, Value::Float)).collect(),
            Values::Texts(cells) => {
                cells.iter().map(|it| it.map_or(Value::Null, |it| Value::Text(it.to_owned()))).collect()
            }
            Values::Blobs(cells) => {
                cells.iter().map(|it| it.map_or(Value::Null, |it| Value::Blob(it.to_owned()))).collect()
            }
            Values::Mixed(cells) => cells,
            _ => Vec::new(),
        }
    }
}

/// Size of a value in bytes.
pub(super) fn size(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Null => 1,
        ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len() + 4,
    }
}

/// Cells that begin with some NULLs, for a first value of this type.
fn first(nulls: usize, value: ValueRef<'_>) -> Cells {
    match value {
        ValueRef::Null => Cells::Nulls(nulls),
        ValueRef::Integer(_) => {
            let mut cells = Int64Builder::new();
            cells.append_nulls(nulls);
            Cells::Ints(cells)
        }
        ValueRef::Real(_) => {
            let mut cells = Float64Builder::new();
            cells.append_nulls(nulls);
            Cells::Floats(cells)
        }
        ValueRef::Text(text) if std::str::from_utf8(text).is_err() => Cells::Mixed(vec![Value::Null; nulls]),
        ValueRef::Text(_) => {
            let mut cells = StringBuilder::new();
            cells.append_nulls(nulls);
            Cells::Texts(cells)
        }
        ValueRef::Blob(_) => {
            let mut cells = BinaryBuilder::new();
            cells.append_nulls(nulls);
            Cells::Blobs(cells)
        }
    }
}

fn mixed(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Int(value),
        ValueRef::Real(value) => Value::Float(value),
        // SQLite does not check that a text is UTF-8.
        ValueRef::Text(bytes) => String::from_utf8(bytes.to_owned())
            .map_or_else(|error| Value::NotUtf8(error.into_bytes()), Value::Text),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_owned()),
    }
}
