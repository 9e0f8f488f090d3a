//! Batches, encoded as `Rows` messages (`proto/sqlflow/v1/data.proto`).
//!
//! The encoder writes from the arrays to the message: each value is copied once.

use arrow_array::types::{ArrowPrimitiveType, ByteArrayType};
use arrow_array::{Array, BooleanArray, Float64Array, GenericByteArray, PrimitiveArray};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use sqlflow_database::{Batch, Value, Values};

/// Encodes a batch.
pub fn encode(batch: &Batch) -> Vec<u8> {
    let columns: Vec<_> = batch.columns.iter().map(|values| EncodedColumn::of(values, batch.rows)).collect();
    let length = columns.iter().map(|column| field_length(column.length())).sum::<usize>();
    let count = 1 + encoded_len_varint(batch.rows as u64);
    let mut rows = Vec::with_capacity(count + length);
    if batch.rows > 0 {
        encode_key(1, WireType::Varint, &mut rows);
        encode_varint(batch.rows as u64, &mut rows);
    }
    for column in &columns {
        put_head(2, column.length(), &mut rows);
        column.put(&mut rows);
    }
    rows
}

/// A column whose length is known before it is written, so that each value is written once.
struct EncodedColumn<'a> {
    nulls: Option<Vec<u8>>,
    /// `None`: every value is NULL.
    values: Option<EncodedValues<'a>>,
}

/// The field of a column's values.
struct EncodedValues<'a> {
    field: u32,
    length: usize,
    content: Content<'a>,
}

/// Appends a list of values.
type Put<'a> = Box<dyn Fn(&mut Vec<u8>) + 'a>;

/// The values of a column, by their encoding: field 1 of the message.
enum Content<'a> {
    /// A packed list of varints: its length, and how it is written.
    Varints {
        list: usize,
        put: Put<'a>,
        has_zone: bool,
    },
    Floats(&'a Float64Array),
    Texts(&'a dyn PutEach),
    /// Values of several types, which are rare.
    Mixed(Vec<u8>),
}

impl<'a> EncodedColumn<'a> {
    fn of(values: &'a Values, rows: usize) -> Self {
        let nulls = match values {
            Values::Null => null_bits(rows, |_| true),
            Values::Mixed(values) => null_bits(rows, |row| values[row] == Value::Null),
            _ => {
                let nulls = values.array().and_then(|array| array.nulls());
                let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
                nulls.and_then(|nulls| null_bits(rows, |row| nulls.is_null(row)))
            }
        };
        let (field, content) = match values {
            Values::Null => return Self { nulls, values: None },
            Values::Bools(array) => (2, bools(array)),
            Values::Ints(array) => (3, varints(array, i64::cast_unsigned, false)),
            Values::Uints(array) => (4, varints(array, |it| it, false)),
            Values::Floats(array) => (5, Content::Floats(array)),
            Values::Texts(array) => (6, Content::Texts(array)),
            Values::Blobs(array) => (7, Content::Texts(array)),
            Values::Decimals(array) => (8, Content::Texts(array)),
            Values::Dates(array) => (9, varints(array, |it| zigzag(it.into()), false)),
            Values::Timestamps(array) => (10, varints(array, zigzag, false)),
            Values::Instants(array) => (10, varints(array, zigzag, true)),
            Values::Mixed(values) => (11, Content::Mixed(mixed(values))),
        };
        let length = content.length();
        Self { nulls, values: Some(EncodedValues { field, length, content }) }
    }

    fn length(&self) -> usize {
        let nulls = self.nulls.as_ref().map_or(0, |nulls| field_length(nulls.len()));
        nulls + self.values.as_ref().map_or(0, |values| field_length(values.length))
    }

    fn put(&self, out: &mut Vec<u8>) {
        if let Some(nulls) = &self.nulls {
            put_bytes(1, nulls, out);
        }
        let Some(EncodedValues { field, length, content }) = &self.values else { return };
        put_head(*field, *length, out);
        match content {
            Content::Varints { list, put, has_zone } => {
                if *list > 0 {
                    put_head(1, *list, out);
                }
                put(out);
                if *has_zone {
                    encode_key(2, WireType::Varint, out);
                    encode_varint(1, out);
                }
            }
            Content::Floats(array) => {
                if !array.is_empty() {
                    put_head(1, array.len() * 8, out);
                }
                out.extend(array.values().iter().flat_map(|value| value.to_le_bytes()));
            }
            Content::Texts(array) => array.put_each(out),
            Content::Mixed(values) => out.extend_from_slice(values),
        }
    }
}

impl Content<'_> {
    fn length(&self) -> usize {
        let list = |length: usize| if length > 0 { field_length(length) } else { 0 };
        match self {
            Self::Varints { list: length, has_zone, .. } => list(*length) + if *has_zone { 2 } else { 0 },
            Self::Floats(array) => list(array.len() * 8),
            Self::Texts(array) => array.encoded_length(),
            Self::Mixed(values) => values.len(),
        }
    }
}

