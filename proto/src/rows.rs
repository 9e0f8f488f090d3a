//! Batches of rows, in two types of one message (`sqlflow.v1.Rows`): who only forwards them does not decode their values.

use bytes::Bytes;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost::{DecodeError, Message};

use crate::v1::Column;

/// Rows is a batch of consecutive rows for the last Head of the same statement, stored by column.
#[derive(Clone, PartialEq, Message)]
pub struct Rows {
    /// Number of rows in the batch, and of values in each column.
    #[prost(uint32, tag = "1")]
    pub count: u32,
    /// Columns, in the order of the Head.
    #[prost(message, repeated, tag = "2")]
    pub columns: Vec<Column>,
}

/// Rows as other messages contain them: each column is encoded. If the whole was decoded from `Bytes`, the columns are
/// slices of them.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct EncodedRows {
    /// Number of rows in the batch, and of values in each column.
    #[prost(uint32, tag = "1")]
    pub count: u32,
    /// Encoded columns, in the order of the Head.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub columns: Vec<Bytes>,
}

impl EncodedRows {
    /// Decodes the columns.
    ///
    /// # Errors
    /// A column is malformed.
    pub fn decoded(&self) -> Result<Rows, DecodeError> {
        let columns = self.columns.iter().map(|column| Column::decode(column.clone()));
        Ok(Rows { count: self.count, columns: columns.collect::<Result<_, _>>()? })
    }

    /// Checks that the columns can be decoded. Cheaper than decoding, since nothing is allocated for values that are as
    /// the data process encodes them.
    ///
    /// # Errors
    /// A column is malformed.
    pub fn check(&self) -> Result<(), DecodeError> {
        let mut unusual = self.columns.iter().filter(|column| is_usual(column).is_none());
        unusual.try_for_each(|column| Column::decode(column.clone()).map(drop))
    }
}

impl From<&Rows> for EncodedRows {
    fn from(rows: &Rows) -> Self {
        let columns = rows.columns.iter().map(|column| column.encode_to_vec().into()).collect();
        Self { count: rows.count, columns }
    }
}

impl From<Rows> for EncodedRows {
    fn from(rows: Rows) -> Self {
        Self::from(&rows)
    }
}

/// Whether a column has at most a bitmap and then values of one type, without other fields, and can be decoded. `None`:
/// it may be valid or not.
fn is_usual(mut column: &[u8]) -> Option<()> {
    const NULLS: u32 = 1;
    let (mut field, mut content) = take_field(&mut column)?;
    if field == NULLS {
        if column.is_empty() {
            return Some(());
        }
        (field, content) = take_field(&mut column)?;
    }
    let is_valid = column.is_empty()
        && match field {
            // Bools, Int64s, Uint64s, Dates, Timestamps
            2 | 3 | 4 | 9 | 10 => are_varints(take_list(&mut content)?) && is_zone(content),
            // Doubles
            5 => take_list(&mut content)?.len().is_multiple_of(8) && content.is_empty(),
            // Strings, decimals
            6 | 8 => are_texts(content),
            _ => false,
        };
    is_valid.then_some(())
}

/// Takes a length-delimited field.
fn take_field<'a>(bytes: &mut &'a [u8]) -> Option<(u32, &'a [u8])> {
    let (field, wire_type) = decode_key(bytes).ok()?;
    if wire_type != WireType::LengthDelimited {
        return None;
    }
    let length = usize::try_from(decode_varint(bytes).ok()?).ok()?;
    Some((field, bytes.split_off(..length)?))
}

/// Takes a packed list, which is field 1.
fn take_list<'a>(values: &mut &'a [u8]) -> Option<&'a [u8]> {
    take_field(values).filter(|(field, _)| *field == 1).map(|(_, list)| list)
}

/// Whether each varint has at most nine bytes, as all but negative integers have, or ten whose last one is 1.
fn are_varints(list: &[u8]) -> bool {
    let mut length = 0;
    for byte in list {
        length += 1;
        if *byte < 0x80 {
            if length == 10 && *byte > 1 {
                return false;
            }
            length = 0;
        } else if length == 10 {
            return false;
        }
    }
    length == 0
}

/// What may follow the list of timestamps: that they have a zone.
fn is_zone(rest: &[u8]) -> bool {
    matches!(rest, [] | [0x10, 0 | 1])
}

fn are_texts(mut values: &[u8]) -> bool {
    // Most are, and one check of all of them is faster.
    let are_ascii = values.is_ascii();
    while !values.is_empty() {
        let Some((1, text)) = take_field(&mut values) else { return false };
        if !are_ascii && std::str::from_utf8(text).is_err() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{
        Bools, Dates, Doubles, Int64s, Strings, Timestamps, Uint64s, Value, Values, column, value,
    };

    fn columns() -> Vec<Column> {
        use column::Values as V;

        let texts = || Strings::from_iter(["é", "", &"x".repeat(200)]);
        let mixed = Value { value: Some(value::Value::StringValue("é".to_owned())) };
        let values = [
            V::Bools(Bools { values: vec![true, false] }),
            V::Int64s(Int64s { values: vec![0, -1, i64::MIN, i64::MAX, 300] }),
            V::Uint64s(Uint64s { values: vec![u64::MAX, 0] }),
            V::Doubles(Doubles { values: vec![0.1, f64::NAN] }),
            V::Strings(texts()),
            V::Strings(Strings::from_iter(["plain"; 3])),
            V::Decimals(texts()),
            V::Dates(Dates { values: vec![-1, 20_000] }),
            V::Timestamps(Timestamps { values: vec![i64::MIN, 1], has_zone: true }),
            V::Timestamps(Timestamps { values: vec![i64::MIN, 1], has_zone: false }),
            V::Mixed(Values { values: vec![mixed] }),
        ];
        let columns = values.into_iter().map(Some).chain([None]);
        let with = |nulls: &'static [u8]| move |values| Column { nulls: Bytes::from_static(nulls), values };
        columns.clone().map(with(b"")).chain(columns.map(with(b"\x05\xff"))).collect()
    }

    #[test]
    fn encoded_rows_are_the_message() {
        let rows = Rows { count: 2, columns: columns() };
        let encoded = EncodedRows::from(&rows);
        assert_eq!(encoded.encode_to_vec(), rows.encode_to_vec());
        let read = EncodedRows::decode(rows.encode_to_vec().as_slice()).unwrap();
        assert_eq!(format!("{:?}", read.decoded().unwrap()), format!("{rows:?}"), "NaN differs from itself");
        read.check().unwrap();
        for (index, column) in encoded.columns.iter().enumerate() {
            let is_rare = matches!(rows.columns[index].values, Some(column::Values::Mixed(_)))
                || (column.is_empty() && rows.columns[index].nulls.is_empty());
            assert_eq!(is_usual(column).is_some(), !is_rare, "{:?}", rows.columns[index]);
        }
    }

    /// Every byte that differs, and every cut.
    #[test]
    fn check_accepts_only_what_can_be_decoded() {
        for column in EncodedRows::from(Rows { count: 2, columns: columns() }).columns {
            let is_accepted = |bytes: Vec<u8>| {
                let columns = vec![Bytes::from(bytes)];
                let rows = EncodedRows { count: 2, columns };
                assert_eq!(rows.check().is_ok(), rows.decoded().is_ok(), "{:x?}", rows.columns);
            };
            for place in 0..column.len() {
                is_accepted(column[..place].to_vec());
                for byte in 0..=255 {
                    let mut damaged = column.to_vec();
                    damaged[place] = byte;
                    is_accepted(damaged);
                }
            }
        }
    }
}
