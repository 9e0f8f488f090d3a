//! The overflow file of the outbox. It is written and read on a thread that may block, so that a slow disk delays
//! records and not the supervisor.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use sqlflow_os::errno::says_damage;
use tokio::task::spawn_blocking;

use super::link::Link;
use super::overflow_queue::{DiskWork, Reading};

/// Pause before a retry on a disk that is full or fails.
const RETRY: Duration = Duration::from_secs(1);
/// Block size for reading around bad blocks: that of the page cache and of most file systems.
const BLOCK: usize = 4096;

/// An unlinked file, so that a killed agent leaves nothing. At the end its records go to the spool.
#[derive(Debug)]
pub struct Overflow<F = File>(Arc<F>);

impl<F> Clone for Overflow<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Result of copying a part of the file.
#[derive(Debug, PartialEq, Eq)]
pub enum Copied {
    /// All.
    Whole,
    /// The bytes before the first unreadable one.
    Beginning,
}

impl Overflow {
    /// Creates the file in `dir`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let path = dir.join("overflow");
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self(Arc::new(file)))
    }
}

impl<F: FileExt + Send + Sync + 'static> Overflow<F> {
    /// Does the disk work of the outbox until the agent ends.
    pub async fn serve(self, link: Arc<Link>) {
        let mut is_damage_reported = false;
        loop {
            match link.outbox.disk_work().await {
                DiskWork::Write(at, bytes) => {
                    let file = self.0.clone();
                    let written = blocking(move || file.write_all_at(&bytes, at)).await;
                    link.outbox.wrote_to_disk(written.is_ok());
                    if let Err(error) = written {
                        tracing::warn!(%error, "cannot write records to disk; the command waits");
                        tokio::time::sleep(RETRY).await;
                        link.outbox.retry_disk();
                    }
                }
                DiskWork::Read(at, length) => {
                    let file = self.0.clone();
                    let reading = match blocking(move || read(&*file, at, length)).await {
                        Ok(Part { bytes, damage: None }) => Reading::Whole(bytes.into()),
                        Ok(Part { bytes, damage: Some(Damage { until, error }) }) => {
                            if !is_damage_reported {
                                is_damage_reported = true;
                                link.outbox.warn(format!(
                                    "cannot read records from disk: {error}; gap records stand for those that are lost"
                                ));
                            }
                            Reading::Damaged { before: bytes.into(), until }
                        }
                        Err(error) => {
                            tracing::error!(%error, "cannot read records from disk; retrying");
                            tokio::time::sleep(RETRY).await;
                            Reading::Failed
                        }
                    };
                    link.outbox.read_from_disk(reading);
                }
            }
        }
    }

    /// Copies a part of the file to another one, up to the first unreadable byte.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn copy_to(&self, part: std::ops::Range<u64>, target: &mut impl io::Write) -> io::Result<Copied> {
        let mut at = part.start;
        while at < part.end {
            let length = usize::try_from(part.end - at).unwrap_or(usize::MAX).min(1 << 20);
            let Part { bytes, damage } = read(&*self.0, at, length)?;
            target.write_all(&bytes)?;
            if let Some(Damage { error, .. }) = damage {
                tracing::error!(%error, "cannot read records from disk; later ones are lost too");
                return Ok(Copied::Beginning);
            }
            at += length as u64;
        }
        Ok(Copied::Whole)
    }
}

/// A part of the file, up to the first unreadable block.
struct Part {
    bytes: Vec<u8>,
    damage: Option<Damage>,
}

struct Damage {
    /// Offset after the unreadable block.
    until: u64,
    error: io::Error,
}

