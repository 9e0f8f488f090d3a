//! The file behind the outbox's tail: written and read on a thread that may block, so that a slow disk holds up the
//! records and not the supervisor.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::link::Link;
use super::tail::DiskWork;

/// Between tries on a disk that is full.
const RETRY: Duration = Duration::from_secs(1);

/// The file has no name, so that nothing is left of it when the agent dies; what matters then is written to the spool.
#[derive(Debug, Clone)]
pub struct Overflow(Arc<File>);

impl Overflow {
    /// Makes the file in `dir`.
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

    /// Carries out what the outbox asks for, for as long as the agent lives.
    pub async fn serve(self, link: Arc<Link>) {
        loop {
            match link.disk_work().await {
                DiskWork::Write(at, bytes) => {
                    let file = self.0.clone();
                    let written = blocking(move || file.write_all_at(&bytes, at)).await;
                    link.wrote_to_disk(written.is_ok());
                    if let Err(error) = written {
                        tracing::warn!(%error, "cannot spool to disk; the command waits");
                        tokio::time::sleep(RETRY).await;
                        link.retry_disk();
                    }
                }
                DiskWork::Read(at, length) => {
                    let file = self.0.clone();
                    let read = blocking(move || {
                        let mut bytes = vec![0; length];
                        file.read_exact_at(&mut bytes, at).map(|()| bytes)
                    });
                    match read.await {
                        Ok(bytes) => link.read_from_disk(bytes.into()),
                        Err(error) => {
                            tracing::error!(%error, "cannot read what was spooled to disk; trying again");
                            tokio::time::sleep(RETRY).await;
                            link.read_from_disk(Bytes::new());
                        }
                    }
                }
            }
        }
    }

    /// Appends a part of the file to another one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn copy_to(&self, part: std::ops::Range<u64>, target: &mut impl io::Write) -> io::Result<()> {
        let mut piece = vec![0; 1 << 20];
        let mut at = part.start;
        while at < part.end {
            let length = usize::try_from(part.end - at).unwrap_or(usize::MAX).min(piece.len());
            self.0.read_exact_at(&mut piece[..length], at)?;
            target.write_all(&piece[..length])?;
            at += length as u64;
        }
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|_| Err(io::Error::other("the agent is ending")))
}
