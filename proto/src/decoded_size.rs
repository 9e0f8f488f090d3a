//! Memory that a message of an agent takes when it and the columns of its rows are decoded, found on its bytes. The server
//! decodes columns for its web pages only; clients decode all. An honest message takes a few times its
//! length; a hostile one takes a hundred times, and compressed ones a hundred thousand times.

use std::fmt;

use crate::agent::{AttachRequest, RecordBatch};
use crate::record::{Record, record::Payload};
use crate::v1;

/// Maximum memory of a decoded message. The largest honest one is a record of 16 MiB.
pub const MAX_DECODED_BYTES: usize = 64 << 20;
/// Maximum length of the parts of a message that are no records, such as an outcome.
const MAX_OTHER_MESSAGE: usize = 1 << 20;
/// Memory for the growth of a list: it doubles when it is full.
const GROWTH: usize = 2;
/// Memory for a byte of packed numbers: 8 bytes each.
const PACKED: usize = 8 * GROWTH;

/// A message may not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLarge {
    /// It would take more than [`MAX_DECODED_BYTES`].
    Decoded,
    /// Its parts that are no records have this length.
    Other(usize),
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decoded => write!(
                f,
                "cannot read a message: decoded it would take more than {MAX_DECODED_BYTES} bytes; send its records in \
                 smaller batches"
            ),
            Self::Other(length) => write!(
                f,
                "cannot read a message: beside records it has {length} bytes, and {MAX_OTHER_MESSAGE} is the most"
            ),
        }
    }
}

impl std::error::Error for TooLarge {}

/// Checks the bytes of an [`AttachRequest`].
///
/// # Errors
/// It must not be decoded.
pub fn check_request(raw: &[u8]) -> Result<(), TooLarge> {
    // Each field counts: one of several in a message is decoded like the last one, which is kept.
    let (mut memory, mut other) = (size_of::<AttachRequest>(), 0);
    for field in Fields(raw) {
        let Some(content) = field.content else { continue };
        match field.number {
            RECORDS => measure(Shape::Batch, content, &mut memory)?,
            // Its records are measured when they are decompressed.
            COMPRESSED => {}
            _ => other += content.len(),
        }
    }
    if other > MAX_OTHER_MESSAGE { Err(TooLarge::Other(other)) } else { Ok(()) }
}

/// Checks the bytes of a [`crate::agent::RecordBatch`].
///
/// # Errors
/// It must not be decoded.
pub fn check_batch(raw: &[u8]) -> Result<(), TooLarge> {
    measure(Shape::Batch, raw, &mut 0)
}

/// Memory of decoded records beyond their encoded bytes, without the growth of their lists. Texts and bytes are as long as
/// they are encoded.
#[must_use]
pub fn overhead(batch: &RecordBatch) -> usize {
    let lists = |record: &Record| match &record.payload {
        // Columns stay encoded.
        Some(Payload::Rows(rows)) => rows.columns.len() * size_of::<bytes::Bytes>(),
        Some(Payload::Head(head)) => {
            (head.column_names.len() + head.column_types.len()) * size_of::<String>()
        }
        Some(Payload::Metrics(report)) => report.metrics.len() * size_of::<v1::Metric>(),
        _ => 0,
    };
    batch.records.iter().map(|record| size_of::<Record>() + lists(record)).sum()
}

const RECORDS: u32 = 2;
const COMPRESSED: u32 = 6;

/// A message whose fields are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Batch,
    Record,
    Head,
    Rows,
    Column,
    /// Texts or byte strings.
    Texts,
    Mixed,
    Metrics,
    Numbers,
    /// Its texts and bytes are parts of the message, or as long as there.
    Flat,
}

