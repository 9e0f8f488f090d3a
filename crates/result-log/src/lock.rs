//! The file `lock` of a job's log. Its lock (flock) is the right to append. Its content, the committed offset, is the
//! end of the durable part of the log. Readers need no lock: they read up to the committed offset, and thereby learn of
//! records that other processes appended.
//!
//! The committed offset is written after the bytes that it covers are durable, but is not synced itself. After a power
//! failure it may thus be too small, but not too large. Bytes after it were either not acknowledged, or are found again
//! by `LogState::recover`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlflow_os::locks::{self, Kind};
use tokio::time::Instant;

use super::LogError;
use super::file_io;
use super::folder::{self, Folder};

/// The end of the durable part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommittedOffset {
    /// A random number of this log, which changes if the log is deleted and begins again.
    pub(super) birth: u64,
    /// First position of the tail.
    pub(super) segment: u64,
    /// Durable bytes of the tail.
    pub(super) length: u64,
    /// The last durable position.
    pub(super) last_position: u64,
}

const OFFSET_BYTES: usize = 36;

impl CommittedOffset {
    fn encode(self) -> [u8; OFFSET_BYTES] {
        let mut bytes = [0; OFFSET_BYTES];
        let numbers = [self.birth, self.segment, self.length, self.last_position];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..32]);
        bytes[32..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; OFFSET_BYTES]) -> Option<Self> {
        let (numbers, crc) = bytes.split_at(32);
        if crc != crc32fast::hash(numbers).to_le_bytes() {
            return None;
        }
        let number = |index: usize| {
            let bytes: [u8; 8] = numbers[index * 8..][..8].try_into().expect("the slice has 8 bytes");
            u64::from_le_bytes(bytes)
        };
        Some(Self { birth: number(0), segment: number(1), length: number(2), last_position: number(3) })
    }
}

/// The content of the file, read without its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peek {
    /// There is no log.
    Missing,
    /// There is no committed offset, or it is being written.
    Unclear,
    Committed(CommittedOffset),
}

/// Reads the committed offset without the lock.
pub(super) fn peek(folder: &Folder) -> Result<Peek, LogError> {
    let path = lock_path(folder);
    match File::open(&path) {
        Ok(file) => match read_committed(&file, &path) {
            Ok(committed) => Ok(committed.map_or(Peek::Unclear, Peek::Committed)),
            // The holder of the lock writes another one.
            Err(LogError::Corrupt { .. }) => Ok(Peek::Unclear),
            Err(error) => Err(error),
        },
        // A power failure may have undone the creation of the lock file, but not that of the log.
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder.path.exists() => Ok(Peek::Unclear),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Peek::Missing),
        Err(error) => Err(LogError::io("open", &path)(error)),
    }
}

/// The right to append to a job's log. It ends when this is dropped, or with the process.
#[derive(Debug)]
pub(super) struct JobLock {
    file: File,
    path: PathBuf,
}

/// Result of a try for a lock. No thread waits within a system call: the process that holds the lock may be stopped,
/// and would block the thread as long.
#[derive(Debug)]
pub(super) enum Tried {
    Held(JobLock),
    /// Another process holds it.
    Busy(Waiting),
    /// There is no folder.
    NoFolder,
}

/// Timeout for a log's lock. A process that holds it for longer is stopped, or its disk does not respond.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Timeout for being first in line, after which a waiter tries for the lock anyway. A process that is first for longer
/// waits for the lock just as long, or is stopped.
const NEXT_WAIT: Duration = Duration::from_millis(250);
/// The first and the longest pause between two tries for a lock; each is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

/// A waiter for a log's lock. One waiter is *first in line*: it holds a kernel lock on the file's first byte. Every
/// waiter tries for that first, so a process that appends without a pause lets others in. This is for fairness only:
/// the lock itself keeps two writers apart.
#[derive(Debug)]
pub(super) struct Waiting {
    file: File,
    path: PathBuf,
    is_next: bool,
    since: Instant,
    pause: Duration,
}

impl JobLock {
    /// Creates the folder if it does not exist, then tries for the lock.
    pub(super) fn try_make(folder: &Folder) -> Result<Tried, LogError> {
        loop {
            match Self::try_if_there(folder)? {
                Tried::NoFolder => {
                    fs::create_dir_all(&folder.path).map_err(LogError::io("create", &folder.path))?;
                }
                tried @ (Tried::Held(_) | Tried::Busy(_)) => return Ok(tried),
            }
        }
    }

    /// Tries for the lock of an existing folder.
    pub(super) fn try_if_there(folder: &Folder) -> Result<Tried, LogError> {
        let path = lock_path(folder);
        loop {
            let opened = file_io::options().read(true).write(true).create(true).truncate(false).open(&path);
            let file = match opened {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Tried::NoFolder),
                Err(error) => return Err(LogError::io("open", &path)(error)),
            };
            let (since, pause) = (Instant::now(), PAUSES.0);
            let waiting = Waiting { file, path: path.clone(), is_next: false, since, pause };
            if let Some(tried) = waiting.try_again()? {
                return Ok(tried);
            }
        }
    }

    /// The committed offset. One that the disk cannot read counts as lost, as after a power failure.
    pub(super) fn committed(&self) -> Result<Option<CommittedOffset>, LogError> {
        match read_committed(&self.file, &self.path) {
            Err(LogError::Corrupt { .. }) => {
                // The next one will be in another block.
                self.file.set_len(0).map_err(LogError::io("truncate", &self.path))?;
                Ok(None)
            }
            committed => committed,
        }
    }

    pub(super) fn set_committed(&self, committed: CommittedOffset) -> Result<(), LogError> {
        self.file.write_all_at(&committed.encode(), 0).map_err(LogError::io("write", &self.path))
    }
}

