//! Batches, encoded as `Rows` messages (`proto/sqlflow/v1/data.proto`).
//!
//! The encoder writes from the arrays to the message, because prost's `Strings` would need an allocation for each text.

use arrow_array::types::ArrowPrimitiveType;
use arrow_array::{Array, GenericByteArray, PrimitiveArray, types::ByteArrayType};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use sqlflow_database::{Batch, Value, Values};

/// Encodes a batch.
pub fn encode(batch: &Batch) -> Vec<u8> {
    let mut rows = Vec::new();
    if batch.rows > 0 {
        encode_key(1, WireType::Varint, &mut rows);
        encode_varint(batch.rows as u64, &mut rows);
    }
    let mut column = Vec::new();
    for values in &batch.columns {
        column.clear();
        encode_column(values, batch.rows, &mut column);
        put_bytes(2, &column, &mut rows);
    }
    rows
}

fn encode_column(values: &Values, rows: usize, out: &mut Vec<u8>) {
    let nulls = match values {
        Values::Null => null_bits(rows, |_| true),
        Values::Mixed(values) => null_bits(rows, |row| values[row] == Value::Null),
        _ => {
            let nulls = values.array().and_then(|array| array.nulls()).filter(|nulls| nulls.null_count() > 0);
            nulls.and_then(|nulls| null_bits(rows, |row| nulls.is_null(row)))
        }
    };
    if let Some(nulls) = nulls {
        put_bytes(1, &nulls, out);
    }
    match values {
        Values::Null => {}
        Values::Bools(array) => {
            let bits: Vec<u8> = (0..array.len()).map(|row| u8::from(array.value(row))).collect();
            put_packed(2, &bits, out);
        }
        Values::Ints(array) => put_varints(3, array, |it| it.cast_unsigned(), out),
        Values::Uints(array) => put_varints(4, array, |it| it, out),
        Values::Floats(array) => {
            let mut packed = Vec::with_capacity(array.len() * 8);
            for value in array.values() {
                packed.extend_from_slice(&value.to_le_bytes());
            }
            put_packed(5, &packed, out);
        }
        Values::Texts(array) => put_repeated(6, array, out),
        Values::Blobs(array) => put_repeated(7, array, out),
        Values::Decimals(array) => put_repeated(8, array, out),
        Values::Dates(array) => put_varints(9, array, |it| zigzag(it.into()), out),
        Values::Timestamps(array) => put_varints(10, array, zigzag, out),
        Values::Instants(array) => {
            let mut inner = Vec::new();
            put_list(array, zigzag, &mut inner);
            encode_key(2, WireType::Varint, &mut inner);
            encode_varint(1, &mut inner);
            put_bytes(10, &inner, out);
        }
        Values::Mixed(values) => put_mixed(values, out),
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

/// A field with a message whose field 1 is a packed list.
fn put_varints<T: ArrowPrimitiveType>(
    field: u32,
    array: &PrimitiveArray<T>,
    varint: impl Fn(T::Native) -> u64,
    out: &mut Vec<u8>,
) {
    let mut inner = Vec::with_capacity(array.len() * 3 + 8);
    put_list(array, varint, &mut inner);
    put_bytes(field, &inner, out);
}

/// Field 1: a packed list of varints.
fn put_list<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    varint: impl Fn(T::Native) -> u64,
    out: &mut Vec<u8>,
) {
    let length: usize = array.values().iter().map(|it| encoded_len_varint(varint(*it))).sum();
    if length > 0 {
        encode_key(1, WireType::LengthDelimited, out);
        encode_varint(length as u64, out);
    }
    for value in array.values() {
        encode_varint(varint(*value), out);
    }
}

fn put_packed(field: u32, packed: &[u8], out: &mut Vec<u8>) {
    let inner = 1 + encoded_len_varint(packed.len() as u64) + packed.len();
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(inner as u64, out);
    put_bytes(1, packed, out);
}

/// A field with a message whose field 1 is repeated.
fn put_repeated<T: ByteArrayType>(field: u32, array: &GenericByteArray<T>, out: &mut Vec<u8>) {
    let mut inner = Vec::with_capacity(array.value_data().len() + array.len() * 3);
    for row in 0..array.len() {
        let value: &[u8] = array.value(row).as_ref();
        put_bytes(1, value, &mut inner);
    }
    put_bytes(field, &inner, out);
}

fn put_mixed(values: &[Value], out: &mut Vec<u8>) {
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
    put_bytes(11, &inner, out);
}

fn put_bytes(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
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
    use sqlflow_proto::v1::{Column, Rows, column, value};

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
        assert!(matches!(texts.values, Some(V::Strings(it)) if it.values == ["é", "", ""]));
        let blobs = decoded(Values::Blobs(BinaryArray::from(vec![&b"\0\xff"[..], b""])), 2);
        assert!(matches!(blobs.values, Some(V::Blobs(it)) if it.values[0][..] == *b"\0\xff"));
        let decimals = decoded(Values::Decimals(StringArray::from(vec!["-12.50"])), 1);
        assert!(matches!(decimals.values, Some(V::Decimals(it)) if it.values == ["-12.50"]));
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