impl Shape {
    /// The shape of a field's content, and the memory of a list's element for it.
    fn field(self, number: u32) -> Option<(Self, usize)> {
        Some(match (self, number) {
            (Self::Batch, 1) => (Self::Record, size_of::<Record>()),
            (Self::Record, 5) => (Self::Head, 0),
            (Self::Record, 6) => (Self::Rows, 0),
            (Self::Record, 10) => (Self::Metrics, 0),
            (Self::Head, 1) => (Self::Flat, size_of::<String>()),
            (Self::Head, 2) => (Self::Flat, size_of::<v1::ColumnType>()),
            (Self::Rows, 2) => (Self::Column, size_of::<v1::Column>()),
            (Self::Column, 2..=5 | 9 | 10) => (Self::Numbers, 0),
            (Self::Column, 6..=8) => (Self::Texts, 0),
            (Self::Column, 11) => (Self::Mixed, 0),
            (Self::Texts, 1) => (Self::Flat, size_of::<String>().max(size_of::<bytes::Bytes>())),
            (Self::Mixed, 1) => (Self::Flat, size_of::<v1::Value>()),
            (Self::Metrics, _) => (Self::Flat, size_of::<v1::Metric>()),
            _ => return None,
        })
    }
}

/// Adds the memory of a message to `memory`. Its depth is that of [`Shape`], so this does not recurse deeper.
fn measure(shape: Shape, raw: &[u8], memory: &mut usize) -> Result<(), TooLarge> {
    let own = match shape {
        Shape::Numbers => raw.len().saturating_mul(PACKED),
        Shape::Flat => raw.len(),
        _ => 0,
    };
    add(own, memory)?;
    if matches!(shape, Shape::Numbers | Shape::Flat) {
        return Ok(());
    }
    for field in Fields(raw) {
        let Some(content) = field.content else { continue };
        let (inner, element) = shape.field(field.number).unwrap_or((Shape::Flat, 0));
        add(element * GROWTH, memory)?;
        measure(inner, content, memory)?;
    }
    Ok(())
}

fn add(bytes: usize, memory: &mut usize) -> Result<(), TooLarge> {
    *memory = memory.saturating_add(bytes);
    if *memory > MAX_DECODED_BYTES { Err(TooLarge::Decoded) } else { Ok(()) }
}

/// A field of a message.
struct Field<'a> {
    number: u32,
    /// Of a field with a length.
    content: Option<&'a [u8]>,
}

