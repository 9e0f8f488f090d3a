//! The cells of one column in a batch.

use arrow_array::Array;
use arrow_array::builder::{Float64Builder, Int64Builder};
use rusqlite::types::ValueRef;

use crate::printed::{self, PrintedColumn};
use crate::{Value, Values};

/// Cells. They begin with the type of the first value, and become mixed with the first one of another type. Whether texts
/// are UTF-8 is checked for all of a batch together, which is faster.
#[derive(Debug)]
pub(super) enum Cells {
    Nulls(usize),
    Ints(Int64Builder),
    Floats(Float64Builder),
    Texts(PrintedColumn),
    Blobs(PrintedColumn),
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
            (Self::Texts(cells), ValueRef::Text(value)) | (Self::Blobs(cells), ValueRef::Blob(value)) => {
                cells.push(value);
            }
            (Self::Mixed(cells), value) => cells.push(mixed(value)),
            (Self::Nulls(count), ValueRef::Null) => *count += 1,
            (Self::Ints(cells), ValueRef::Null) => cells.append_null(),
            (Self::Floats(cells), ValueRef::Null) => cells.append_null(),
            (Self::Texts(cells) | Self::Blobs(cells), ValueRef::Null) => cells.push_null(),
            (Self::Nulls(count), value) => {
                *self = first(*count, value);
                self.push(value);
            }
            (_, value) => {
                let mut cells = match self.take(0) {
                    // The type is that of the last batch.
                    (count, Values::Null) => {
                        *self = first(count, value);
                        return self.push(value);
                    }
                    (_, values) => each(values),
                };
                cells.push(mixed(value));
                *self = Self::Mixed(cells);
            }
        }
    }

    /// Takes the values, with their number, and begins the next batch. It is likely to have the same type, and `next`
    /// rows.
    pub(super) fn take(&mut self, next: usize) -> (usize, Values) {
        let are_null = |array: &dyn Array| array.null_count() == array.len();
        match self {
            Self::Nulls(count) => (std::mem::take(count), Values::Null),
            Self::Mixed(cells) => {
                let cells = std::mem::take(cells);
                *self = Self::default();
                (cells.len(), Values::Mixed(cells))
            }
            Self::Ints(cells) => {
                let array = std::mem::replace(cells, Int64Builder::with_capacity(next)).finish();
                (array.len(), if are_null(&array) { Values::Null } else { Values::Ints(array) })
            }
            Self::Floats(cells) => {
                let array = std::mem::replace(cells, Float64Builder::with_capacity(next)).finish();
                (array.len(), if are_null(&array) { Values::Null } else { Values::Floats(array) })
            }
            Self::Texts(cells) => {
                let raw = cells.take();
                (raw.len(), printed::decode(&raw, printed::TEXTS))
            }
            Self::Blobs(cells) => {
                let raw = cells.take();
                (raw.len(), printed::decode(&raw, printed::BLOBS))
            }
        }
    }
}

/// Each value by itself, of an array or of mixed values.
fn each(values: Values) -> Vec<Value> {
    match values {
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
    let printed = || {
        let mut cells = PrintedColumn::default();
        (0..nulls).for_each(|_| cells.push_null());
        cells
    };
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
        ValueRef::Text(_) => Cells::Texts(printed()),
        ValueRef::Blob(_) => Cells::Blobs(printed()),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(cells: &mut Cells, values: &[ValueRef<'_>]) -> Vec<Value> {
        values.iter().for_each(|value| cells.push(*value));
        let (count, taken) = cells.take(values.len());
        assert_eq!(count, values.len());
        let shown = format!("{taken:?}");
        let kept = if matches!(taken, Values::Null) { vec![Value::Null; count] } else { each(taken) };
        assert_eq!(kept.len(), count, "{shown}");
        kept
    }

    /// Each batch in turn, through the same cells: its type is its own.
    #[test]
    fn type_of_a_batch_is_that_of_its_values() {
        let (int, real, null) = (ValueRef::Integer(7), ValueRef::Real(0.5), ValueRef::Null);
        let (text, blob, torn) = (ValueRef::Text(b"x"), ValueRef::Blob(b"y"), ValueRef::Text(b"\xff"));
        let kinds = [int, real, text, blob, null, torn];
        let mut cells = Cells::default();
        for first in kinds {
            for second in kinds {
                for third in kinds {
                    let batch = [first, second, third];
                    let expected: Vec<_> = batch.iter().map(|it| mixed(*it)).collect();
                    assert_eq!(pushed(&mut cells, &batch), expected);
                }
            }
        }
        pushed(&mut cells, &[int, int]);
        // Only NULLs so far: the type of the last batch does not make them mixed.
        [null, text, null].into_iter().for_each(|value| cells.push(value));
        assert!(matches!(cells.take(0), (3, Values::Texts(_))));
        [null, null].into_iter().for_each(|value| cells.push(value));
        assert!(matches!(cells.take(0), (2, Values::Null)));
        [text, torn].into_iter().for_each(|value| cells.push(value));
        assert!(matches!(cells.take(0), (2, Values::Mixed(_))));
    }
}
