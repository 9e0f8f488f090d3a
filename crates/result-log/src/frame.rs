//! The format of a segment file. All numbers are little endian.
//!
//! ```text
//! file  = "SQLFLOG1" frame*          the first frame is a summary
//! frame = length:u32 crc:u32 payload length counts the payload; crc is the CRC-32 of length and payload
//! payload = kind:u8 message          1: StoredRecord, 2: SealedAttempt, 3: Summary
//! ```
//!
//! A payload has at least one byte. So zeros, which a file system may leave after a crash, are no frame. Records are in
//! order of positions.

use bytes::{Buf as _, Bytes};
use prost::Message;
use sqlflow_proto::record::StoredRecord;

use super::summary::{SealedAttempt, Summary};

/// The beginning of a file: magic number and version.
pub(super) const HEADER: [u8; 8] = *b"SQLFLOG1";
/// Size of length and checksum.
pub(super) const PREFIX: usize = 8;
/// Minimum size of a record: its kind and a position.
pub(super) const SHORTEST_RECORD: u64 = PREFIX as u64 + 3;

/// Content of a frame.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Record(StoredRecord),
    Seal(SealedAttempt),
    Summary(Summary),
}

const RECORD: u8 = 1;
const SEAL: u8 = 2;
const SUMMARY: u8 = 3;

const UNDECODABLE: &str = "a message cannot be decoded";

/// Size of a record in a file.
pub(super) fn record_len(record: &StoredRecord) -> u64 {
    (PREFIX + 1 + record.encoded_len()) as u64
}

pub(super) fn push_record(buffer: &mut Vec<u8>, record: &StoredRecord) {
    push(buffer, RECORD, record);
}

pub(super) fn push_seal(buffer: &mut Vec<u8>, seal: &SealedAttempt) {
    push(buffer, SEAL, seal);
}

pub(super) fn push_summary(buffer: &mut Vec<u8>, summary: &Summary) {
    push(buffer, SUMMARY, summary);
}

fn push(buffer: &mut Vec<u8>, kind: u8, message: &impl Message) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; PREFIX]);
    buffer.push(kind);
    message.encode(buffer).expect("a Vec grows as needed");
    let length = u32::try_from(buffer.len() - start - PREFIX).expect("records are far smaller than 4 GiB");
    let length = length.to_le_bytes();
    let crc = checksum(length, &buffer[start + PREFIX..]);
    buffer[start..start + 4].copy_from_slice(&length);
    buffer[start + 4..start + PREFIX].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

/// A frame, of which only the length is checked.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// Its offset in the file.
    pub(super) offset: u64,
    crc: u32,
    payload: Bytes,
}

impl Frame {
    /// Its size in the file.
    pub(super) fn len(&self) -> u64 {
        (PREFIX + self.payload.len()) as u64
    }

    /// Offset of the next frame.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.len()
    }

    /// Checks the checksum; the error describes the fault.
    pub(super) fn checked(&self) -> Result<Checked<'_>, &'static str> {
        let length = u32::try_from(self.payload.len()).map_err(|_| "a frame is too long")?;
        if checksum(length.to_le_bytes(), &self.payload) == self.crc {
            Ok(Checked(self))
        } else {
            Err("a checksum does not match")
        }
    }

    /// Decodes the content; the error describes the fault.
    pub(super) fn content(&self) -> Result<Content, &'static str> {
        self.checked()?.content()
    }
}

/// A frame with a valid checksum.
#[derive(Clone, Copy)]
pub(super) struct Checked<'a>(&'a Frame);

impl Checked<'_> {
    /// The position, if it is a record. Cheaper than decoding.
    pub(super) fn position(self) -> Result<Option<u64>, &'static str> {
        /// The beginning of a `StoredRecord`.
        #[derive(Message)]
        struct Positioned {
            #[prost(uint64, tag = "1")]
            position: u64,
        }
        if self.0.payload[0] != RECORD {
            return Ok(None);
        }
        let positioned = Positioned::decode(self.0.payload.slice(1..));
        positioned.map(|it| Some(it.position)).map_err(|_| UNDECODABLE)
    }

    /// Decodes the content. Bytes in the record are slices of the buffer.
    pub(super) fn content(self) -> Result<Content, &'static str> {
        let message = self.0.payload.slice(1..);
        let content = match self.0.payload[0] {
            RECORD => StoredRecord::decode(message).map(Content::Record),
            SEAL => SealedAttempt::decode(message).map(Content::Seal),
            SUMMARY => Summary::decode(message).map(Content::Summary),
            _ => return Err("a frame is of a kind that this version does not know"),
        };
        content.map_err(|_| UNDECODABLE)
    }
}

