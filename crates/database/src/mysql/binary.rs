//! Rows of the binary protocol, which a server sends for a prepared statement. Numbers are not printed, which takes a
//! server longer than all the rest: seconds for 10 million floats. Dates and times are printed here, so that they are
//! decoded as those of the text protocol.

use arrow_array::{Float64Array, Int64Array, UInt64Array};
use arrow_buffer::{NullBuffer, NullBufferBuilder};
use jiff::tz::TimeZone;
use mysql_common::constants::ColumnType;

use super::rows::{Columns, length_encoded};
use super::zone;
use crate::Values;
use crate::printed::{self, Decoder, PrintedColumn};

/// How values of a column are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// So many bytes.
    Int {
        /// 1, 2, 4 or 8.
        bytes: usize,
        is_unsigned: bool,
    },
    /// Four bytes. The text protocol shows six digits, or these decimals.
    Float(Option<u8>),
    /// Four bytes, with as many digits as distinguish them from others.
    ExactFloat,
    /// Eight bytes. The text protocol shows all digits, or these decimals.
    Double(Option<u8>),
    /// Date, perhaps with a time.
    Moment { has_time: bool, decimals: u8 },
    /// TIME.
    Time { decimals: u8 },
    /// As in the text protocol.
    Bytes,
}

impl Form {
    pub(super) fn of(code: Option<ColumnType>, is_unsigned: bool, scale: u8) -> Self {
        use ColumnType as C;

        /// The scale of numbers and times with as many decimals as are needed.
        const NOT_FIXED: u8 = 31;
        let int = |bytes| Self::Int { bytes, is_unsigned };
        let fixed = (scale < NOT_FIXED).then_some(scale);
        let decimals = if scale > 6 { 0 } else { scale };
        match code {
            Some(C::MYSQL_TYPE_TINY) => int(1),
            Some(C::MYSQL_TYPE_SHORT) => int(2),
            Some(C::MYSQL_TYPE_YEAR) => Self::Int { bytes: 2, is_unsigned: true },
            Some(C::MYSQL_TYPE_INT24 | C::MYSQL_TYPE_LONG) => int(4),
            Some(C::MYSQL_TYPE_LONGLONG) => int(8),
            Some(C::MYSQL_TYPE_FLOAT) => Self::Float(fixed),
            Some(C::MYSQL_TYPE_DOUBLE) => Self::Double(fixed),
            Some(C::MYSQL_TYPE_DATE | C::MYSQL_TYPE_NEWDATE) => Self::Moment { has_time: false, decimals },
            Some(C::MYSQL_TYPE_DATETIME | C::MYSQL_TYPE_TIMESTAMP) => {
                Self::Moment { has_time: true, decimals }
            }
            Some(C::MYSQL_TYPE_TIME) => Self::Time { decimals },
            _ => Self::Bytes,
        }
    }

    /// The form for values that are written again, or computed with.
    pub(super) fn exact(self) -> Self {
        match self {
            Self::Float(None) => Self::ExactFloat,
            other => other,
        }
    }
}

/// The values of one column of the batch that is being filled.
pub(super) struct BinaryColumn {
    form: Form,
    decoder: Decoder,
    /// Integers and floats, as bits.
    numbers: Vec<u64>,
    nulls: NullBufferBuilder,
    printed: PrintedColumn,
    text: Vec<u8>,
    /// The zone of values that are instants.
    zone: Option<TimeZone>,
}

impl BinaryColumn {
    pub(super) fn new(form: Form, decoder: Decoder, zone: Option<TimeZone>) -> Self {
        Self {
            form,
            decoder,
            numbers: Vec::new(),
            nulls: NullBufferBuilder::new(0),
            printed: PrintedColumn::default(),
            text: Vec::new(),
            zone,
        }
    }

    fn push_null(&mut self) {
        match self.form {
            Form::Int { .. } | Form::Float(_) | Form::ExactFloat | Form::Double(_) => {
                self.numbers.push(0);
                self.nulls.append_null();
            }
            Form::Moment { .. } | Form::Time { .. } | Form::Bytes => self.printed.push_null(),
        }
    }