/// Texts or byte strings: field 1, repeated.
trait PutEach {
    fn encoded_length(&self) -> usize;
    fn put_each(&self, out: &mut Vec<u8>);
}

impl<T: ByteArrayType<Offset = i32>> PutEach for GenericByteArray<T> {
    fn encoded_length(&self) -> usize {
        let lengths = self.offsets().windows(2).map(|ends| (ends[1] - ends[0]).cast_unsigned() as usize);
        lengths.map(field_length).sum()
    }

    fn put_each(&self, out: &mut Vec<u8>) {
        for row in 0..self.len() {
            let value: &[u8] = self.value(row).as_ref();
            put_bytes(1, value, out);
        }
    }
}

/// Bitmap of NULLs: bit r % 8 of byte r / 8. `None`: there are none.
fn null_bits(rows: usize, is_null: impl Fn(usize) -> bool) -> Option<Vec<u8>> {
    let mut bits = vec![0_u8; rows.div_ceil(8)];
    for row in (0..rows).filter(|row| is_null(*row)) {
        bits[row / 8] |= 1 << (row % 8);
    }
    bits.iter().any(|byte| *byte != 0).then_some(bits)
}

fn bools(array: &BooleanArray) -> Content<'_> {
    let put = move |out: &mut Vec<u8>| out.extend((0..array.len()).map(|row| u8::from(array.value(row))));
    Content::Varints { list: array.len(), put: Box::new(put), has_zone: false }
}

fn varints<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    varint: impl Fn(T::Native) -> u64 + Copy + 'static,
    has_zone: bool,
) -> Content<'_> {
    let list = array.values().iter().map(|it| encoded_len_varint(varint(*it))).sum();
    let put = move |out: &mut Vec<u8>| array.values().iter().for_each(|it| put_varint(varint(*it), out));
    Content::Varints { list, put: Box::new(put), has_zone }
}

fn mixed(values: &[Value]) -> Vec<u8> {
    let (mut inner, mut cell) = (Vec::new(), Vec::new());
    for value in values {
        cell.clear();
        match value {
            Value::Null => {}
            Value::Int(value) => {
                encode_key(2, WireType::Varint, &mut cell);
                encode_varint(value.cast_unsigned(), &mut cell);
            }
            Value::Float(value) => {
                encode_key(4, WireType::SixtyFourBit, &mut cell);
                cell.extend_from_slice(&value.to_le_bytes());
            }
            Value::Text(text) => put_bytes(5, text.as_bytes(), &mut cell),
            Value::Blob(bytes) | Value::NotUtf8(bytes) => put_bytes(6, bytes, &mut cell),
        }
        put_bytes(1, &cell, &mut inner);
    }
    inner
}

