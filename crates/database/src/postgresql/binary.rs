//! Values in binary form: the server does not print them, which takes longer than all the rest for floats. They are those
//! that the decoders of printed values return.
//!
//! Floats of four bytes have none here: a reader would have to print them as the server does.

use std::io::Write as _;

use arrow_array::types::{Date32Type, TimestampMicrosecondType};
use arrow_array::{BooleanArray, Float64Array, Int64Array, PrimitiveArray};
use arrow_buffer::{BooleanBuffer, NullBuffer, NullBufferBuilder};

use super::dates::{EPOCH_DAYS, EPOCH_MICROS, MICROS_PER_DAY, MICROS_PER_SECOND, print_date, print_seconds};
use super::numeric;
use crate::Values;
use crate::printed::{self, PrintedColumn};

/// Days from the year 1 to 9999, since 1970-01-01.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;

/// The binary form of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Bool,
    /// An integer of two, four or eight bytes.
    Int,
    Oid,
    Float,
    Bytes,
    Numeric,
    Date,
    /// A timestamp, by a local clock or in UTC.
    Moment {
        is_utc: bool,
    },
}

impl Form {
    /// The form of a type with this OID. `None`: it is read as text.
    pub(super) fn of(oid: u32) -> Option<Self> {
        Some(match oid {
            16 => Self::Bool,
            17 => Self::Bytes,
            20 | 21 | 23 => Self::Int,
            26 => Self::Oid,
            701 => Self::Float,
            1082 => Self::Date,
            1114 => Self::Moment { is_utc: false },
            1184 => Self::Moment { is_utc: true },
            1700 => Self::Numeric,
            _ => return None,
        })
    }
}

/// The values of one column of the batch that is being filled.
#[derive(Debug)]
pub(super) struct BinaryColumn {
    form: Form,
    /// Values of fixed size, as bits.
    numbers: Vec<i64>,
    nulls: NullBufferBuilder,
    /// Other values.
    long: PrintedColumn,
    text: Vec<u8>,
}

impl BinaryColumn {
    pub(super) fn new(form: Form) -> Self {
        Self {
            form,
            numbers: Vec::new(),
            nulls: NullBufferBuilder::new(0),
            long: PrintedColumn::default(),
            text: Vec::new(),
        }
    }

    /// Adds a value. Returns the bytes that it needs beyond those that arrived. `None`: it is malformed.
    pub(super) fn push(&mut self, value: &[u8]) -> Option<usize> {
        let number = match self.form {
            Form::Bool => i64::from(value.first_chunk::<1>()? != &[0]),
            Form::Int => match *value {
                [a, b] => i16::from_be_bytes([a, b]).into(),
                [a, b, c, d] => i32::from_be_bytes([a, b, c, d]).into(),
                _ => i64::from_be_bytes(value.try_into().ok()?),
            },
            Form::Oid => u32::from_be_bytes(value.try_into().ok()?).into(),
            Form::Date => i32::from_be_bytes(value.try_into().ok()?).into(),
            Form::Float | Form::Moment { .. } => i64::from_be_bytes(value.try_into().ok()?),
            Form::Bytes => {
                self.long.push(value);
                return Some(0);
            }
            Form::Numeric => {
                self.text.clear();
                numeric::print(value, &mut self.text)?;
                self.long.push(&self.text);
                return Some(self.text.len().saturating_sub(value.len()));
            }
        };
        self.numbers.push(number);
        self.nulls.append_non_null();
        Some(0)
    }

    pub(super) fn push_null(&mut self) {
        if matches!(self.form, Form::Bytes | Form::Numeric) {
            self.long.push_null();
        } else {
            self.numbers.push(0);
            self.nulls.append_null();
        }
    }