    /// Adds the value with which the bytes begin, and returns the bytes after it. `None`: they are malformed.
    fn push<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (number, rest) = match self.form {
            Form::Int { bytes: size, is_unsigned } => {
                let (value, rest) = bytes.split_at_checked(size)?;
                (integer(value, is_unsigned), rest)
            }
            Form::Float(decimals) => {
                let (value, rest) = bytes.split_first_chunk()?;
                (shown_float(f32::from_le_bytes(*value), decimals)?.to_bits(), rest)
            }
            Form::ExactFloat => {
                let (value, rest) = bytes.split_first_chunk()?;
                (exact_float(f32::from_le_bytes(*value))?.to_bits(), rest)
            }
            Form::Double(decimals) => {
                let (value, rest) = bytes.split_first_chunk()?;
                (shown_double(f64::from_le_bytes(*value), decimals)?.to_bits(), rest)
            }
            Form::Bytes => {
                let (value, rest) = length_encoded(bytes)?;
                self.printed.push(value);
                return Some(rest);
            }
            Form::Moment { has_time, decimals } => {
                let (value, rest) = length_encoded(bytes)?;
                self.text.clear();
                print_moment(value, has_time, decimals, &mut self.text)?;
                self.printed.push(&self.text);
                return Some(rest);
            }
            Form::Time { decimals } => {
                let (value, rest) = length_encoded(bytes)?;
                self.text.clear();
                print_time(value, decimals, &mut self.text)?;
                self.printed.push(&self.text);
                return Some(rest);
            }
        };
        self.numbers.push(number);
        self.nulls.append_non_null();
        Some(rest)
    }

    fn take(&mut self) -> Values {
        let is_unsigned = match self.form {
            Form::Int { is_unsigned, .. } => is_unsigned,
            Form::Float(_) | Form::ExactFloat | Form::Double(_) => {
                let Some((numbers, nulls)) = self.take_numbers() else { return Values::Null };
                let floats: Vec<f64> = numbers.into_iter().map(f64::from_bits).collect();
                return Values::Floats(Float64Array::new(floats.into(), nulls));
            }
            Form::Moment { .. } | Form::Time { .. } | Form::Bytes => {
                let values = printed::decode(&self.printed.take(), self.decoder);
                return match (&values, &self.zone) {
                    (Values::Timestamps(local), Some(zone)) => {
                        zone::instants(local, zone).map_or(values, Values::Instants)
                    }
                    _ => values,
                };
            }
        };
        let Some((numbers, nulls)) = self.take_numbers() else { return Values::Null };
        if is_unsigned && numbers.iter().any(|it| i64::try_from(*it).is_err()) {
            return Values::Uints(UInt64Array::new(numbers.into(), nulls));
        }
        let numbers: Vec<i64> = numbers.into_iter().map(u64::cast_signed).collect();
        Values::Ints(Int64Array::new(numbers.into(), nulls))
    }

    /// `None`: every value is NULL.
    fn take_numbers(&mut self) -> Option<(Vec<u64>, Option<NullBuffer>)> {
        let count = self.numbers.len();
        let numbers = std::mem::replace(&mut self.numbers, Vec::with_capacity(count));
        let nulls = self.nulls.finish();
        let are_null = nulls.as_ref().is_some_and(|nulls| nulls.null_count() == count);
        (!are_null).then_some((numbers, nulls))
    }
}

impl Columns for Vec<BinaryColumn> {
    fn push_row(&mut self, row: &[u8]) -> Option<()> {
        let [0, row @ ..] = row else { return None };
        // The first two bits are not used.
        let (nulls, mut rest) = row.split_at_checked((self.len() + 9) / 8)?;
        for (place, column) in self.iter_mut().enumerate() {
            let bit = place + 2;
            if nulls.get(bit / 8)? >> (bit % 8) & 1 == 1 {
                column.push_null();
            } else {
                rest = column.push(rest)?;
            }
        }
        rest.is_empty().then_some(())
    }

    fn take(&mut self) -> Vec<Values> {
        self.iter_mut().map(BinaryColumn::take).collect()
    }
}

