//! Rows as the published clients take them: a message for each, whose values are wrappers.

use prost::Message;
use prost_types::{Any, Timestamp};
use sqlflow_proto::published::{Response, Row, response, row};
use sqlflow_text::cell::{Batch, Cell};
use tonic::Status;

/// The range of google.protobuf.Timestamp, in seconds: the years 1 to 9999.
const FIRST_SECOND: i64 = -62_135_596_800;
const LAST_SECOND: i64 = 253_402_300_799;
const DAY: i64 = 86_400;

/// The error of rows that cannot be read.
pub(super) fn damaged(error: impl std::error::Error) -> Status {
    Status::data_loss(format!("cannot read rows: {error}"))
}

/// A row of a batch.
pub(super) fn response(batch: &Batch<'_>, index: usize) -> Response {
    let data = batch.row(index).map(|cell| any(&cell)).collect();
    Response { response: Some(response::Response::Row(Row { data })) }
}

/// These clients know wrappers, instants and NULL only.
fn any(cell: &Cell<'_>) -> Any {
    match *cell {
        Cell::Null => message("proto.Row.Null", &row::Null {}),
        Cell::Bool(value) => message("google.protobuf.BoolValue", &value),
        Cell::Int(value) => message("google.protobuf.Int64Value", &value),
        Cell::Uint(value) => message("google.protobuf.UInt64Value", &value),
        Cell::Double(value) => message("google.protobuf.DoubleValue", &value),
        Cell::Text(text) | Cell::Decimal(text) => message("google.protobuf.StringValue", &text.to_owned()),
        Cell::Blob(bytes) => message("google.protobuf.BytesValue", &bytes.to_vec()),
        Cell::Date(days) => instant(cell, i64::from(days) * DAY, 0),
        Cell::Timestamp { micros, .. } => {
            let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(0);
            instant(cell, micros.div_euclid(1_000_000), nanos)
        }
    }
}

/// An instant, or its text beyond the range of instants.
fn instant(cell: &Cell<'_>, seconds: i64, nanos: i32) -> Any {
    if (FIRST_SECOND..=LAST_SECOND).contains(&seconds) {
        return message("google.protobuf.Timestamp", &Timestamp { seconds, nanos });
    }
    let mut text = String::new();
    cell.push_exact(&mut text);
    message("google.protobuf.StringValue", &text)
}

fn message(name: &str, value: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: value.encode_to_vec() }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::v1::{Column, Rows, Value, Values, column, value};

    use super::*;

    /// The wrapper's name and bytes of a value.
    fn sent(value: value::Value) -> (String, Vec<u8>) {
        let values = column::Values::Mixed(Values { values: vec![Value { value: Some(value) }] });
        let rows = Rows { count: 1, columns: vec![Column { values: Some(values), ..Column::default() }] };
        let sent = response(&Batch::new(&rows).unwrap(), 0);
        let Some(response::Response::Row(mut row)) = sent.response else { panic!("{sent:?}") };
        let Any { type_url, value } = row.data.remove(0);
        (type_url.strip_prefix("type.googleapis.com/").unwrap().to_owned(), value)
    }

    #[test]
    fn values_are_wrappers_and_instants() {
        use value::Value as V;

        let of = |name: &str, value: &dyn Fn() -> Vec<u8>| (format!("google.protobuf.{name}"), value());
        let time = |seconds, nanos| of("Timestamp", &|| Timestamp { seconds, nanos }.encode_to_vec());
        let text = |text: &str| of("StringValue", &|| text.to_owned().encode_to_vec());
        assert_eq!(sent(V::BoolValue(true)), of("BoolValue", &|| true.encode_to_vec()));
        assert_eq!(sent(V::Int64Value(-1)), of("Int64Value", &|| (-1_i64).encode_to_vec()));
        assert_eq!(sent(V::Uint64Value(u64::MAX)), of("UInt64Value", &|| u64::MAX.encode_to_vec()));
        assert_eq!(sent(V::DoubleValue(0.5)), of("DoubleValue", &|| 0.5.encode_to_vec()));
        assert_eq!(sent(V::StringValue("é".to_owned())), text("é"));
        assert_eq!(sent(V::DecimalValue("-12.50".to_owned())), text("-12.50"));
        assert_eq!(sent(V::BlobValue(vec![0, 255].into())), of("BytesValue", &|| vec![10, 2, 0, 255]));
        assert_eq!(sent(V::DateValue(-1)), time(-DAY, 0));
        assert_eq!(sent(V::TimestampValue(-1)), time(-1, 999_999_000));
        assert_eq!(sent(V::TimestampValue(253_402_300_799_999_999)), time(LAST_SECOND, 999_999_000));
        assert_eq!(sent(V::DateValue(i32::MAX)), text("1970-01-01+2147483647d"), "no date of these clients");
    }
}
