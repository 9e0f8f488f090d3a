//! Values of several types, as a dense union.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, Float64Builder, Int64Builder, StringBuilder};
use arrow_array::{ArrayRef, NullArray, UnionArray};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{DataType, Field, UnionFields};
use sqlflow_database::Value;

/// The children of the union, in order.
const CHILDREN: [(&str, DataType); 5] = [
    ("null", DataType::Null),
    ("int", DataType::Int64),
    ("float", DataType::Float64),
    ("text", DataType::Utf8),
    ("blob", DataType::Binary),
];

pub(super) fn array(values: &[Value]) -> ArrayRef {
    let (mut nulls, mut ints, mut floats) = (0, Int64Builder::new(), Float64Builder::new());
    let (mut texts, mut blobs) = (StringBuilder::new(), BinaryBuilder::new());
    let mut counts = [0_i32; CHILDREN.len()];
    let (mut kinds, mut offsets) = (Vec::with_capacity(values.len()), Vec::with_capacity(values.len()));
    for value in values {
        let kind = match value {
            Value::Null => {
                nulls += 1;
                0
            }
            Value::Int(value) => {
                ints.append_value(*value);
                1
            }
            Value::Float(value) => {
                floats.append_value(*value);
                2
            }
            Value::Text(text) => {
                texts.append_value(text);
                3
            }
            Value::Blob(bytes) | Value::NotUtf8(bytes) => {
                blobs.append_value(bytes);
                4
            }
        };
        kinds.push(kind as i8);
        offsets.push(counts[kind]);
        counts[kind] += 1;
    }
    let fields = CHILDREN.into_iter().enumerate().map(|(id, (name, kind))| {
        (i8::try_from(id).unwrap_or_default(), Arc::new(Field::new(name, kind, true)))
    });
    let children: Vec<ArrayRef> = vec![
        Arc::new(NullArray::new(nulls)),
        Arc::new(ints.finish()),
        Arc::new(floats.finish()),
        Arc::new(texts.finish()),
        Arc::new(blobs.finish()),
    ];
    let fields: UnionFields = fields.collect();
    let union =
        UnionArray::try_new(fields, ScalarBuffer::from(kinds), Some(ScalarBuffer::from(offsets)), children);
    Arc::new(union.expect("each offset is within its child, by construction"))
}
