//! One value of a result set, as text and as JSON.

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime};
use serde::{Serialize, Serializer};
use sqlflow_proto::v1::{Column, Rows, Value, column::Values, value};

use super::escape::{escaped_lines, push_escaped, push_formatted};

/// The largest integer up to which all are exact in JSON readers that use doubles: 2^53 - 1.
const LARGEST_EXACT: u64 = (1 << 53) - 1;

/// One value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(&'a str),
    Blob(&'a [u8]),
    Decimal(&'a str),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01T00:00:00; `zone`: whether it is an instant in UTC.
    Timestamp {
        micros: i64,
        zone: bool,
    },
}

impl Cell<'_> {
    /// Whether the value is a number, which is right-aligned.
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Uint(_) | Self::Double(_) | Self::Decimal(_))
    }

    /// Appends the value for people, safe for a terminal.
    pub fn push_text(&self, out: &mut String) {
        match *self {
            Self::Null => out.push_str("NULL"),
            Self::Bool(value) => out.push_str(if value { "true" } else { "false" }),
            Self::Int(value) => push_formatted(out, format_args!("{value}")),
            Self::Uint(value) => push_formatted(out, format_args!("{value}")),
            // Debug prints the shortest text that parses to the same number, with an exponent where that is shorter.
            Self::Double(value) => push_formatted(out, format_args!("{value:?}")),
            Self::Text(text) | Self::Decimal(text) => push_escaped(out, text),
            Self::Blob(bytes) => push_hex(out, bytes),
            Self::Date(days) => push_date(out, days),
            Self::Timestamp { micros, zone } => push_timestamp(out, micros, zone),
        }
    }

    /// The same with line breaks kept, for places with room for several lines.
    pub fn push_lines(&self, out: &mut String) {
        match *self {
            Self::Text(text) if text.contains('\n') => out.push_str(&escaped_lines(text)),
            _ => self.push_text(out),
        }
    }

    /// Appends the raw value, for a file; nothing for NULL.
    pub fn push_exact(&self, out: &mut String) {
        match *self {
            Self::Null => {}
            Self::Text(text) | Self::Decimal(text) => out.push_str(text),
            _ => self.push_text(out),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        self.push_text(&mut text);
        text
    }
}

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(value),
            Self::Int(value) if value.unsigned_abs() <= LARGEST_EXACT => serializer.serialize_i64(value),
            Self::Uint(value) if value <= LARGEST_EXACT => serializer.serialize_u64(value),
            Self::Double(value) if value.is_finite() => serializer.serialize_f64(value),
            Self::Double(value) if value.is_nan() => serializer.serialize_str("NaN"),
            Self::Double(value) => {
                serializer.serialize_str(if value > 0.0 { "Infinity" } else { "-Infinity" })
            }
            Self::Text(text) | Self::Decimal(text) => serializer.serialize_str(text),
            Self::Timestamp { micros, zone } => serializer.serialize_str(&iso_8601(micros, zone)),
            Self::Int(_) | Self::Uint(_) | Self::Blob(_) | Self::Date(_) => {
                serializer.serialize_str(&self.text())
            }
        }
    }
}

/// A batch of rows whose columns were checked to have the stated number of values.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a>(&'a Rows);

/// An inconsistent batch, caused by an error of the server or the connection.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column} of a batch of {rows} rows holds {values} values")]
pub struct TornBatch {
    column: usize,
    rows: usize,
    values: usize,
}

impl<'a> Batch<'a> {
    pub fn new(rows: &'a Rows) -> Result<Self, TornBatch> {
        let count = rows.count as usize;
        for (column, values) in rows.columns.iter().enumerate() {
            let held = values.values.as_ref().map_or(count, length);
            if held != count {
                return Err(TornBatch { column, rows: count, values: held });
            }
        }
        Ok(Self(rows))
    }

    pub fn row_count(&self) -> usize {
        self.0.count as usize
    }

    /// The values of one row, in the order of the columns.
    pub fn row(&self, row: usize) -> impl ExactSizeIterator<Item = Cell<'a>> + use<'a> {
        self.0.columns.iter().map(move |column| cell(column, row))
    }
}

