//! Compressed record batches of agents.

use std::io::Read as _;

use flate2::read::ZlibDecoder;
use prost::Message as _;
use sqlflow_proto::agent::attach_request::Message;
use sqlflow_proto::agent::{AttachRequest, RecordBatch};
use sqlflow_proto::decoded_size;
use tonic::Status;

use super::MAX_AGENT_MESSAGE_BYTES;

/// Decompresses a compressed batch; returns any other message unchanged. The result is never larger than the message
/// limit, nor takes more memory than a message may.
///
/// # Errors
/// INVALID_ARGUMENT: it is not a valid compressed batch. RESOURCE_EXHAUSTED: it would take too much memory.
pub(super) fn open(request: AttachRequest) -> Result<AttachRequest, Status> {
    let Some(Message::Compressed(compressed)) = request.message else { return Ok(request) };
    let length = compressed.length as usize;
    if length > MAX_AGENT_MESSAGE_BYTES {
        return Err(Status::invalid_argument("a compressed batch is larger than a message may be"));
    }
    let mut raw = Vec::with_capacity(length.min(2 << 20));
    let read = ZlibDecoder::new(&compressed.data[..]).take(length as u64 + 1).read_to_end(&mut raw);
    if !read.is_ok_and(|read| read == length) {
        return Err(Status::invalid_argument("a compressed batch has not the length that it should have"));
    }
    // Zeros compress a thousandfold, and every two of them may be a record.
    decoded_size::check_batch(&raw).map_err(|error| Status::resource_exhausted(error.to_string()))?;
    let batch = RecordBatch::decode(bytes::Bytes::from(raw))
        .map_err(|error| Status::invalid_argument(format!("a compressed batch cannot be read: {error}")))?;
    Ok(AttachRequest { message: Some(Message::Records(batch)) })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use sqlflow_proto::agent::CompressedRecords;
    use sqlflow_proto::record::Record;

    use super::*;

    fn compressed(raw: &[u8], length: u32) -> AttachRequest {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(raw).unwrap();
        let data = encoder.finish().unwrap().into();
        AttachRequest { message: Some(Message::Compressed(CompressedRecords { data, length })) }
    }

    #[test]
    fn compressed_batch_round_trips() {
        let batch = RecordBatch { records: vec![Record { seq: 7, ..Record::default() }] };
        let raw = batch.encode_to_vec();
        let opened = open(compressed(&raw, u32::try_from(raw.len()).unwrap())).unwrap();
        assert_eq!(opened.message, Some(Message::Records(batch)));
    }

    #[test]
    fn invalid_compressed_batch_is_refused() {
        let bomb = vec![0; 10 << 20];
        for (raw, length) in [(&bomb[..], 5), (b"abc", 400), (b"abc", u32::MAX), (b"\xff\xff", 2)] {
            assert_eq!(open(compressed(raw, length)).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
        let empty = [0x0a, 0].repeat(8 << 20);
        let flood = compressed(&empty, u32::try_from(empty.len()).unwrap());
        let sent = flood.encoded_len();
        assert!(sent < 100_000, "{sent}");
        assert_eq!(open(flood).unwrap_err().code(), tonic::Code::ResourceExhausted);
        let noise = CompressedRecords { data: "no zlib".into(), length: 7 };
        assert!(open(AttachRequest { message: Some(Message::Compressed(noise)) }).is_err());
    }
}