/// The frames in a part of a file.
pub(super) struct Frames {
    rest: Bytes,
    offset: u64,
}

/// Next frame in a part of a file.
pub(super) enum Next {
    Frame(Frame),
    /// The end of the part.
    End,
    /// The part ends within a frame of at least this many bytes.
    Partial(u64),
    /// There is no frame here.
    Bad(&'static str),
}

impl Frames {
    /// Reads the frames of `part`, which is at `offset` in its file. A frame begins there.
    pub(super) fn new(part: Bytes, offset: u64) -> Self {
        Self { rest: part, offset }
    }

    /// Offset of the next frame.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn next(&mut self) -> Next {
        if self.rest.is_empty() {
            return Next::End;
        }
        if self.rest.len() < PREFIX + 1 {
            return Next::Partial(PREFIX as u64 + 1);
        }
        let mut prefix = &self.rest[..PREFIX];
        let length = prefix.get_u32_le() as usize;
        let crc = prefix.get_u32_le();
        if length == 0 {
            return Next::Bad("a frame has no payload");
        }
        if self.rest.len() < PREFIX + length {
            return Next::Partial((PREFIX + length) as u64);
        }
        let payload = self.rest.split_to(PREFIX + length).slice(PREFIX..);
        let frame = Frame { offset: self.offset, crc, payload };
        self.offset = frame.end();
        Next::Frame(frame)
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::record::{Output, Record, record::Payload};

    use super::*;

    fn record(position: u64, data: &'static [u8]) -> StoredRecord {
        let output = Output { data: Bytes::from_static(data), ..Output::default() };
        let record = Record { seq: position, payload: Some(Payload::Output(output)), ..Record::default() };
        StoredRecord { position, step: 1, attempt: 2, record: Some(record), ..StoredRecord::default() }
    }

    #[test]
    fn frames_round_trip() {
        let mut buffer = Vec::new();
        push_record(&mut buffer, &record(7, b"hello"));
        assert_eq!(buffer.len() as u64, record_len(&record(7, b"hello")));
        push_seal(&mut buffer, &SealedAttempt { step: 1, attempt: 2 });
        let end = buffer.len() as u64;
        let mut frames = Frames::new(buffer.into(), 100);
        let Next::Frame(first) = frames.next() else { panic!() };
        assert_eq!((first.offset, first.checked().unwrap().position()), (100, Ok(Some(7))));
        assert_eq!(first.content(), Ok(Content::Record(record(7, b"hello"))));
        let Next::Frame(second) = frames.next() else { panic!() };
        assert_eq!(second.content(), Ok(Content::Seal(SealedAttempt { step: 1, attempt: 2 })));
        assert_eq!((second.checked().unwrap().position(), second.end()), (Ok(None), 100 + end));
        assert!(matches!(frames.next(), Next::End));
    }

    #[test]
    fn flipped_bits_and_cuts_are_detected() {
        let mut buffer = Vec::new();
        push_record(&mut buffer, &record(7, b"hello"));
        for bit in 0..buffer.len() * 8 {
            let mut bytes = buffer.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Next::Frame(frame) = Frames::new(bytes.into(), 0).next() {
                assert!(frame.content().is_err(), "bit {bit}");
            }
        }
        for cut in 1..buffer.len() {
            let part = Bytes::copy_from_slice(&buffer[..cut]);
            assert!(matches!(Frames::new(part, 0).next(), Next::Partial(_)), "cut at {cut}");
        }
        assert!(matches!(Frames::new(Bytes::from_static(&[0; 64]), 0).next(), Next::Bad(_)));
    }
}
