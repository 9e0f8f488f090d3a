//! Rows as text for COPY.

use std::io::Write as _;

use super::dates::{MICROS_PER_DAY, MICROS_PER_SECOND, print_date, print_seconds};
use crate::{Value, Values};

/// Appends a row.
pub(super) fn put_row(columns: &[Values], row: usize, out: &mut Vec<u8>) {
    for (place, values) in columns.iter().enumerate() {
        if place > 0 {
            out.push(b'\t');
        }
        put_cell(values, row, out);
    }
    out.push(b'\n');
}

fn put_cell(values: &Values, row: usize, out: &mut Vec<u8>) {
    if values.array().is_some_and(|array| array.is_null(row)) {
        out.extend(NULL);
        return;
    }
    match values {
        Values::Null => out.extend(NULL),
        Values::Bools(array) => out.push(if array.value(row) { b't' } else { b'f' }),
        Values::Ints(array) => put(array.value(row), out),
        Values::Uints(array) => put(array.value(row), out),
        Values::Floats(array) => put_float(array.value(row), out),
        Values::Texts(array) | Values::Decimals(array) => escape(array.value(row).as_bytes(), out),
        Values::Blobs(array) => put_blob(array.value(row), out),
        Values::Dates(array) => print_date(array.value(row).into(), out, |_| {}),
        Values::Timestamps(array) => put_moment(array.value(row), "", out),
        Values::Instants(array) => put_moment(array.value(row), "+00", out),
        Values::Mixed(values) => match values.get(row) {
            None | Some(Value::Null) => out.extend(NULL),
            Some(Value::Int(value)) => put(value, out),
            Some(Value::Float(value)) => put_float(*value, out),
            Some(Value::Text(text)) => escape(text.as_bytes(), out),
            // The server judges it.
            Some(Value::NotUtf8(bytes)) => escape(bytes, out),
            Some(Value::Blob(bytes)) => put_blob(bytes, out),
        },
    }
}

const NULL: &[u8] = b"\\N";

fn put(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    let _ = write!(out, "{value}");
}

/// The shortest text that is read as the same number, with an exponent if it is long.
fn put_float(value: f64, out: &mut Vec<u8>) {
    let _ = write!(out, "{value:?}");
}

fn put_blob(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(b"\\\\x");
    out.extend(hex::encode(bytes).into_bytes());
}

/// Appends a text. The separators of columns and rows, and the backslash itself, are escaped by a backslash.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut begin = 0;
    for (place, byte) in text.iter().enumerate() {
        let letter = match byte {
            b'\\' => b'\\',
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            _ => continue,
        };
        out.extend(&text[begin..place]);
        out.extend([b'\\', letter]);
        begin = place + 1;
    }
    out.extend(&text[begin..]);
}

fn put_moment(micros: i64, zone: &str, out: &mut Vec<u8>) {
    print_date(micros.div_euclid(MICROS_PER_DAY), out, |out| {
        let micros = micros.rem_euclid(MICROS_PER_DAY);
        print_seconds(micros, out);
        let _ = write!(out, ".{:06}{zone}", micros % MICROS_PER_SECOND);
    });
}

#[cfg(test)]
mod tests {
    use arrow_array::{Float64Array, StringArray, TimestampMicrosecondArray};
    use proptest::prelude::*;

    use super::*;
    use crate::printed::{self, PrintedColumn};

    /// Reads a line as the server does.
    fn cells(line: &[u8]) -> Vec<Option<Vec<u8>>> {
        let (mut cells, mut cell, mut is_null) = (Vec::new(), Vec::new(), false);
        let mut bytes = line.iter().copied();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\t' | b'\n' => {
                    let cell = std::mem::take(&mut cell);
                    cells.push((!std::mem::take(&mut is_null)).then_some(cell));
                }
                b'\\' => match bytes.next().unwrap() {
                    b'N' => is_null = true,
                    b't' => cell.push(b'\t'),
                    b'n' => cell.push(b'\n'),
                    b'r' => cell.push(b'\r'),
                    b'\\' => cell.push(b'\\'),
                    other => panic!("unknown escape {other}"),
                },
                b'\r' => panic!("a carriage return ends a line"),
                other => cell.push(other),
            }
        }
        cells
    }

    fn line(columns: &[Values]) -> Vec<u8> {
        let mut line = Vec::new();
        put_row(columns, 0, &mut line);
        line
    }

    fn moment(micros: i64, zone: &str) -> String {
        let mut out = Vec::new();
        put_moment(micros, zone, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_value_has_a_text() {
        let day = 86_400_000_000;
        assert_eq!(moment(-719_162 * day, ""), "0001-01-01 00:00:00.000000");
        assert_eq!(moment(-719_162 * day - 1, "+00"), "0001-12-31 23:59:59.999999+00 BC");
        assert_eq!(moment(2_932_897 * day, "+00"), "10000-01-01 00:00:00.000000+00");
        let values = [
            Value::Null,
            Value::Int(i64::MIN),
            Value::Float(1e300),
            Value::Text("\\N".into()),
            Value::NotUtf8(b"\xff\t".to_vec()),
            Value::Blob(vec![0, 0xff]),
        ];
        let columns: Vec<_> = values.into_iter().map(|it| Values::Mixed(vec![it])).collect();
        assert_eq!(line(&columns), b"\\N\t-9223372036854775808\t1e300\t\\\\N\t\xff\\t\t\\\\x00ff\n");
    }

    proptest! {
        #[test]
        fn texts_come_back_from_their_escapes(
            texts in proptest::collection::vec(proptest::option::of("[\\\\tnrN.\t\n\r\u{8}a-é]{0,8}|.{0,20}"), 1..5),
        ) {
            let columns: Vec<_> = texts.iter().map(|it| Values::Texts(StringArray::from(vec![it.clone()]))).collect();
            let expected: Vec<_> = texts.into_iter().map(|it| it.map(String::into_bytes)).collect();
            prop_assert_eq!(cells(&line(&columns)), expected);
        }

        #[test]
        fn floats_are_exact(value: f64) {
            let text = line(&[Values::Floats(Float64Array::from(vec![value]))]);
            let text = std::str::from_utf8(&text).unwrap().trim_end();
            let read: f64 = text.parse().unwrap();
            prop_assert!(read.to_bits() == value.to_bits() || (read.is_nan() && value.is_nan()), "{}", text);
        }

        #[test]
        fn moments_are_those_that_are_read(micros in -62_135_596_800_000_000_i64..=253_402_300_799_999_999) {
            for (kind, zone) in [(printed::TIMESTAMPS, ""), (printed::INSTANTS, "+00")] {
                let mut column = PrintedColumn::default();
                column.push(moment(micros, zone).as_bytes());
                let (Values::Timestamps(read) | Values::Instants(read)) = printed::decode(&column.take(), kind) else {
                    panic!("no moment");
                };
                prop_assert_eq!(read, TimestampMicrosecondArray::from(vec![micros]));
            }
        }
    }
}
