//! Model storages, one URI each: files, HDFS and object stores.
//!
//! A storage implements [`ModelStore`]: `location` parses a URI, `retry` states for how long calls of a storage are
//! retried, and each other private module is one kind of storage. All of them keep one promise: files are replaced
//! atomically. At every moment a name holds all of an old file or all of a new one.
//!
//! A model is a tarball: [`pack`] writes it, [`unpack`] and [`tarball`] read it, [`cache`] keeps it on this machine.
//! [`models`] lists, describes, copies and deletes models for people.

#[cfg(feature = "s3")]
mod abandoned_uploads;
pub mod cache;
mod file;
#[cfg(feature = "hdfs")]
mod hdfs;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "hdfs")]
mod kerberos;
mod location;
pub mod models;
#[cfg(feature = "objects")]
mod objects;
pub mod pack;
#[cfg(feature = "objects")]
mod part_size;
#[cfg(any(feature = "hdfs", feature = "webhdfs"))]
mod renamed_files;
mod retry;
mod staging;
pub mod tarball;
pub mod unpack;
#[cfg(feature = "webhdfs")]
mod webhdfs;

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::SystemTime;

use sqlflow_proto::agent::AttemptRef;

use crate::cache::Fingerprint;
use staging::Staging;

pub use location::{ModelLocation, Scheme};
pub use retry::RetryPolicy;

/// The location of one model in a storage. Names are file names within it. All methods block.
pub trait ModelStore: Debug + Send + Sync {
    /// Begins to write a file that no reader sees yet. A file of that name that was staged before is replaced.
    /// Credentials are read again, since those from the start of a long training may have expired. Files of dead
    /// writers are removed first, since their room may be needed. `bytes` is an estimate of the length.
    ///
    /// # Errors
    /// Those of the storage.
    fn stage(&self, name: &str, precondition: Precondition, bytes: u64) -> io::Result<Box<dyn StagedFile>>;

    /// Atomically replaces the file of this name by the staged one; durable when this returns. May be called again
    /// after an error.
    ///
    /// # Errors
    /// [`WriteConflict`] within: stage the file again. [`CommitUnknown`] within: the file may be committed. After an
    /// error of the storage, the old file is still in place.
    fn commit(&self, name: &str) -> io::Result<()>;

    /// Removes what this attempt and earlier attempts of the same step staged.
    ///
    /// # Errors
    /// Those of the storage.
    fn clear(&self) -> io::Result<()>;

    /// All files below the folder, unordered; none if there is no folder. Files that are removed meanwhile are left
    /// out.
    ///
    /// # Errors
    /// Those of the storage.
    fn list(&self) -> io::Result<Vec<FoundFile>>;

    /// Length and time of one file, without a listing.
    ///
    /// # Errors
    /// `NotFound` if there is none; those of the storage.
    fn find(&self, name: &str) -> io::Result<FoundFile>;

    /// Removes a file; idempotent. The folder in a file system is removed with its last file.
    ///
    /// # Errors
    /// Those of the storage.
    fn delete(&self, name: &str) -> io::Result<()>;

    /// Identifies the content of a file. `None`: finding it out costs as much as reading the file, or the storage has
    /// nothing to identify it by.
    ///
    /// # Errors
    /// `NotFound` if there is no file; those of the storage.
    fn fingerprint(&self, _name: &str) -> io::Result<Option<Fingerprint>> {
        Ok(None)
    }

    /// Reads a file from its start.
    ///
    /// # Errors
    /// `NotFound` if there is none; those of the storage.
    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>>;
}

/// What must hold, at the commit, of the file that a staged one replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    None,
    /// It is the file that was there when staging began. A storage without conditional writes does not check it.
    IfUnchanged,
}

/// A commit was refused and nothing was changed: the precondition does not hold, or the staged file is gone. The file
/// has to be staged again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WriteConflict(String);

impl WriteConflict {
    /// The staged file was removed.
    fn not_staged(name: &str) -> io::Error {
        io::Error::other(Self(format!("{name} was staged, but is not there any more")))
    }
}

/// Whether the error is a [`WriteConflict`].
pub fn is_write_conflict(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|within| within.is::<WriteConflict>())
}

/// The storage did not say whether the commit was made, or whether it is durable.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct CommitUnknown(String);

impl CommitUnknown {
    fn because(error: &io::Error, why: &str) -> io::Error {
        io::Error::new(error.kind(), Self(format!("{why}: {error}")))
    }
}

/// Whether the error is a [`CommitUnknown`].
pub fn is_commit_unknown(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|within| within.is::<CommitUnknown>())
}

/// Error kind for a file that was replaced while it was read: the bytes read so far are useless, and the new file is
/// there.
pub const REPLACED: io::ErrorKind = io::ErrorKind::StaleNetworkFileHandle;

/// Number of times a model may be replaced during one read before that counts as a failure of the storage.
const MAX_REPLACED: u32 = 10;