    /// Takes the values, and begins the next batch.
    pub(super) fn take(&mut self) -> Values {
        match self.form {
            Form::Bytes => return printed::decode(&self.long.take(), printed::BLOBS),
            Form::Numeric => return printed::decode(&self.long.take(), printed::DECIMALS),
            _ => {}
        }
        let count = self.numbers.len();
        let numbers = std::mem::replace(&mut self.numbers, Vec::with_capacity(count));
        let nulls = self.nulls.finish();
        if nulls.as_ref().is_some_and(|nulls| nulls.null_count() == count) {
            return Values::Null;
        }
        match self.form {
            Form::Bool => {
                let values: BooleanBuffer = numbers.iter().map(|it| *it != 0).collect();
                Values::Bools(BooleanArray::new(values, nulls))
            }
            Form::Float => {
                let floats: Vec<f64> = numbers.into_iter().map(float).collect();
                Values::Floats(Float64Array::new(floats.into(), nulls))
            }
            Form::Date => self.dates(numbers, nulls),
            Form::Moment { is_utc } => self.moments(numbers, nulls, is_utc),
            Form::Int | Form::Oid | Form::Bytes | Form::Numeric => {
                Values::Ints(Int64Array::new(numbers.into(), nulls))
            }
        }
    }

    /// Dates; texts if one is outside the calendar.
    fn dates(&mut self, numbers: Vec<i64>, nulls: Option<NullBuffer>) -> Values {
        let day = |number: i64| number + i64::from(EPOCH_DAYS);
        if numbers.iter().all(|it| DAYS.contains(&day(*it))) {
            let days: Vec<i32> =
                numbers.into_iter().map(|it| i32::try_from(day(it)).unwrap_or_default()).collect();
            return Values::Dates(PrimitiveArray::<Date32Type>::new(days.into(), nulls));
        }
        self.texts(&numbers, nulls.as_ref(), |number, out| {
            let infinite = match i32::try_from(number) {
                Ok(i32::MIN) => Some("-infinity"),
                Ok(i32::MAX) => Some("infinity"),
                _ => None,
            };
            match infinite {
                Some(text) => out.extend_from_slice(text.as_bytes()),
                None => print_date(day(number), out, |_| {}),
            }
        })
    }

    /// Timestamps; texts if one is outside the calendar.
    fn moments(&mut self, mut numbers: Vec<i64>, nulls: Option<NullBuffer>, is_utc: bool) -> Values {
        let first = DAYS.start() * MICROS_PER_DAY - EPOCH_MICROS;
        let end = (DAYS.end() + 1) * MICROS_PER_DAY - EPOCH_MICROS;
        if numbers.iter().all(|it| (first..end).contains(it)) {
            for number in &mut numbers {
                *number += EPOCH_MICROS;
            }
            let array = PrimitiveArray::<TimestampMicrosecondType>::new(numbers.into(), nulls);
            return if is_utc { Values::Instants(array) } else { Values::Timestamps(array) };
        }
        self.texts(&numbers, nulls.as_ref(), |number, out| match number {
            i64::MIN => out.extend_from_slice(b"-infinity"),
            i64::MAX => out.extend_from_slice(b"infinity"),
            _ => {
                let day = number.div_euclid(MICROS_PER_DAY) + i64::from(EPOCH_DAYS);
                print_date(day, out, |out| print_clock(number.rem_euclid(MICROS_PER_DAY), is_utc, out));
            }
        })
    }

    fn texts(
        &mut self,
        numbers: &[i64],
        nulls: Option<&NullBuffer>,
        print: impl Fn(i64, &mut Vec<u8>),
    ) -> Values {
        for (row, number) in numbers.iter().enumerate() {
            if nulls.is_some_and(|it| it.is_null(row)) {
                self.long.push_null();
                continue;
            }
            self.text.clear();
            print(*number, &mut self.text);
            self.long.push(&self.text);
        }
        printed::decode(&self.long.take(), printed::TEXTS)
    }
}

/// A float of these bits. The server prints every NaN as one.
fn float(bits: i64) -> f64 {
    let value = f64::from_bits(bits.cast_unsigned());
    if value.is_nan() { f64::NAN } else { value }
}

/// Appends a time of day as the server prints it, and the offset of UTC.
fn print_clock(micros: i64, is_utc: bool, out: &mut Vec<u8>) {
    print_seconds(micros, out);
    let fraction = micros % MICROS_PER_SECOND;
    if fraction != 0 {
        let _ = write!(out, ".{fraction:06}");
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    if is_utc {
        out.extend(b"+00");
    }
}
