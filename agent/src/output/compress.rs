//! Compresses records if the link is slower than compressing, and the records shrink.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use prost::Message as _;
use sqlflow_proto::agent::attach_request::Message;
use sqlflow_proto::agent::{CompressedRecords, RecordBatch};

/// Speed above which a link is faster than compressing, on any machine that runs a training.
const SLOW_LINK: f64 = 20e6;
/// Smaller batches are not compressed.
const WORTHWHILE: usize = 4 << 10;
/// Maximum ratio that is worth the time. Otherwise so many batches are skipped.
const SHRINKS: f64 = 0.8;
const SKIPPED: u32 = 32;

/// Measurements of the link and the records.
#[derive(Debug, Default)]
pub struct Compressor {
    /// The server supports it.
    enabled: bool,
    /// Compression ratio of the last batches.
    ratio: Option<f64>,
    skip: u32,
}

impl Compressor {
    /// For a new stream.
    pub fn new(enabled: bool) -> Self {
        Self { enabled, ..Self::default() }
    }

    /// Compresses a batch of records; returns any other message unchanged. `speed` is the speed of acknowledgements, in
    /// uncompressed bytes per second; 0: not known.
    pub fn compress(&mut self, message: Message, speed: u64) -> Message {
        match message {
            Message::Records(batch) if self.pays(batch.encoded_len(), speed) => self.compress_batch(batch),
            other => other,
        }
    }

    fn pays(&mut self, length: usize, speed: u64) -> bool {
        // Compressed records arrive faster than the link transfers bytes.
        let on_the_wire = speed as f64 * self.ratio.unwrap_or(1.0);
        if !self.enabled || length < WORTHWHILE || speed == 0 || on_the_wire > SLOW_LINK {
            return false;
        }
        self.skip = self.skip.saturating_sub(1);
        self.skip == 0
    }

    fn compress_batch(&mut self, batch: RecordBatch) -> Message {
        let raw = batch.encode_to_vec();
        let mut encoder = ZlibEncoder::new(Vec::with_capacity(raw.len() / 2), Compression::fast());
        let data = encoder.write_all(&raw).and_then(|()| encoder.finish()).expect("a Vec grows");
        let ratio = data.len() as f64 / raw.len() as f64;
        if ratio > SHRINKS {
            self.skip = SKIPPED;
            self.ratio = None;
            return Message::Records(batch);
        }
        self.ratio = Some(self.ratio.map_or(ratio, |before| 0.8 * before + 0.2 * ratio));
        let length = u32::try_from(raw.len()).expect("a batch is far smaller than 4 GiB");
        Message::Compressed(CompressedRecords { data: data.into(), length })
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::record::{Output, Record, record::Payload};

    use super::*;

    fn batch(data: Vec<u8>) -> Message {
        let output = Output { stream: 1, offset: 0, data: data.into() };
        let record = Record { seq: 1, payload: Some(Payload::Output(output)), ..Record::default() };
        Message::Records(RecordBatch { records: vec![record] })
    }

    fn is_compressed(message: &Message) -> bool {
        matches!(message, Message::Compressed(_))
    }

    #[test]
    fn text_on_a_slow_link_is_compressed_steadily() {
        let mut compressor = Compressor::new(true);
        let text = || batch(b"a line of a log\n".repeat(4096));
        assert!(!is_compressed(&compressor.compress(text(), 0)), "nothing is known yet");
        assert!(!is_compressed(&compressor.compress(text(), 500_000_000)), "a socket on one machine");
        assert!(is_compressed(&compressor.compress(text(), 5_000_000)));
        assert!(
            is_compressed(&compressor.compress(text(), 100_000_000)),
            "as fast only since it is compressed"
        );
        assert!(!is_compressed(&Compressor::new(false).compress(text(), 5_000_000)), "an older server");
    }

    #[test]
    fn incompressible_records_are_sent_raw_and_rarely_retried() {
        let mut compressor = Compressor::new(true);
        let mut state = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .take(64 << 10)
        .collect();
        assert!(!is_compressed(&compressor.compress(batch(noise), 5_000_000)));
        let text = || batch(vec![b'x'; 64 << 10]);
        let first = (1..100).find(|_| is_compressed(&compressor.compress(text(), 5_000_000)));
        assert_eq!(first, Some(SKIPPED));
    }
}
