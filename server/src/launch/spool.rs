//! What a dead agent left on disk of the records that no server took: length-delimited, in order. There may be hundreds
//! of megabytes of it, so it is read in batches.

use std::fs::File;
use std::io;
use std::path::Path;

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::decode_varint;
use sqlflow_proto::record::Record;
use tokio::io::{AsyncReadExt as _, BufReader};

/// So much is read at a time, or one record that is larger.
const BATCH_BYTES: usize = 1 << 20;
/// No agent makes a larger record: its own channel takes frames of 16 MiB.
const MAX_RECORD_BYTES: usize = 17 << 20;
const MAX_VARINT_BYTES: usize = 10;

/// The records of one attempt. In memory are at most [`BATCH_BYTES`] and one record.
#[derive(Debug)]
pub struct Spool(BufReader<tokio::fs::File>);

impl Spool {
    /// `None`: there is none at this path.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Ok(Some(Self(BufReader::with_capacity(BATCH_BYTES, file.into())))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The records that follow; none at the end.
    ///
    /// # Errors
    /// The file cannot be read, or what follows is no record.
    pub async fn batch(&mut self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && let Some(record) = self.next().await?
        {
            bytes += record.len();
            records.push(Record::decode(record).map_err(io::Error::other)?);
        }
        Ok(records)
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let Some(length) = self.length().await? else { return Ok(None) };
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_RECORD_BYTES);
        let mut record =
            vec![0; length.ok_or_else(|| io::Error::other("a record of more bytes than any has"))?];
        self.0.read_exact(&mut record).await?;
        Ok(Some(record.into()))
    }

    /// The length of the next record; `None`: there is no more.
    async fn length(&mut self) -> io::Result<Option<u64>> {
        let mut varint = Vec::new();
        loop {
            match self.0.read_u8().await {
                Ok(byte) => varint.push(byte),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && varint.is_empty() => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
            if varint.last().is_some_and(|byte| byte & 0x80 == 0) || varint.len() == MAX_VARINT_BYTES {
                return decode_varint(&mut varint.as_slice()).map(Some).map_err(io::Error::other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::record::{Output, record::Payload};

    use super::*;

    fn records() -> Vec<Record> {
        let sizes = [0, 1, BATCH_BYTES, 3, BATCH_BYTES / 2, BATCH_BYTES / 2, BATCH_BYTES / 2, 7];
        let record = |(seq, size)| {
            let output = Output { data: vec![b'x'; size].into(), ..Output::default() };
            Record { seq, payload: Some(Payload::Output(output)), ..Record::default() }
        };
        (1..).zip(sizes).map(record).collect()
    }

    async fn read(bytes: &[u8]) -> (Vec<Record>, Option<io::Error>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut spool = Spool::open(file.path()).unwrap().unwrap();
        let mut all = Vec::new();
        loop {
            match spool.batch().await {
                Ok(batch) if batch.is_empty() => return (all, None),
                Ok(batch) => {
                    let size: usize = batch.iter().rev().skip(1).map(Record::encoded_len).sum();
                    assert!(size < BATCH_BYTES);
                    all.extend(batch);
                }
                Err(error) => return (all, Some(error)),
            }
        }
    }

    #[tokio::test]
    async fn all_records_come_in_batches() {
        let bytes: Vec<_> = records().iter().flat_map(Record::encode_length_delimited_to_vec).collect();
        let (read_back, error) = read(&bytes).await;
        assert_eq!((read_back, error.is_none()), (records(), true));
        assert!(Spool::open(Path::new("/no/such/spool")).unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_no_spool_is_an_error_and_takes_no_memory() {
        let whole = records()[1].encode_length_delimited_to_vec();
        let torn = &whole[..whole.len() - 1];
        for bytes in [torn, &[0x80], &[0xff; 40], &[0xff, 0xff, 0xff, 0xff, 0xff, 1], &[2, 0xff, 0xff]] {
            let (records, error) = read(bytes).await;
            assert!(records.is_empty() && error.is_some(), "{bytes:?}");
        }
    }
}