impl Waiting {
    /// Tries once more. `None`: the log was deleted in the meantime; start again.
    pub(super) fn try_again(mut self) -> Result<Option<Tried>, LogError> {
        self.is_next = self.is_next || self.set_next(libc_lock::LOCK)? == Flock::Locked;
        let may_try = self.is_next || self.since.elapsed() >= NEXT_WAIT;
        if !may_try || try_flock(&self.file, &self.path)? == Flock::Busy {
            return Ok(Some(Tried::Busy(self)));
        }
        // Another waiter that is first in line stays first.
        self.set_next(libc_lock::UNLOCK)?;
        let held = self.file.metadata().map_err(LogError::io("check", &self.path))?;
        // The log may have been deleted in the meantime; then this is the lock of a file without a name.
        match fs::metadata(&self.path) {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => {
                Ok(Some(Tried::Held(JobLock { file: self.file, path: self.path })))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io("check", &self.path)(error)),
        }
    }

    /// The pause before the next try.
    pub(super) fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSES.1);
        pause
    }

    /// Whether the timeout has passed.
    pub(super) fn was_long_enough(&self) -> bool {
        self.since.elapsed() >= LOCK_WAIT
    }

    /// The error of a waiter after the timeout.
    pub(super) fn busy(&self) -> LogError {
        LogError::Busy { holder: holder(&self.file), lock: self.path.clone() }
    }

    /// Locks or unlocks the place of the waiter that is first in line.
    fn set_next(&self, kind: libc_lock::Kind) -> Result<Flock, LogError> {
        match libc_lock::first_byte(&self.file, kind) {
            Ok(()) => Ok(Flock::Locked),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(Flock::Busy),
            Err(error) => Err(LogError::io("lock", &self.path)(error.into())),
        }
    }
}

/// Locks on bytes of an open file (`F_OFD_SETLK`), which are independent of those of flock(2) on files.
mod libc_lock {
    use std::fs::File;

    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc::{F_UNLCK, F_WRLCK, SEEK_SET, c_int, c_short, flock};

    pub(super) type Kind = c_int;
    pub(super) const LOCK: Kind = F_WRLCK;
    pub(super) const UNLOCK: Kind = F_UNLCK;

    pub(super) fn first_byte(file: &File, kind: Kind) -> nix::Result<()> {
        let narrow = |value: c_int| c_short::try_from(value).map_err(|_| nix::errno::Errno::EINVAL);
        let lock =
            flock { l_type: narrow(kind)?, l_whence: narrow(SEEK_SET)?, l_start: 0, l_len: 1, l_pid: 0 };
        fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).map(drop)
    }
}

/// Result of a try for a lock of flock(2).
#[derive(PartialEq)]
enum Flock {
    Locked,
    Busy,
}

fn try_flock(file: &File, path: &Path) -> Result<Flock, LogError> {
    match file.try_lock() {
        Ok(()) => Ok(Flock::Locked),
        Err(fs::TryLockError::WouldBlock) => Ok(Flock::Busy),
        Err(fs::TryLockError::Error(error)) => Err(LogError::io("lock", path)(error)),
    }
}

/// The process that holds the file's lock.
fn holder(file: &File) -> Option<u32> {
    let holder = locks::holder(Kind::Flock, file.metadata().ok()?.ino())?;
    u32::try_from(holder).ok()
}

fn lock_path(folder: &Folder) -> PathBuf {
    folder.path.join("lock")
}

fn read_committed(file: &File, path: &Path) -> Result<Option<CommittedOffset>, LogError> {
    let bytes = folder::read_at(file, path, 0, OFFSET_BYTES as u64)?;
    // Shorter is none.
    Ok(<&[u8; OFFSET_BYTES]>::try_from(&bytes[..]).ok().and_then(CommittedOffset::decode))
}

#[cfg(test)]
mod tests {
    use super::super::file_io::Disk;
    use super::*;

    /// A process that releases the lock only to take it again comes after waiters.
    #[test]
    fn waiter_locks_before_last_holder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder { path: dir.path().join("log"), created_micros: 0, disk: Disk::new(false) };
        let held = JobLock::try_make(&folder).unwrap();
        assert!(matches!(held, Tried::Held(_)));
        let Tried::Busy(waiting) = JobLock::try_make(&folder).unwrap() else {
            panic!("two processes hold it")
        };
        drop(held);
        assert!(matches!(JobLock::try_make(&folder).unwrap(), Tried::Busy(_)), "the other is first in line");
        assert!(matches!(waiting.try_again().unwrap(), Some(Tried::Held(_))));
    }
}
