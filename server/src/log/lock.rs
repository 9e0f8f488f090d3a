//! The file `lock` of a job's log. Who holds its lock (flock) may append; its content, the mark, says up to where the
//! log is durable. Readers need no lock: they read up to the mark, which is also how one process learns of what
//! another appended.
//!
//! The mark is written after what it speaks of is durable, but is not synced itself: after a power failure it may
//! speak of less than there is, never of more. What lies behind it was either not acknowledged or is found again by
//! `View::recover`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

use super::LogError;
use super::folder::Folder;

/// Up to where a log is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// A random number that this log was given at its beginning: one that was deleted and begun again has another.
    pub(super) birth: u64,
    /// First position of the tail.
    pub(super) segment: u64,
    /// Durable bytes of the tail.
    pub(super) length: u64,
    /// The last durable position.
    pub(super) last_position: u64,
}

const MARK_BYTES: usize = 36;

impl Mark {
    fn encode(self) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        let numbers = [self.birth, self.segment, self.length, self.last_position];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..32]);
        bytes[32..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; MARK_BYTES]) -> Option<Self> {
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
    /// There is no mark, or it is being written this moment.
    Unclear,
    Mark(Mark),
}

/// Reads the mark without the lock.
pub(super) fn peek(folder: &Folder) -> Result<Peek, LogError> {
    let path = lock_path(folder);
    match File::open(&path) {
        Ok(file) => Ok(read_mark(&file, &path)?.map_or(Peek::Unclear, Peek::Mark)),
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

impl JobLock {
    /// Waits for the lock; makes folder and file if they are not there.
    pub(super) fn acquire(folder: &Folder) -> Result<Self, LogError> {
        loop {
            if let Some(lock) = Self::acquire_if_there(folder)? {
                return Ok(lock);
            }
            fs::create_dir_all(&folder.path).map_err(LogError::io("make", &folder.path))?;
        }
    }

    /// Waits for the lock; `None` if there is no folder.
    pub(super) fn acquire_if_there(folder: &Folder) -> Result<Option<Self>, LogError> {
        let path = lock_path(folder);
        loop {
            let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let file = match opened {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(LogError::io("open", &path)(error)),
            };
            file.lock().map_err(LogError::io("lock", &path))?;
            let held = file.metadata().map_err(LogError::io("look at", &path))?;
            // The log may have been deleted while this waited; then the lock is one of a file without a name.
            match fs::metadata(&path) {
                Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => {
                    return Ok(Some(Self { file, path }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(LogError::io("look at", &path)(error)),
            }
        }
    }

    pub(super) fn mark(&self) -> Result<Option<Mark>, LogError> {
        read_mark(&self.file, &self.path)
    }

    pub(super) fn set_mark(&self, mark: Mark) -> Result<(), LogError> {
        self.file.write_all_at(&mark.encode(), 0).map_err(LogError::io("write", &self.path))
    }
}

fn lock_path(folder: &Folder) -> PathBuf {
    folder.path.join("lock")
}

fn read_mark(file: &File, path: &std::path::Path) -> Result<Option<Mark>, LogError> {
    let mut bytes = [0; MARK_BYTES];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(Mark::decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(LogError::io("read", path)(error)),
    }
}
