//! What can be wrong with a request to the log, or with the log.

use std::io;
use std::path::{Path, PathBuf};

use super::disk;
use super::{Producer, SmallLogError};

/// What is wrong with bytes that cannot be read.
pub(super) const UNREADABLE: &str = "the disk cannot read it";

/// Why the log did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The attempt's records do not follow on what is durable of it.
    #[error("record {got} of {producer} came where record {expected} is expected")]
    Gap {
        /// Whose record it is.
        producer: Producer,
        /// The seq that would follow.
        expected: u64,
        /// The seq that came.
        got: u64,
    },
    /// The attempt is over as far as the log is concerned.
    #[error("the log takes nothing more of {producer}")]
    Sealed {
        /// Whose record it was.
        producer: Producer,
    },
    /// Durable bytes are not what was written, or cannot be read.
    #[error("the result log is damaged: {} at byte {offset}: {what}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Offset of the first bad byte's frame.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Another process holds the log's lock for too long. Nothing was added; it may be tried again.
    #[error("cannot lock {}: {} holds it; if that process is stopped, continue it or end it", lock.display(), holder_name(*holder))]
    Busy {
        /// The lock file.
        lock: PathBuf,
        /// The process that holds it, if the kernel says so.
        holder: Option<u32>,
    },
    /// The place of small logs could not be read or written. Nothing that was acknowledged is lost.
    #[error(transparent)]
    Small(#[from] SmallLogError),
    /// The file system failed, perhaps for lack of space. Nothing that was acknowledged is lost.
    #[error("could not {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl LogError {
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }

    /// The error of reading at this offset, which is damage if the disk cannot read the file there.
    pub(super) fn reading(what: &'static str, path: &Path, offset: u64) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            if disk::is_unreadable(&source) {
                tracing::error!(file = %path.display(), offset, error = %source, "the disk cannot read a result log");
                Self::corrupt(path, offset, UNREADABLE)
            } else {
                Self::io(what, path)(source)
            }
        }
    }

    pub(super) fn corrupt(file: &Path, offset: u64, what: &'static str) -> Self {
        Self::Corrupt { file: file.to_owned(), offset, what }
    }

    /// Whether a file or folder was not there.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// The same error for another who waits.
    pub(super) fn duplicate(&self) -> Self {
        match self {
            Self::Gap { producer, expected, got } => {
                Self::Gap { producer: *producer, expected: *expected, got: *got }
            }
            Self::Sealed { producer } => Self::Sealed { producer: *producer },
            Self::Corrupt { file, offset, what } => {
                Self::Corrupt { file: file.clone(), offset: *offset, what }
            }
            Self::Busy { lock, holder } => Self::Busy { lock: lock.clone(), holder: *holder },
            Self::Small(error) => Self::Small(error.clone()),
            Self::Io { what, path, source } => {
                let source = match source.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => io::Error::new(source.kind(), source.to_string()),
                };
                Self::Io { what, path: path.clone(), source }
            }
        }
    }
}

fn holder_name(holder: Option<u32>) -> String {
    holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}