fn length(values: &Values) -> usize {
    match values {
        Values::Bools(bools) => bools.values.len(),
        Values::Int64s(ints) => ints.values.len(),
        Values::Uint64s(ints) => ints.values.len(),
        Values::Doubles(doubles) => doubles.values.len(),
        Values::Strings(texts) | Values::Decimals(texts) => texts.len(),
        Values::Blobs(blobs) => blobs.values.len(),
        Values::Dates(dates) => dates.values.len(),
        Values::Timestamps(times) => times.values.len(),
        Values::Mixed(values) => values.values.len(),
    }
}

/// The value of a row of a column.
pub fn cell(column: &Column, row: usize) -> Cell<'_> {
    if column.nulls.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1) {
        return Cell::Null;
    }
    match &column.values {
        None => Cell::Null,
        Some(Values::Bools(bools)) => Cell::Bool(bools.values[row]),
        Some(Values::Int64s(ints)) => Cell::Int(ints.values[row]),
        Some(Values::Uint64s(ints)) => Cell::Uint(ints.values[row]),
        Some(Values::Doubles(doubles)) => Cell::Double(doubles.values[row]),
        Some(Values::Strings(texts)) => Cell::Text(&texts[row]),
        Some(Values::Decimals(texts)) => Cell::Decimal(&texts[row]),
        Some(Values::Blobs(blobs)) => Cell::Blob(&blobs.values[row]),
        Some(Values::Dates(dates)) => Cell::Date(dates.values[row]),
        Some(Values::Timestamps(times)) => {
            Cell::Timestamp { micros: times.values[row], zone: times.has_zone }
        }
        Some(Values::Mixed(values)) => mixed(&values.values[row]),
    }
}

fn mixed(value: &Value) -> Cell<'_> {
    match &value.value {
        None => Cell::Null,
        Some(value::Value::BoolValue(value)) => Cell::Bool(*value),
        Some(value::Value::Int64Value(value)) => Cell::Int(*value),
        Some(value::Value::Uint64Value(value)) => Cell::Uint(*value),
        Some(value::Value::DoubleValue(value)) => Cell::Double(*value),
        Some(value::Value::StringValue(text)) => Cell::Text(text),
        Some(value::Value::BlobValue(bytes)) => Cell::Blob(bytes),
        Some(value::Value::DecimalValue(text)) => Cell::Decimal(text),
        Some(value::Value::DateValue(days)) => Cell::Date(*days),
        Some(value::Value::TimestampValue(micros)) => Cell::Timestamp { micros: *micros, zone: false },
    }
}

/// Appends `\x` and two digits for each byte, as PostgreSQL writes a blob.
fn push_hex(out: &mut String, bytes: &[u8]) {
    out.push_str("\\x");
    out.push_str(&hex::encode(bytes));
}

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Appends an ISO 8601 date; days outside the calendar's range are printed as day numbers.
fn push_date(out: &mut String, days: i32) {
    let date: Result<Date, _> = EPOCH.date().checked_add(SignedDuration::from_hours(i64::from(days) * 24));
    match date {
        Ok(date) => push_formatted(out, format_args!("{date}")),
        Err(_) => push_formatted(out, format_args!("1970-01-01{days:+}d")),
    }
}

/// Appends a date and time in the format of databases: `2026-01-01 00:00:00`, and `2026-01-01 00:00:00+00` for an
/// instant.
fn push_timestamp(out: &mut String, micros: i64, zone: bool) {
    let suffix = if zone { "+00" } else { "" };
    match EPOCH.checked_add(SignedDuration::from_micros(micros)) {
        Ok(time) => push_formatted(out, format_args!("{} {}{suffix}", time.date(), time.time())),
        Err(_) => push_formatted(out, format_args!("1970-01-01 00:00:00{micros:+}us{suffix}")),
    }
}

