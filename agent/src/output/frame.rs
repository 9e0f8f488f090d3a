//! Length-delimited records from a disk, where they may have been damaged.

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use sqlflow_proto::MAX_RECORD_BYTES;
use sqlflow_proto::record::Record;

/// Maximum size of the length before a record.
const MAX_VARINT: usize = 10;
/// Maximum size of a record with its length.
pub(super) const MAX_FRAME: usize = MAX_RECORD_BYTES + MAX_VARINT;

/// What some bytes begin with.
#[derive(Debug)]
pub(super) enum Front {
    Record(Record),
    /// A record that cannot be decoded.
    Damaged,
    /// The beginning of a record.
    Incomplete,
    /// Not a record; the start of the next one is unknown.
    Unframed,
}

impl Front {
    /// Takes it from `bytes`.
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

/// Number of records in these bytes, which were not read from a disk.
pub(super) fn count(mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    while let Ok(length) = prost::decode_length_delimiter(&mut bytes) {
        bytes = bytes.get(length..).unwrap_or_default();
        count += 1;
    }
    count
}
