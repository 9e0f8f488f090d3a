//! `sqlflow.gob`: one struct in the format of Go's `encoding/gob`, for SQLFlow's own tools.
//!
//! The struct is `type model struct { workDir string; TrainSelect string }`. Only the exported field is encoded.
//! A gob stream is a sequence of messages, each preceded by its length: first the type's description, then the value.
//! Source of the rules: the package documentation of Go's `encoding/gob`.

/// The type id that describes the struct. Go numbers user types from 64 or 65, by version; decoders take either.
const TYPE_ID: i64 = 65;
/// Ids that Go gives its built-in types.
const STRING_TYPE_ID: i64 = 6;
/// Field number of `StructT` in Go's `wireType`.
const STRUCT_FIELD: u64 = 3;

/// Encodes the model struct. An empty text is omitted, as gob does with zero values.
#[must_use]
pub fn encode_model(train_select: &str) -> Vec<u8> {
    let mut stream = message(&type_description());
    stream.extend(message(&value(train_select)));
    stream
}

/// `wireType{StructT: &structType{CommonType{Name: "model", Id: 65}, []fieldType{{"TrainSelect", string}}}}`
fn type_description() -> Vec<u8> {
    let mut out = Vec::new();
    // A negative id announces that the description of that type follows.
    put_int(&mut out, -TYPE_ID);
    put_uint(&mut out, STRUCT_FIELD);
    // structType: field 1, the common part.
    put_uint(&mut out, 1);
    put_uint(&mut out, 1);
    put_string(&mut out, "model");
    put_uint(&mut out, 1);
    put_int(&mut out, TYPE_ID);
    put_uint(&mut out, 0);
    // structType: field 2, a list of one field.
    put_uint(&mut out, 1);
    put_uint(&mut out, 1);
    put_uint(&mut out, 1);
    put_string(&mut out, "TrainSelect");
    put_uint(&mut out, 1);
    put_int(&mut out, STRING_TYPE_ID);
    // The ends of the field, of the struct type and of the wire type.
    out.extend([0, 0, 0]);
    out
}

fn value(train_select: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_int(&mut out, TYPE_ID);
    if !train_select.is_empty() {
        put_uint(&mut out, 1);
        put_string(&mut out, train_select);
    }
    put_uint(&mut out, 0);
    out
}

fn message(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 9);
    put_uint(&mut out, body.len() as u64);
    out.extend_from_slice(body);
    out
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put_uint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Below 128 one byte; else the negated count of bytes, then the bytes, most significant first.
fn put_uint(out: &mut Vec<u8>, value: u64) {
    if value < 128 {
        out.push(value.to_be_bytes()[7]);
        return;
    }
    let bytes = value.to_be_bytes();
    let significant = &bytes[(value.leading_zeros() / 8) as usize..];
    let count = i8::try_from(significant.len()).expect("a u64 has at most eight bytes");
    out.push(count.wrapping_neg().cast_unsigned());
    out.extend_from_slice(significant);
}

/// Signed: the value moved up by one bit, complemented when it is negative, which the lowest bit then says.
fn put_int(out: &mut Vec<u8>, value: i64) {
    let shifted = value.cast_unsigned() << 1;
    put_uint(out, if value < 0 { !shifted } else { shifted });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that Go's encoder wrote.
    const TYPE: &[u8] =
        b"\x23\xff\x81\x03\x01\x01\x05model\x01\xff\x82\x00\x01\x01\x01\x0bTrainSelect\x01\x0c\x00\x00\x00";

    #[test]
    fn model_is_encoded_like_by_go() {
        assert_eq!(encode_model("abc"), [TYPE, b"\x08\xff\x82\x01\x03abc\x00"].concat());
        assert_eq!(encode_model(""), [TYPE, b"\x03\xff\x82\x00"].concat());
    }

    #[test]
    fn long_text_has_a_length_of_several_bytes() {
        let text = "x".repeat(300);
        let encoded = encode_model(&text);
        let value = [b"\xfe\x01\x33\xff\x82\x01\xfe\x01\x2c", text.as_bytes(), b"\x00"].concat();
        assert_eq!(encoded, [TYPE, &value].concat());
    }
}
