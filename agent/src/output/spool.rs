//! The spool: unacknowledged records on disk, length-delimited, in order, durable before the agent exits.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use prost::Message as _;
use sqlflow_agent_files::{Seal, SpoolWriter};
use sqlflow_os::durable;

use super::link::Unacked;
use super::overflow::{Copied, Overflow};
use crate::exhaustion::retry_exhaustion;

/// Name in the run folder.
pub const FILE: &str = "spool";

/// Writes all unacknowledged records to `<dir>/spool`, or as many of the first ones as can be read and fit on the disk.
/// A server takes the complete records, and detects a truncated last one. Exhaustion, such as of descriptors, is
/// retried for `limit`. Blocks.
///
/// # Errors
/// The file cannot be written durably.
pub fn leave(
    limit: Duration,
    dir: &Path,
    seal: Option<&Seal>,
    unacked: &Unacked,
    overflow: Option<&Overflow>,
) -> anyhow::Result<()> {
    retry_exhaustion(limit, || Ok(write(dir, seal, unacked, overflow)?))
}

fn write(dir: &Path, seal: Option<&Seal>, unacked: &Unacked, overflow: Option<&Overflow>) -> io::Result<()> {
    durable::replace(&dir.join(FILE), |file| {
        durable::close_to_others(file);
        match write_sealed(file, seal, unacked, overflow) {
            Err(error) if is_full(&error) => {
                tracing::error!(%error, "cannot write all of the spool; keeping the records that fit");
                Ok(())
            }
            written => written,
        }
    })
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn write_sealed(
    file: &mut impl io::Write,
    seal: Option<&Seal>,
    unacked: &Unacked,
    overflow: Option<&Overflow>,
) -> io::Result<()> {
    let mut writer = SpoolWriter::begin(file, seal)?;
    write_all(&mut writer, unacked, overflow)?;
    writer.finish()
}

fn write_all(file: &mut impl io::Write, unacked: &Unacked, overflow: Option<&Overflow>) -> io::Result<()> {
    let mut encoded = BytesMut::new();
    for record in &unacked.records {
        record.encode_length_delimited(&mut encoded)?;
    }
    file.write_all(&encoded)?;
    if let Some(overflow) = overflow {
        match overflow.copy_to(unacked.on_disk.clone(), file)? {
            Copied::Whole => {}
            // The start of the next record would not be found in the spool.
            Copied::Beginning => return Ok(()),
        }
    }
    file.write_all(&unacked.encoded)
}

#[cfg(test)]
mod tests {
    use sqlflow_os::small_disk;
    use sqlflow_proto::record::{Output, Record, record::Payload};

    use super::*;

    #[test]
    fn on_a_small_disk() {
        let Some(dir) = small_disk::here() else { return };
        let record = |seq| {
            let output = Output { data: vec![b'x'; 100 << 10].into(), ..Output::default() };
            Record { seq, payload: Some(Payload::Output(output)), ..Record::default() }
        };
        let unacked =
            Unacked { records: (1..=20).map(record).collect(), on_disk: 0..0, encoded: bytes::Bytes::new() };
        write(&dir, None, &unacked, None).unwrap();
        let spooled = std::fs::read(dir.join(FILE)).unwrap();
        let mut rest = spooled.as_slice();
        let whole: Vec<_> = std::iter::from_fn(|| Record::decode_length_delimited(&mut rest).ok()).collect();
        assert!(whole.len() > 5, "{}", whole.len());
        assert_eq!(whole, unacked.records[..whole.len()]);
        small_disk::done();
    }

    /// The end of a truncated record is unknown, so later ones are lost. Those before it are kept.
    #[test]
    fn spool_keeps_records_before_an_unreadable_part() {
        let dir = tempfile::tempdir().unwrap();
        let record = |seq| Record { seq, ..Record::default() };
        let encoded = record(3).encode_length_delimited_to_vec().into();
        // The overflow file is shorter than what was written.
        let overflow = Overflow::create(dir.path()).unwrap();
        let unacked = Unacked { records: vec![record(1)], on_disk: 0..100, encoded };
        write(dir.path(), None, &unacked, Some(&overflow)).unwrap();
        let spooled = std::fs::read(dir.path().join(FILE)).unwrap();
        assert_eq!(spooled, record(1).encode_length_delimited_to_vec());
    }

    /// In a separate process, whose limit of open files it lowers.
    #[test]
    fn without_descriptors() {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let Some(dir) = small_disk::here() else { return };
        let unacked = Unacked {
            records: vec![Record { seq: 1, ..Record::default() }],
            on_disk: 0..0,
            encoded: bytes::Bytes::new(),
        };
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
        std::thread::scope(|scope| {
            let left = scope.spawn(|| leave(Duration::from_secs(60), &dir, None, &unacked, None));
            std::thread::sleep(Duration::from_millis(300));
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
            left.join().unwrap().unwrap();
        });
        let spooled = std::fs::read(dir.join(FILE)).unwrap();
        assert_eq!(spooled, unacked.records[0].encode_length_delimited_to_vec());
        small_disk::done();
    }

    #[test]
    fn descriptor_exhaustion_is_retried() {
        small_disk::run("output::spool::tests::without_descriptors");
    }

    #[test]
    fn full_disk_keeps_the_records_that_fit() {
        small_disk::run("output::spool::tests::on_a_small_disk");
    }
}
