//! The file `lock` of a job's log. Who holds its lock (flock) may append; its content, the committed offset, says up to where the
//! log is durable. Readers need no lock: they read up to the committed offset, which is also how one process learns of what
//! another appended.
//!
//! The committed offset is written after what it speaks of is durable, but is not synced itself: after a power failure it may
//! speak of less than there is, never of more. What lies behind it was either not acknowledged or is found again by
//! `LogState::recover`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlflow_os::locks::{self, Kind};
use tokio::time::Instant;

use super::LogError;
use super::folder::{self, Folder};

/// Up to where a log is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommittedOffset {
    /// A random number that this log was given at its beginning: one that was deleted and begun again has another.
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

/// What the file says to one who does not hold its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peek {
    /// There is no log.
    Missing,
    /// There is no committed offset, or it is being written this moment.
    Unclear,
    Committed(CommittedOffset),
}

/// Reads the committed offset without the lock.
pub(super) fn peek(folder: &Folder) -> Result<Peek, LogError> {
    let path = lock_path(folder);
    match File::open(&path) {
        Ok(file) => match read_committed(&file, &path) {
            Ok(mark) => Ok(mark.map_or(Peek::Unclear, Peek::Committed)),
            // Who has the lock makes another.
            Err(LogError::Corrupt { .. }) => Ok(Peek::Unclear),
            Err(error) => Err(error),
        },
        // A power failure may have taken the lock file and left the log.
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder.path.exists() => Ok(Peek::Unclear),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Peek::Missing),
        Err(error) => Err(LogError::io("open", &path)(error)),
    }
}

/// The right to append to one job's log. It ends when this is dropped, or with the process.
#[derive(Debug)]
pub(super) struct JobLock {
    file: File,
    path: PathBuf,
}

/// What one try for a lock came to. Nobody waits inside a system call: the process that holds a lock may be stopped,
/// and each waiting thread would be lost as long.
#[derive(Debug)]
pub(super) enum Tried {
    Held(JobLock),
    /// Another has it.
    Busy(Waiting),
    /// There is no folder.
    NoFolder,
}

/// How long anyone waits for a log's lock. A process that holds it for longer is stopped, or its disk is.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Timeout for being first in line, after which a waiter tries for the lock anyway. A process that is first for longer waits
/// for the lock just as long, or is stopped.
const NEXT_WAIT: Duration = Duration::from_millis(250);
/// The first pause between two tries for a lock, and the longest; each is twice as long as the one before.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

/// A waiter for a log's lock. One of them is *first in line*: it holds a lock of the kernel's on the file's first byte.
/// Every waiter tries for that first, so a process that appends without a pause lets others in. This is a courtesy: only
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
    /// Makes the folder if it is not there, then tries for the lock.
    pub(super) fn try_make(folder: &Folder) -> Result<Tried, LogError> {
        loop {
            match Self::try_if_there(folder)? {
                Tried::NoFolder => {
                    fs::create_dir_all(&folder.path).map_err(LogError::io("make", &folder.path))?;
                }
                tried @ (Tried::Held(_) | Tried::Busy(_)) => return Ok(tried),
            }
        }
    }

    /// Tries for the lock of a folder that is there.
    pub(super) fn try_if_there(folder: &Folder) -> Result<Tried, LogError> {
        let path = lock_path(folder);
        loop {
            let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
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

    /// The committed offset; one that the disk cannot read is lost, as by a power failure.
    pub(super) fn mark(&self) -> Result<Option<CommittedOffset>, LogError> {
        match read_committed(&self.file, &self.path) {
            Err(LogError::Corrupt { .. }) => {
                // The next one is written to another block.
                self.file.set_len(0).map_err(LogError::io("cut off", &self.path))?;
                Ok(None)
            }
            mark => mark,
        }
    }

    pub(super) fn set_committed(&self, mark: CommittedOffset) -> Result<(), LogError> {
        self.file.write_all_at(&mark.encode(), 0).map_err(LogError::io("write", &self.path))
    }
}

impl Waiting {
    /// Tries once more. `None`: the log was deleted meanwhile; begin at the beginning.
    pub(super) fn try_again(mut self) -> Result<Option<Tried>, LogError> {
        self.is_next = self.is_next || self.try_be_next()?;
        let may_try = self.is_next || self.since.elapsed() >= NEXT_WAIT;
        if !may_try || !try_flock(&self.file, &self.path)? {
            return Ok(Some(Tried::Busy(self)));
        }
        // Another waiter that is first in line stays first.
        self.set_next(libc_lock::UNLOCK)?;
        let held = self.file.metadata().map_err(LogError::io("look at", &self.path))?;
        // The log may have been deleted while this waited; then the lock is one of a file without a name.
        match fs::metadata(&self.path) {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => {
                Ok(Some(Tried::Held(JobLock { file: self.file, path: self.path })))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io("look at", &self.path)(error)),
        }
    }

    /// The pause before the next try.
    pub(super) fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSES.1);
        pause
    }

    /// Whether this has taken as long as anyone waits.
    pub(super) fn was_long_enough(&self) -> bool {
        self.since.elapsed() >= LOCK_WAIT
    }

    /// The error of one who has waited for long enough.
    pub(super) fn busy(&self) -> LogError {
        LogError::Busy { holder: holder(&self.file), lock: self.path.clone() }
    }

    fn try_be_next(&self) -> Result<bool, LogError> {
        self.set_next(libc_lock::LOCK)
    }

    /// Returns false if another waiter is first in line.
    fn set_next(&self, kind: libc_lock::Kind) -> Result<bool, LogError> {
        match libc_lock::first_byte(&self.file, kind) {
            Ok(()) => Ok(true),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(false),
            Err(error) => Err(LogError::io("lock", &self.path)(error.into())),
        }
    }
}

/// Locks of the kernel's on bytes of an open file (`F_OFD_SETLK`): other than those of `flock`, which are on files.
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

/// False: another has the lock.
fn try_flock(file: &File, path: &Path) -> Result<bool, LogError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(error)) => Err(LogError::io("lock", path)(error)),
    }
}

/// The process that took the file's lock.
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
    use super::super::disk::Disk;
    use super::*;

    /// Who has waited comes before one that only lets go of the lock to take it again.
    #[test]
    fn who_waits_comes_before_who_had_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder { path: dir.path().join("log"), created_micros: 0, disk: Disk::new(false) };
        let held = JobLock::try_make(&folder).unwrap();
        assert!(matches!(held, Tried::Held(_)));
        let Tried::Busy(waiting) = JobLock::try_make(&folder).unwrap() else { panic!("two hold it") };
        drop(held);
        assert!(matches!(JobLock::try_make(&folder).unwrap(), Tried::Busy(_)), "the other is first in line");
        assert!(matches!(waiting.try_again().unwrap(), Some(Tried::Held(_))));
    }
}