/// Fields of a message, up to the first bytes that are none; decoding reports those.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok()?;
        let content = match key & 7 {
            0 => {
                self.varint()?;
                None
            }
            1 => {
                self.split(8)?;
                None
            }
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Some(self.split(length)?)
            }
            5 => {
                self.split(4)?;
                None
            }
            // Groups are not used; decoding skips those of unknown fields, which takes no memory.
            _ => None,
        };
        Some(Field { number, content })
    }
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        prost::encoding::decode_varint(&mut self.0).ok()
    }

    fn split(&mut self, length: usize) -> Option<&'a [u8]> {
        let (content, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::agent::{Outcome, attach_request};
    use crate::record::Output;

    fn request(message: attach_request::Message) -> Vec<u8> {
        AttachRequest { message: Some(message) }.encode_to_vec()
    }

    fn record(payload: Payload) -> Record {
        Record {
            seq: 7,
            time_unix_micros: 1_700_000_000_000_000,
            payload: Some(payload),
            ..Record::default()
        }
    }

    fn batch(records: Vec<Record>) -> Vec<u8> {
        request(attach_request::Message::Records(RecordBatch { records }))
    }

    fn column(values: v1::column::Values) -> Record {
        let column = v1::Column { values: Some(values), ..v1::Column::default() };
        record(Payload::Rows(v1::Rows { count: 1, columns: vec![column] }.into()))
    }

    fn output(bytes: usize) -> Record {
        record(Payload::Output(Output { data: vec![b'x'; bytes].into(), ..Output::default() }))
    }

    #[test]
    fn honest_messages_pass() {
        assert_eq!(check_request(&batch(vec![output(1); 50_000])), Ok(()));
        assert_eq!(check_request(&batch(vec![output(16 << 20)])), Ok(()));
        let texts = std::iter::repeat_n("abc", 500_000).collect();
        assert_eq!(check_request(&batch(vec![column(v1::column::Values::Strings(texts))])), Ok(()));
        let numbers = v1::Int64s { values: vec![1 << 40; 500_000] };
        assert_eq!(check_request(&batch(vec![column(v1::column::Values::Int64s(numbers))])), Ok(()));
        assert_eq!(check_request(&request(attach_request::Message::Outcome(Outcome::default()))), Ok(()));
        assert_eq!(check_request(b"\xff\xff"), Ok(()), "decoding refuses it");
    }

    #[test]
    fn messages_that_would_take_much_memory_are_refused() {
        let of = |values| check_request(&batch(vec![column(values)]));
        let count = 3 << 19;
        for message in [
            check_request(&batch(vec![Record::default(); 1 << 20])),
            of(v1::column::Values::Strings(std::iter::repeat_n("", count).collect())),
            of(v1::column::Values::Decimals(std::iter::repeat_n("", count).collect())),
            of(v1::column::Values::Blobs(v1::Blobs { values: vec![bytes::Bytes::new(); count] })),
            of(v1::column::Values::Mixed(v1::Values { values: vec![v1::Value::default(); count] })),
            of(v1::column::Values::Int64s(v1::Int64s { values: vec![0; 3 * count] })),
            of(v1::column::Values::Bools(v1::Bools { values: vec![true; 3 * count] })),
            check_request(&batch(vec![record(Payload::Head(v1::Head {
                column_names: vec![String::new(); count],
                ..v1::Head::default()
            }))])),
            check_request(&batch(vec![record(Payload::Rows(v1::EncodedRows {
                count: 0,
                columns: vec![bytes::Bytes::new(); count],
            }))])),
            check_request(&batch(vec![record(Payload::Metrics(v1::Metrics {
                metrics: vec![v1::Metric::default(); count],
                ..v1::Metrics::default()
            }))])),
        ] {
            assert_eq!(message, Err(TooLarge::Decoded));
        }
        let phases = vec![crate::agent::PhaseTime::default(); 1 << 20];
        let outcome = Outcome { phases, ..Outcome::default() };
        let outcome = request(attach_request::Message::Outcome(outcome));
        let long = check_request(&outcome);
        assert!(matches!(long, Err(TooLarge::Other(_))), "{long:?}");
        // Records before it, which it replaces.
        let empty = request(attach_request::Message::Records(RecordBatch::default()));
        for records in [empty, vec![0x32, 0]] {
            let hidden = check_request(&[records, outcome.clone()].concat());
            assert!(matches!(hidden, Err(TooLarge::Other(_))), "{hidden:?}");
        }
    }

    /// Two bytes each: the records are counted before any of them exists.
    #[test]
    fn records_are_counted_on_the_bytes() {
        let raw = [0x0a, 0].repeat(8 << 20);
        assert_eq!(check_batch(&raw), Err(TooLarge::Decoded));
        assert_eq!(check_batch(&raw[..2000]), Ok(()));
    }

    #[test]
    fn memory_of_decoded_records_is_near_the_measured_one() {
        for records in [vec![Record::default(); 1000], vec![output(1000)]] {
            let batch = RecordBatch { records };
            let mut measured = 0;
            measure(Shape::Batch, &batch.encode_to_vec(), &mut measured).unwrap();
            let memory = batch.encoded_len() + overhead(&batch);
            assert!(memory <= 3 * measured && measured <= 3 * memory, "{memory} {measured}");
        }
    }

    /// A repeated field of numbers need not be packed.
    #[test]
    fn unpacked_numbers_count() {
        let numbers = [0x08, 0].repeat(3 << 20);
        assert_eq!(measure(Shape::Numbers, &numbers, &mut 0), Err(TooLarge::Decoded));
    }
}