/// Size of a length-delimited field. Numbers of fields are below 16, so a key has one byte.
fn field_length(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// The key and the length of a field.
fn put_head(field: u32, length: usize, out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    put_varint(length as u64, out);
}

fn put_bytes(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_head(field, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// As `encode_varint`, with one check of the capacity.
fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    let mut bytes = [0; 10];
    let mut length = 0;
    while value >= 0x80 {
        bytes[length] = (value & 0x7f) as u8 | 0x80;
        value >>= 7;
        length += 1;
    }
    bytes[length] = value as u8;
    out.extend_from_slice(&bytes[..=length]);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use arrow_array::{
        BinaryArray, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray,
        TimestampMicrosecondArray, UInt64Array,
    };
    use prost::Message as _;
    use sqlflow_proto::v1::{Column, Rows, Strings, column, value};

    use super::*;

    fn decoded(values: Values, rows: usize) -> Column {
        let mut message = Rows::decode(&encode(&Batch { rows, columns: vec![values] })[..]).unwrap();
        assert_eq!((message.count as usize, message.columns.len()), (rows, 1));
        message.columns.remove(0)
    }

    #[test]
    fn each_kind_of_values_is_decoded_by_the_generated_code() {
        use column::Values as V;

        let ints = decoded(Values::Ints(Int64Array::from(vec![Some(-1), None, Some(i64::MAX)])), 3);
        assert_eq!(ints.nulls[..], [0b010]);
        assert!(matches!(ints.values, Some(V::Int64s(it)) if it.values == [-1, 0, i64::MAX]));
        let uints = decoded(Values::Uints(UInt64Array::from(vec![u64::MAX, 0])), 2);
        assert!(uints.nulls.is_empty());
        assert!(matches!(uints.values, Some(V::Uint64s(it)) if it.values == [u64::MAX, 0]));
        let floats = decoded(Values::Floats(Float64Array::from(vec![1.5, f64::INFINITY])), 2);
        assert!(matches!(floats.values, Some(V::Doubles(it)) if it.values == [1.5, f64::INFINITY]));
        let bools = decoded(Values::Bools(BooleanArray::from(vec![Some(true), Some(false), None])), 3);
        assert!(matches!(bools.values, Some(V::Bools(it)) if it.values == [true, false, false]));
        let texts = decoded(Values::Texts(StringArray::from(vec![Some("é"), Some(""), None])), 3);
        assert_eq!(texts.nulls[..], [0b100]);
        assert!(matches!(texts.values, Some(V::Strings(it)) if it == Strings::from_iter(["é", "", ""])));
        let blobs = decoded(Values::Blobs(BinaryArray::from(vec![&b"\0\xff"[..], b""])), 2);
        assert!(matches!(blobs.values, Some(V::Blobs(it)) if it.values[0][..] == *b"\0\xff"));
        let decimals = decoded(Values::Decimals(StringArray::from(vec!["-12.50"])), 1);
        assert!(matches!(decimals.values, Some(V::Decimals(it)) if it == Strings::from_iter(["-12.50"])));
        let dates = decoded(Values::Dates(Date32Array::from(vec![-1, 20_000])), 2);
        assert!(matches!(dates.values, Some(V::Dates(it)) if it.values == [-1, 20_000]));
        let local = decoded(Values::Timestamps(TimestampMicrosecondArray::from(vec![-1])), 1);
        assert!(matches!(local.values, Some(V::Timestamps(it)) if it.values == [-1] && !it.has_zone));
        let instant = decoded(Values::Instants(TimestampMicrosecondArray::from(vec![i64::MIN])), 1);
        assert!(matches!(instant.values, Some(V::Timestamps(it)) if it.values == [i64::MIN] && it.has_zone));
    }

    #[test]
    fn columns_of_nulls_and_of_several_types_are_decoded() {
        for rows in [1, 7, 8, 9] {
            let nulls = decoded(Values::Null, rows);
            assert_eq!(nulls.nulls.iter().map(|byte| byte.count_ones() as usize).sum::<usize>(), rows);
            assert_eq!(nulls.values, None);
        }
        let values = vec![
            Value::Null,
            Value::Int(-3),
            Value::Float(0.5),
            Value::Text("x".into()),
            Value::Blob(vec![1]),
        ];
        let mixed = decoded(Values::Mixed(values), 5);
        assert_eq!(mixed.nulls[..], [1]);
        let Some(column::Values::Mixed(mixed)) = mixed.values else { panic!("{mixed:?}") };
        let kinds: Vec<_> = mixed.values.into_iter().map(|it| it.value).collect();
        assert_eq!(
            kinds,
            [
                None,
                Some(value::Value::Int64Value(-3)),
                Some(value::Value::DoubleValue(0.5)),
                Some(value::Value::StringValue("x".to_owned())),
                Some(value::Value::BlobValue(vec![1].into())),
            ]
        );
    }
}
