//! The spool: records that a dead agent left on disk, because no server took them. They are length-delimited and in
//! order. A spool may have hundreds of megabytes, so it is read in batches.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message as _;
use prost::encoding::decode_varint;
use sqlflow_agent_files::{BLOCK, SPOOL_MAGIC, Seal, TAG};
use sqlflow_proto::MAX_RECORD_BYTES;
use sqlflow_proto::record::Record;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use super::RecordSource;

/// Maximum size of a batch, unless a single record is larger.
const BATCH_BYTES: usize = 1 << 20;
/// Size of a read.
const READ_BYTES: usize = 64 << 10;
const MAX_VARINT_BYTES: usize = 10;

/// The spool of one attempt. Memory: one batch and twice [`READ_BYTES`].
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    seal: Option<Seal>,
    /// The open file; `None`: not opened yet.
    file: Option<Content>,
    /// Data after the last batch.
    fault: Option<io::Error>,
}

impl Spool {
    /// A spool at this path, which may not exist, of an agent with this seal; `None`: not known.
    pub fn at(path: PathBuf, seal: Option<Seal>) -> Self {
        Self { path, seal, file: None, fault: None }
    }
}

#[async_trait]
impl RecordSource for Spool {
    async fn batch(&mut self) -> io::Result<Vec<Record>> {
        if let Some(error) = self.fault.take() {
            return Err(error);
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => match File::open(&self.path).await {
                Ok(file) => self.file.insert(Content::open(file, self.seal.clone()).await?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            },
        };
        let mut records = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES {
            match next(file).await {
                Ok(Some((record, encoded_bytes))) => {
                    bytes += encoded_bytes + size_of::<Record>();
                    records.push(record);
                }
                Ok(None) => break,
                Err(error) if records.is_empty() => return Err(error),
                Err(error) => {
                    self.fault = Some(error);
                    break;
                }
            }
        }
        Ok(records)
    }
}

/// The next record and its size.
async fn next(file: &mut Content) -> io::Result<Option<(Record, usize)>> {
    let Some(length) = length(file).await? else { return Ok(None) };
    let length = usize::try_from(length).ok().filter(|length| *length <= MAX_RECORD_BYTES);
    let length = length.ok_or_else(|| invalid("a record is longer than the maximum"))?;
    let mut encoded = vec![0; length];
    file.read_exact(&mut encoded).await?;
    let record = Record::decode(Bytes::from(encoded)).map_err(invalid)?;
    if record.seq == 0 {
        // Sequence numbers begin with 1. A block of zeros looks like 0.
        return Err(invalid("a record has no sequence number"));
    }
    Ok(Some((record, length)))
}

/// The size of the next record; `None`: the end.
async fn length(file: &mut Content) -> io::Result<Option<u64>> {
    let mut varint = Vec::new();
    loop {
        match file.read_u8().await {
            Ok(byte) => varint.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && varint.is_empty() => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        if varint.last().is_some_and(|byte| byte & 0x80 == 0) || varint.len() == MAX_VARINT_BYTES {
            return decode_varint(&mut varint.as_slice()).map(Some).map_err(invalid);
        }
    }
}

/// The content of a spool. Of a sealed one, only blocks with the right tag are read.
#[derive(Debug)]
struct Content {
    file: BufReader<File>,
    form: Form,
    /// The current block, or part of the file, and the position in it.
    block: Vec<u8>,
    at: usize,
    blocks: u64,
}

#[derive(Debug)]
enum Form {
    /// Records only, as earlier agents write it.
    Plain,
    /// Blocks with tags, which are checked if the seal is known.
    Sealed(Option<Seal>),
}

impl Content {
    async fn open(file: File, seal: Option<Seal>) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(READ_BYTES, file);
        let is_sealed = file.fill_buf().await?.starts_with(&SPOOL_MAGIC);
        let form = match (is_sealed, seal) {
            (true, seal) => {
                file.consume(SPOOL_MAGIC.len());
                Form::Sealed(seal)
            }
            (false, None) => Form::Plain,
            (false, Some(_)) => return Err(invalid("the spool does not have the agent's seal")),
        };
        Ok(Self { file, form, block: Vec::new(), at: 0, blocks: 0 })
    }

    /// Reads the next block, which is empty at the end.
    async fn fill(&mut self) -> io::Result<()> {
        let length = match &self.form {
            Form::Plain => READ_BYTES,
            Form::Sealed(_) => BLOCK + TAG,
        };
        self.block.clear();
        self.at = 0;
        (&mut self.file).take(length as u64).read_to_end(&mut self.block).await?;
        let Form::Sealed(seal) = &self.form else { return Ok(()) };
        if self.block.is_empty() {
            return Ok(());
        }
        let tag = self.block.split_off(self.block.len().saturating_sub(TAG));
        if seal.as_ref().is_some_and(|seal| !seal.is_of_block(self.blocks, &self.block, &tag)) {
            self.block.clear();
            return Err(invalid("a block of the spool does not have the agent's seal"));
        }
        self.blocks += 1;
        Ok(())
    }

    async fn read_u8(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.read_exact(&mut byte).await?;
        Ok(byte[0])
    }

    async fn read_exact(&mut self, mut target: &mut [u8]) -> io::Result<()> {
        while !target.is_empty() {
            if self.at == self.block.len() {
                self.fill().await?;
                if self.block.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            let rest = &self.block[self.at..];
            let taken = rest.len().min(target.len());
            let (now, later) = target.split_at_mut(taken);
            now.copy_from_slice(&rest[..taken]);
            self.at += taken;
            target = later;
        }
        Ok(())
    }
}

fn invalid(why: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use sqlflow_agent_files::SpoolWriter;
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
        read_sealed(bytes, None).await
    }

    async fn read_sealed(bytes: &[u8], seal: Option<&Seal>) -> (Vec<Record>, Option<io::Error>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut spool = Spool::at(file.path().to_owned(), seal.cloned());
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
    async fn records_come_in_batches() {
        let bytes: Vec<_> = records().iter().flat_map(Record::encode_length_delimited_to_vec).collect();
        let (read_back, error) = read(&bytes).await;
        assert_eq!((read_back, error.is_none()), (records(), true));
        assert_eq!(Spool::at("/no/such/spool".into(), None).batch().await.unwrap(), []);
    }

    #[tokio::test]
    async fn invalid_spool_is_an_error() {
        let whole = records()[1].encode_length_delimited_to_vec();
        let torn = &whole[..whole.len() - 1];
        let too_long = &[0xff, 0xff, 0xff, 0xff, 0xff, 1];
        for bytes in [torn, &[0x80], &[0xff; 40], too_long, &[2, 0xff, 0xff], &[0; 4096]] {
            let (records, error) = read(bytes).await;
            let kind = error.unwrap().kind();
            assert!(matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof), "{kind}");
            assert!(records.is_empty(), "{bytes:?}");
            let (records, error) = read(&[&whole, bytes].concat()).await;
            assert!(records.len() == 1 && error.is_some(), "what was read before is kept");
        }
    }

    #[tokio::test]
    async fn only_blocks_with_the_seal_are_read() {
        let (seal, other) = (Seal::of_instance(b"key"), Seal::of_instance(b"other"));
        let bytes: Vec<_> = records().iter().flat_map(Record::encode_length_delimited_to_vec).collect();
        let mut sealed = Vec::new();
        let mut writer = SpoolWriter::begin(&mut sealed, Some(&seal)).unwrap();
        writer.write_all(&bytes).unwrap();
        writer.finish().unwrap();
        for known in [Some(&seal), None] {
            let (read_back, error) = read_sealed(&sealed, known).await;
            assert_eq!(
                (read_back, error.is_none()),
                (records(), true),
                "also after the restore of an older state"
            );
        }
        let refused = async |bytes: &[u8], seal: &Seal, most: usize| {
            let (records, error) = read_sealed(bytes, Some(seal)).await;
            assert_eq!(error.unwrap().kind(), io::ErrorKind::InvalidData);
            assert!(records.len() <= most, "{}", records.len());
        };
        refused(&sealed, &other, 0).await;
        refused(&bytes, &seal, 0).await;
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        refused(&changed, &seal, records().len() - 1).await;
        let torn = &sealed[..sealed.len() - 1];
        refused(torn, &seal, records().len() - 1).await;
    }
}