/// An ISO 8601 date and time, with `Z` for an instant.
fn iso_8601(micros: i64, zone: bool) -> String {
    let suffix = if zone { "Z" } else { "" };
    match EPOCH.checked_add(SignedDuration::from_micros(micros)) {
        Ok(time) => format!("{time}{suffix}"),
        Err(_) => format!("1970-01-01T00:00:00{micros:+}us{suffix}"),
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::v1::{Int64s, Strings};

    use super::*;

    #[test]
    fn text_of_every_cell_type_is_exact() {
        let cases = [
            (Cell::Null, "NULL"),
            (Cell::Bool(true), "true"),
            (Cell::Int(i64::MIN), "-9223372036854775808"),
            (Cell::Uint(u64::MAX), "18446744073709551615"),
            (Cell::Double(0.1), "0.1"),
            (Cell::Double(1e300), "1e300"),
            (Cell::Decimal("-12.50"), "-12.50"),
            (Cell::Blob(&[0, 255]), "\\x00ff"),
            (Cell::Date(0), "1970-01-01"),
            (Cell::Date(-1), "1969-12-31"),
            (Cell::Date(i32::MAX), "1970-01-01+2147483647d"),
            (Cell::Timestamp { micros: 1_500_000, zone: false }, "1970-01-01 00:00:01.5"),
            (Cell::Timestamp { micros: 0, zone: true }, "1970-01-01 00:00:00+00"),
            // The end of time, as databases write it.
            (Cell::Timestamp { micros: 253_402_300_799_000_000, zone: false }, "9999-12-31 23:59:59"),
            (
                Cell::Timestamp { micros: i64::MIN, zone: true },
                "1970-01-01 00:00:00-9223372036854775808us+00",
            ),
        ];
        for (cell, text) in cases {
            assert_eq!(cell.text(), text, "{cell:?}");
        }
    }

    #[test]
    fn json_of_every_cell_type_is_exact() {
        let cases = [
            (Cell::Null, "null"),
            (Cell::Int(-5), "-5"),
            (Cell::Int(9_007_199_254_740_991), "9007199254740991"),
            (Cell::Int(9_007_199_254_740_992), "\"9007199254740992\""),
            (Cell::Int(i64::MIN), "\"-9223372036854775808\""),
            (Cell::Uint(u64::MAX), "\"18446744073709551615\""),
            (Cell::Double(0.5), "0.5"),
            (Cell::Double(f64::NEG_INFINITY), "\"-Infinity\""),
            (Cell::Decimal("1.10"), "\"1.10\""),
            (Cell::Text("a\"\u{1b}"), r#""a\"\u001b""#),
            (Cell::Blob(b"\x01"), r#""\\x01""#),
            (Cell::Date(19_000), "\"2022-01-08\""),
            (Cell::Timestamp { micros: 1_500_000, zone: false }, "\"1970-01-01T00:00:01.5\""),
            (Cell::Timestamp { micros: 0, zone: true }, "\"1970-01-01T00:00:00Z\""),
        ];
        for (cell, json) in cases {
            assert_eq!(serde_json::to_string(&cell).unwrap(), json, "{cell:?}");
        }
    }

    #[test]
    fn null_bits_mark_null_cells() {
        let column = Column {
            nulls: vec![0b0000_0010, 0b1].into(),
            values: Some(Values::Int64s(Int64s { values: (0..9).collect() })),
        };
        let rows = Rows { count: 9, columns: vec![column, Column::default()] };
        let batch = Batch::new(&rows).unwrap();
        let first = |row| batch.row(row).next().unwrap();
        assert_eq!((first(0), first(1), first(2)), (Cell::Int(0), Cell::Null, Cell::Int(2)));
        assert_eq!(first(8), Cell::Null);
        assert_eq!(batch.row(0).nth(1), Some(Cell::Null), "a column without values is all NULL");
    }

    #[test]
    fn inconsistent_batch_is_an_error() {
        let column = Column { values: Some(Values::Strings(Strings::from_iter(["a"]))), ..Column::default() };
        let rows = Rows { count: 2, columns: vec![column] };
        assert_eq!(Batch::new(&rows).unwrap_err(), TornBatch { column: 0, rows: 2, values: 1 });
    }
}
