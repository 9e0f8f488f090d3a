//! Rows in binary form for COPY: the server neither parses nor prints them.

use arrow_array::TimestampMicrosecondArray;
use arrow_array::{Array, BinaryArray, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray};

use super::dates::{EPOCH_DAYS, EPOCH_MICROS};
use super::numeric;
use crate::Values;

/// Begins the data: a signature, no flags, no extension.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Ends the data.
pub(super) const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// A type with a binary form that we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BinaryType {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Text,
    Bytea,
    Jsonb,
    Uuid,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Numeric,
}

impl BinaryType {
    /// The type with an OID. Those of built-in types never change.
    pub(super) fn of(oid: u32) -> Option<Self> {
        Some(match oid {
            16 => Self::Bool,
            17 => Self::Bytea,
            20 => Self::Int8,
            21 => Self::Int2,
            23 => Self::Int4,
            // text, json, character, character varying.
            25 | 114 | 1042 | 1043 => Self::Text,
            26 => Self::Oid,
            700 => Self::Float4,
            701 => Self::Float8,
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::TimestampTz,
            1700 => Self::Numeric,
            2950 => Self::Uuid,
            3802 => Self::Jsonb,
            _ => return None,
        })
    }
}

/// A column of a batch, with the type of the table's column.
pub(super) enum BinaryColumn<'a> {
    Null,
    Bool(&'a BooleanArray),
    Int2(&'a Int64Array),
    Int4(&'a Int64Array),
    Int8(&'a Int64Array),
    Oid(&'a Int64Array),
    Float4(&'a Float64Array),
    Float8(&'a Float64Array),
    Text(&'a StringArray),
    Bytea(&'a BinaryArray),
    Jsonb(&'a StringArray),
    Uuid(&'a StringArray),
    Date(&'a Date32Array),
    Time(&'a StringArray),
    /// With and without a zone.
    Timestamp(&'a TimestampMicrosecondArray),
    Numeric(&'a StringArray),
}

/// A value that has no binary form of the column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unfit;

impl<'a> BinaryColumn<'a> {
    /// `None`: these values have no binary form of this type; for example, the batch has the date `infinity`.
    pub(super) fn new(kind: BinaryType, values: &'a Values) -> Option<Self> {
        Some(match (kind, values) {
            (_, Values::Null) => Self::Null,
            (BinaryType::Bool, Values::Bools(array)) => Self::Bool(array),
            (BinaryType::Int2, Values::Ints(array)) => Self::Int2(array),
            (BinaryType::Int4, Values::Ints(array)) => Self::Int4(array),
            (BinaryType::Int8, Values::Ints(array)) => Self::Int8(array),
            (BinaryType::Oid, Values::Ints(array)) => Self::Oid(array),
            (BinaryType::Float4, Values::Floats(array)) => Self::Float4(array),
            (BinaryType::Float8, Values::Floats(array)) => Self::Float8(array),
            (BinaryType::Text, Values::Texts(array)) => Self::Text(array),
            (BinaryType::Bytea, Values::Blobs(array)) => Self::Bytea(array),
            (BinaryType::Jsonb, Values::Texts(array)) => Self::Jsonb(array),
            (BinaryType::Uuid, Values::Texts(array)) => Self::Uuid(array),
            (BinaryType::Date, Values::Dates(array)) => Self::Date(array),
            (BinaryType::Time, Values::Texts(array)) => Self::Time(array),
            (BinaryType::Timestamp, Values::Timestamps(array)) => Self::Timestamp(array),
            (BinaryType::TimestampTz, Values::Instants(array)) => Self::Timestamp(array),
            (BinaryType::Numeric, Values::Decimals(array)) => Self::Numeric(array),
            _ => return None,
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(array) => array.is_null(row),
            Self::Int2(array) | Self::Int4(array) | Self::Int8(array) | Self::Oid(array) => {
                array.is_null(row)
            }
            Self::Float4(array) | Self::Float8(array) => array.is_null(row),
            Self::Text(array) | Self::Jsonb(array) | Self::Uuid(array) | Self::Numeric(array) => {
                array.is_null(row)
            }
            Self::Time(array) => array.is_null(row),
            Self::Bytea(array) => array.is_null(row),
            Self::Date(array) => array.is_null(row),
            Self::Timestamp(array) => array.is_null(row),
        }
    }

    fn put(&self, row: usize, out: &mut Vec<u8>) -> Result<(), Unfit> {
        if self.is_null(row) {
            out.extend(NULL);
            return Ok(());
        }
        match self {
            Self::Null => out.extend(NULL),
            Self::Bool(array) => fixed([u8::from(array.value(row))], out),
            Self::Int2(array) => fixed(fitting::<i16>(array.value(row))?.to_be_bytes(), out),
            Self::Int4(array) => fixed(fitting::<i32>(array.value(row))?.to_be_bytes(), out),
            Self::Int8(array) => fixed(array.value(row).to_be_bytes(), out),
            Self::Oid(array) => fixed(fitting::<u32>(array.value(row))?.to_be_bytes(), out),
            Self::Float4(array) => fixed((array.value(row) as f32).to_be_bytes(), out),
            Self::Float8(array) => fixed(array.value(row).to_be_bytes(), out),
            Self::Text(array) => sized(array.value(row).as_bytes(), out)?,
            Self::Bytea(array) => sized(array.value(row), out)?,
            Self::Jsonb(array) => {
                let text = array.value(row).as_bytes();
                out.extend(i32::try_from(text.len() + 1).map_err(|_| Unfit)?.to_be_bytes());
                // The version.
                out.push(1);
                out.extend(text);
            }
            Self::Uuid(array) => fixed(uuid(array.value(row))?, out),
            Self::Date(array) => fixed((array.value(row) - EPOCH_DAYS).to_be_bytes(), out),
            Self::Time(array) => fixed(time(array.value(row)).ok_or(Unfit)?.to_be_bytes(), out),
            Self::Timestamp(array) => fixed((array.value(row) - EPOCH_MICROS).to_be_bytes(), out),
            Self::Numeric(array) => {
                let begin = out.len();
                out.extend([0; 4]);
                numeric::put(array.value(row), out).ok_or(Unfit)?;
                let length = i32::try_from(out.len() - begin - 4).map_err(|_| Unfit)?;
                out[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
            }
        }
        Ok(())
    }
}

/// Appends a row.
pub(super) fn put_row(columns: &[BinaryColumn<'_>], row: usize, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let count = i16::try_from(columns.len()).map_err(|_| Unfit)?;
    out.extend(count.to_be_bytes());
    columns.iter().try_for_each(|column| column.put(row, out))
}

fn fitting<T: TryFrom<i64>>(value: i64) -> Result<T, Unfit> {
    value.try_into().map_err(|_| Unfit)
}

#[expect(clippy::cast_possible_truncation, reason = "a value has at most 16 bytes")]
fn fixed<const SIZE: usize>(value: [u8; SIZE], out: &mut Vec<u8>) {
    out.extend((SIZE as i32).to_be_bytes());
    out.extend(value);
}

fn sized(value: &[u8], out: &mut Vec<u8>) -> Result<(), Unfit> {
    out.extend(i32::try_from(value.len()).map_err(|_| Unfit)?.to_be_bytes());
    out.extend(value);
    Ok(())
}

/// Microseconds of `24:00:00` or `01:02:03.5`.
fn time(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let [h1, h2, b':', m1, m2, b':', s1, s2] = *clock.as_bytes() else { return None };
    let digits = [h1, h2, m1, m2, s1, s2].into_iter().chain(fraction.bytes());
    if fraction.len() > 6 || digits.clone().any(|it| !it.is_ascii_digit()) {
        return None;
    }
    let [hours, minutes, seconds] = [[h1, h2], [m1, m2], [s1, s2]]
        .map(|[tens, units]| i64::from(tens - b'0') * 10 + i64::from(units - b'0'));
    let micros = (0..6)
        .fold(0, |sum, place| sum * 10 + i64::from(fraction.as_bytes().get(place).map_or(0, |it| it - b'0')));
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

fn uuid(text: &str) -> Result<[u8; 16], Unfit> {
    let mut digits = [0; 32];
    let mut places = digits.iter_mut();
    for byte in text.bytes().filter(|it| *it != b'-') {
        *places.next().ok_or(Unfit)? = byte;
    }
    let mut value = [0; 16];
    hex::decode_to_slice(digits, &mut value).map_err(|_| Unfit)?;
    Ok(value)
}
