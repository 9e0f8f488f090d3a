//! Errors of requests to the log, and of the log itself.

use std::io;
use std::path::{Path, PathBuf};

use super::file_io;
use super::{Producer, SmallLogError};

/// Description of damage that the disk cannot read.
pub(super) const UNREADABLE: &str = "the disk cannot read it";

/// An error of the result log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A sequence number was skipped.
    #[error("cannot append record {got} of {producer}: record {expected} is the next one")]
    Gap {
        /// Producer of the record.
        producer: Producer,
        /// Next sequence number.
        expected: u64,
        /// Sequence number of the record.
        got: u64,
    },
    /// The attempt is sealed.
    #[error("cannot append records of {producer}: the attempt is sealed")]
    Sealed {
        /// Producer of the record.
        producer: Producer,
    },
    /// Durable bytes are damaged, or cannot be read.
    #[error("the result log is damaged: {} at byte {offset}: {what}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Offset of the first damaged frame.
        offset: u64,
        /// The damage.
        what: &'static str,
    },
    /// Another process holds the log's lock for too long. Nothing was added; the request can be retried.
    #[error("cannot lock {}: {} holds it; if that process is stopped, continue it or end it", lock.display(), holder_name(*holder))]
    Busy {
        /// The lock file.
        lock: PathBuf,
        /// The process that holds it, if it is known.
        holder: Option<u32>,
    },
    /// Small logs could not be read or written. No acknowledged record is lost.
    #[error(transparent)]
    Small(#[from] SmallLogError),
    /// The file system failed, for example because it is full. No acknowledged record is lost.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// Operation.
        what: &'static str,
        /// File or folder.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

impl LogError {
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }

    /// The error for a failed read at this offset; damage if the disk cannot read the file there.
    pub(super) fn reading(what: &'static str, path: &Path, offset: u64) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            if file_io::is_unreadable(&source) {
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

    /// Whether a file or folder did not exist.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// A copy of the error for another waiter.
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