/// Reads a part of the file. If that fails, reads block by block up to the first unreadable one.
fn read(file: &impl FileExt, at: u64, length: usize) -> io::Result<Part> {
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, at) {
        Ok(()) => return Ok(Part { bytes, damage: None }),
        Err(error) if is_unreadable(&error) => {}
        Err(error) => return Err(error),
    }
    let mut read = 0;
    while read < length {
        let offset = at + read as u64;
        let in_block = BLOCK - usize::try_from(offset % BLOCK as u64).expect("it is less than a block");
        let end = (read + in_block).min(length);
        match file.read_exact_at(&mut bytes[read..end], offset) {
            Ok(()) => read = end,
            Err(error) if is_unreadable(&error) => {
                bytes.truncate(read);
                return Ok(Part { bytes, damage: Some(Damage { until: at + end as u64, error }) });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Part { bytes, damage: None })
}

/// Whether the file is damaged, which is not retryable. That includes a file that is shorter than what was written.
fn is_unreadable(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
        || error.raw_os_error().is_some_and(|code| says_damage(Errno::from_raw(code)))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|_| Err(io::Error::other("the agent is ending")))
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use sqlflow_proto::agent::attach_request::Message;
    use sqlflow_proto::record::{Output, Record, record::Payload};

    use super::*;

    /// A file with unreadable parts.
    struct BadDisk {
        file: File,
        bad: Vec<Range<u64>>,
    }

    impl FileExt for BadDisk {
        fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
            let end = at + buffer.len() as u64;
            if self.bad.iter().any(|bad| bad.start < end && at < bad.end) {
                return Err(Errno::EIO.into());
            }
            self.file.read_at(buffer, at)
        }

        fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
            self.file.write_at(bytes, at)
        }
    }

    const RECORDS: u64 = 100;

    fn output() -> Payload {
        Payload::Output(Output { stream: 1, offset: 0, data: vec![b'x'; 100_000].into() })
    }

    /// Spills records without a server, then returns what a server gets.
    async fn shipped(bad: impl IntoIterator<Item = Range<u64>>) -> Vec<Record> {
        let disk = BadDisk { file: tempfile::tempfile().unwrap(), bad: bad.into_iter().collect() };
        let link = Arc::new(Link::new(1 << 20));
        link.outbox.set_disk_limit(256 << 20);
        link.set_attached(false);
        for _ in 0..RECORDS {
            link.outbox.push_output(output());
        }
        tokio::spawn(Overflow(Arc::new(disk)).serve(link.clone()));
        while !link.outbox.unacked().encoded.is_empty() {
            link.outbox.room().await;
        }
        link.set_attached(true);
        let (mut sent, _) = link.resume(0);
        let mut shipped: Vec<Record> = Vec::new();
        while link.outbox.acked().borrow().to_owned() < link.outbox.last_seq() {
            let next = link.next_message(&mut sent);
            let next = tokio::time::timeout(Duration::from_secs(60), next).await.expect("the rest comes");
            let Some(Message::Records(batch)) = next.message else { continue };
            shipped.extend(batch.records);
            link.outbox.ack(shipped.last().map_or(0, |it| it.seq));
        }
        assert_eq!(
            shipped.iter().map(|it| it.seq).collect::<Vec<_>>(),
            (1..=link.outbox.last_seq()).collect::<Vec<_>>()
        );
        shipped
    }

    fn gaps(records: &[Record]) -> usize {
        records.iter().filter(|it| matches!(it.payload, Some(Payload::Gap(_)))).count()
    }

    /// All readable records arrive unchanged. One warning reports the lost ones.
    fn assert_only_lost(records: &[Record], lost: Range<usize>) {
        assert!(lost.contains(&gaps(records)), "{} are lost", gaps(records));
        let whole = records.iter().filter(|it| it.payload == Some(output())).count();
        assert_eq!(whole + gaps(records), usize::try_from(RECORDS).unwrap(), "nothing else was changed");
        let notices: Vec<_> = records
            .iter()
            .filter_map(|it| match &it.payload {
                Some(Payload::Notice(notice)) => Some(notice.text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert!(notices[0].contains("Input/output error"), "{notices:?}");
    }

    #[tokio::test]
    async fn unreadable_blocks_become_gaps_and_the_rest_is_shipped() {
        let all = shipped([]).await;
        assert_eq!((all.len() as u64, gaps(&all)), (RECORDS, 0));
        // Two blocks, each within one record or at the boundary of two.
        assert_only_lost(&shipped([1 << 20..(1 << 20) + 1, 5 << 20..(5 << 20) + 4096]).await, 2..5);
    }

    #[tokio::test]
    async fn unreadable_disk_does_not_block_records_in_memory() {
        assert_only_lost(&shipped(Some(0..u64::MAX)).await, 50..95);
    }

    #[test]
    fn read_stops_at_the_first_bad_block() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 20_000], 0).unwrap();
        let disk = BadDisk { file, bad: vec![9000..9001, 16_000..16_001] };
        let read = |at, length| {
            let Part { bytes, damage } = read(&disk, at, length).unwrap();
            assert!(bytes.iter().all(|it| *it == 7));
            (bytes.len(), damage.map(|it| it.until))
        };
        assert_eq!(read(100, 8000), (8000, None));
        assert_eq!(read(100, 15_000), (8192 - 100, Some(12_288)));
        assert_eq!(read(8200, 15_000), (0, Some(12_288)));
        assert_eq!(read(12_288, 3000), (3000, None));
        assert_eq!(read(19_000, 5000).1, Some(20_480), "it is shorter than what was written");
    }
}