/// An integer as 64 bits, which have its sign.
fn integer(bytes: &[u8], is_unsigned: bool) -> u64 {
    let is_negative = !is_unsigned && bytes.last().is_some_and(|it| *it >= 0x80);
    let mut all = if is_negative { [0xff; 8] } else { [0; 8] };
    all[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(all)
}

/// The number that the server prints for a FLOAT: `0.1` is not the nearest double of 0.1's nearest float.
fn shown_float(value: f32, decimals: Option<u8>) -> Option<f64> {
    match decimals {
        Some(_) => shown_double(value.into(), decimals),
        None if value.is_finite() => format!("{value:.5e}").parse().ok(),
        None => Some(value.into()),
    }
}

/// The shortest number that is nearer to this one than to any other of four bytes: `0.1`, and not `0.10000000149011612`.
fn exact_float(value: f32) -> Option<f64> {
    /// From here on, not every whole number is one of four bytes.
    const WHOLE: f32 = 16_777_216.0;

    if value.fract() == 0.0 && value.abs() < WHOLE {
        Some(value.into())
    } else {
        value.to_string().parse().ok()
    }
}

fn shown_double(value: f64, decimals: Option<u8>) -> Option<f64> {
    match decimals {
        None => Some(value),
        Some(decimals) => format!("{value:.*}", usize::from(decimals)).parse().ok(),
    }
}

/// Year, month, day; hour, minute, second; microseconds. Zeros at the end are left out.
fn print_moment(value: &[u8], has_time: bool, decimals: u8, out: &mut Vec<u8>) -> Option<()> {
    let mut all = [0_u8; 11];
    all.get_mut(..value.len())?.copy_from_slice(value);
    let [y1, y2, month, day, hour, minute, second, micros @ ..] = all;
    digits(u16::from_le_bytes([y1, y2]).into(), 4, out);
    out.push(b'-');
    digits(month.into(), 2, out);
    out.push(b'-');
    digits(day.into(), 2, out);
    if has_time {
        out.push(b' ');
        print_clock(hour.into(), minute, second, out);
        print_fraction(u32::from_le_bytes(micros), decimals, out);
    }
    Some(())
}

/// Sign, days, hour, minute, second; microseconds. Zeros at the end are left out.
fn print_time(value: &[u8], decimals: u8, out: &mut Vec<u8>) -> Option<()> {
    let mut all = [0_u8; 12];
    all.get_mut(..value.len())?.copy_from_slice(value);
    let [is_negative, d1, d2, d3, d4, hour, minute, second, micros @ ..] = all;
    if is_negative != 0 {
        out.push(b'-');
    }
    let days = u64::from(u32::from_le_bytes([d1, d2, d3, d4]));
    print_clock(days * 24 + u64::from(hour), minute, second, out);
    print_fraction(u32::from_le_bytes(micros), decimals, out);
    Some(())
}

fn print_clock(hour: u64, minute: u8, second: u8, out: &mut Vec<u8>) {
    digits(hour, 2, out);
    out.push(b':');
    digits(minute.into(), 2, out);
    out.push(b':');
    digits(second.into(), 2, out);
}

fn print_fraction(micros: u32, decimals: u8, out: &mut Vec<u8>) {
    if decimals > 0 {
        out.push(b'.');
        digits((micros / 10_u32.pow(6 - u32::from(decimals.min(6)))).into(), decimals.into(), out);
    }
}

/// A number with at least so many digits.
fn digits(number: u64, width: usize, out: &mut Vec<u8>) {
    let begin = out.len();
    let mut left = number;
    while left > 0 || out.len() - begin < width {
        out.push(b'0' + u8::try_from(left % 10).unwrap_or_default());
        left /= 10;
    }
    out[begin..].reverse();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn floats_are_those_that_the_server_prints() {
        for (value, decimals, expected) in
            [(0.1_f32, None, 0.1), (16_777_217.0, None, 1.67772e7), (1.005, Some(1), 1.0), (-0.0, None, -0.0)]
        {
            assert_eq!(shown_float(value, decimals), Some(expected), "{value}");
        }
        for (value, expected) in [
            (0.1_f32, 0.1),
            (-0.0, -0.0),
            (7.0, 7.0),
            (16_777_217.0, 16_777_216.0),
            (f32::MAX, 3.402_823_5e38),
            (1e-45, 1e-45),
        ] {
            assert_eq!(exact_float(value).map(f64::to_bits), Some(f64::to_bits(expected)), "{value}");
        }
        assert_eq!(shown_double(0.1 + 0.2, Some(2)), Some(0.3));
        assert_eq!(shown_double(0.1 + 0.2, None), Some(0.1 + 0.2));
    }

    #[test]
    fn times_are_printed() {
        let moment = |value: &[u8], has_time, decimals| {
            let mut text = Vec::new();
            print_moment(value, has_time, decimals, &mut text)?;
            String::from_utf8(text).ok()
        };
        assert_eq!(moment(&[], true, 0).unwrap(), "0000-00-00 00:00:00");
        assert_eq!(moment(&[0xe8, 7, 2, 29], false, 0).unwrap(), "2024-02-29");
        assert_eq!(moment(&[0xe8, 7, 2, 29, 1, 2, 3], true, 3).unwrap(), "2024-02-29 01:02:03.000");
        assert_eq!(
            moment(&[0xe8, 7, 2, 29, 1, 2, 3, 1, 0, 0, 0], true, 6).unwrap(),
            "2024-02-29 01:02:03.000001"
        );
        assert_eq!(moment(&[0; 12], true, 6), None);
        let mut text = Vec::new();
        print_time(&[1, 34, 0, 0, 0, 22, 59, 58, 0x20, 0xa1, 7, 0], 1, &mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "-838:59:58.5");
    }

    proptest! {
        #[test]
        fn exact_floats_come_back(value: f32) {
            prop_assert_eq!((exact_float(value).unwrap() as f32).to_bits(), value.to_bits());
        }

        #[test]
        fn no_row_panics(row in proptest::collection::vec(any::<u8>(), 0..64), codes in proptest::collection::vec(any::<(u8, bool, u8)>(), 1..9)) {
            let column = |(code, is_unsigned, scale): &(u8, bool, u8)| {
                let form = Form::of(ColumnType::try_from(*code).ok(), *is_unsigned, *scale);
                BinaryColumn::new(form, printed::TEXTS, None)
            };
            let mut columns: Vec<BinaryColumn> = codes.iter().map(column).collect();
            let row = [&[0], &row[..]].concat();
            if columns.push_row(&row).is_some() {
                columns.take();
            }
        }
    }
}
