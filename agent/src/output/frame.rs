//! Length-delimited records that come back from a disk, where they may have been damaged.

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use sqlflow_proto::MAX_RECORD_BYTES;
use sqlflow_proto::record::Record;

/// Longest length before a record.
const MAX_VARINT: usize = 10;
/// So many bytes hold a whole record, if they begin with one.
pub(super) const MAX_FRAME: usize = MAX_RECORD_BYTES + MAX_VARINT;

/// What is at the front of some bytes.
#[derive(Debug)]
pub(super) enum Front {
    Record(Record),
    /// A record that cannot be decoded.
    Damaged,
    /// The beginning of a record.
    Incomplete,
    /// No record: where the next one begins is not known.
    Unframed,
}

impl Front {
    /// Takes it from the front of `bytes`.
    pub(super) fn take(bytes: &mut Bytes) -> Self {
        let available = bytes.len();
        let length = match prost::decode_length_delimiter(&mut *bytes) {
            Ok(length) if length <= MAX_RECORD_BYTES => length,
            Err(_) if available < MAX_VARINT => return Self::Incomplete,
            Ok(_) | Err(_) => return Self::Unframed,
        };
        if bytes.remaining() < length {
            return Self::Incomplete;
        }
        Record::decode(bytes.split_to(length)).map_or(Self::Damaged, Self::Record)
    }
}

/// How many records these bytes are, which never left memory.
pub(super) fn count(mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    while let Ok(length) = prost::decode_length_delimiter(&mut bytes) {
        bytes = bytes.get(length..).unwrap_or_default();
        count += 1;
    }
    count
}