/// Reads a model, and again if it was replaced meanwhile: `was_replaced` recognises its error, or `look` finds another
/// fingerprint than before. `replaced` counts the replacements. `read` gets the fingerprint from before.
///
/// # Errors
/// Those of `read`.
pub fn retry_if_replaced<T, E>(
    model: &str,
    replaced: &mut u32,
    was_replaced: impl Fn(&E) -> bool,
    look: impl Fn() -> io::Result<Option<Fingerprint>>,
    mut read: impl FnMut(io::Result<Option<Fingerprint>>) -> Result<T, E>,
) -> Result<T, E> {
    loop {
        let before = look();
        let known = before.as_ref().ok().cloned().flatten();
        let error = match read(before) {
            Err(error) if *replaced < MAX_REPLACED => error,
            other => return other,
        };
        // A storage without conditional reads may give pieces of two models, which look like a corrupted one.
        if !was_replaced(&error)
            && !known.is_some_and(|known| look().is_ok_and(|it| it.is_some_and(|it| it != known)))
        {
            return Err(error);
        }
        *replaced += 1;
        tracing::info!(model, "the model was replaced while it was read; reading the new one");
    }
}

/// A file in a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// Relative to the folder of the store.
    pub path: String,
    /// Length.
    pub bytes: u64,
    /// Time of the last change, by the storage's clock.
    pub modified: Option<SystemTime>,
}

/// A staged file that is being written.
pub trait StagedFile: Write {
    /// Ends the file; durable when this returns.
    ///
    /// # Errors
    /// Those of the storage.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// Takes a staged file in large pieces.
#[cfg(any(feature = "hdfs", feature = "http"))]
trait Sink: Send {
    fn send(&mut self, piece: bytes::Bytes) -> io::Result<()>;

    /// See [`StagedFile::finish`].
    fn finish(self) -> io::Result<()>;
}

/// Buffers writes for a sink: every piece but the last has the same size. Unlike the standard library's writer it sends
/// nothing when it is dropped: then the storage has failed, or the file was abandoned.
#[cfg(any(feature = "hdfs", feature = "http"))]
struct Pieces<S> {
    sink: S,
    size: usize,
    piece: bytes::BytesMut,
}

#[cfg(any(feature = "hdfs", feature = "http"))]
impl<S: Sink> Pieces<S> {
    fn new(sink: S, size: usize) -> Self {
        Self { sink, size, piece: bytes::BytesMut::with_capacity(size) }
    }

    fn send(&mut self) -> io::Result<()> {
        let full = std::mem::replace(&mut self.piece, bytes::BytesMut::with_capacity(self.size));
        self.sink.send(full.freeze())
    }
}

#[cfg(any(feature = "hdfs", feature = "http"))]
impl<S: Sink> Write for Pieces<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == self.size {
            self.send()?;
        }
        let length = bytes.len().min(self.size - self.piece.len());
        self.piece.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    /// Nothing is visible before [`StagedFile::finish`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(any(feature = "hdfs", feature = "http"))]
impl<S: Sink> StagedFile for Pieces<S> {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        if !self.piece.is_empty() {
            self.send()?;
        }
        sqlflow_os::failpoint::agent("staged");
        self.sink.finish()
    }
}

/// Opens a location, without a request to the storage yet. All storages but files need a tokio runtime around them.
///
/// # Errors
/// A message: this agent was built without that storage.
#[cfg_attr(
    not(any(feature = "hdfs", feature = "http")),
    expect(unused_variables, reason = "files need no retries")
)]
pub fn open(
    location: &ModelLocation,
    attempt: &AttemptRef,
    retry: &Arc<RetryPolicy>,
) -> Result<Box<dyn ModelStore>, String> {
    let staging = Staging::new(attempt, location);
    match location.scheme {
        Scheme::File => Ok(Box::new(file::FileStore::new(location.folder.as_str().into(), staging))),
        #[cfg(feature = "hdfs")]
        Scheme::Hdfs => Ok(Box::new(hdfs::HdfsStore::new(location, staging, retry.clone())?)),
        #[cfg(feature = "webhdfs")]
        Scheme::Webhdfs => Ok(Box::new(webhdfs::WebhdfsStore::new(location, staging, retry.clone())?)),
        #[cfg(feature = "objects")]
        scheme if objects::serves(scheme) => {
            Ok(Box::new(objects::ObjectStore::new(location, attempt, retry.clone())?))
        }
        scheme => Err(format!("this build of the agent has no support for {scheme}://")),
    }
}

/// The path relative to `folder`, if it is below it.
#[cfg(any(feature = "hdfs", feature = "http"))]
fn below(folder: &str, path: &str) -> Option<String> {
    let rest = path.trim_start_matches('/').strip_prefix(folder.trim_matches('/'))?;
    Some(rest.trim_start_matches('/').to_owned()).filter(|it| !it.is_empty())
}

/// Names the file in failpoints.
fn kind(name: &str) -> &'static str {
    if name.ends_with(".tar.gz") { "tarball" } else { "gob" }
}
