//! Model storages, one URI each: files, HDFS and object stores.
//!
//! A storage implements [`ModelStore`]: `location` parses a URI, `retry` states how long a failing storage is retried;
//! each other private module is one kind of storage. All of them keep one promise: at every moment a name holds all of an
//! old file or all of a new one.
//!
//! A model is a tarball: [`pack`] writes it, [`unpack`] and [`tarball`] read it, [`cache`] keeps it on this machine.
//! [`models`] lists, describes, copies and deletes models for people.

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
mod parts;
mod retry;
mod staging;
pub mod tarball;
pub mod unpack;
#[cfg(feature = "s3")]
mod uploads;
#[cfg(feature = "webhdfs")]
mod webhdfs;

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::SystemTime;

use sqlflow_proto::agent::AttemptRef;

use crate::cache::Fingerprint;
use staging::Staging;

pub use location::{ModelPlace, Scheme};
pub use retry::Patience;

/// One model's place in a storage. Names are file names within it. All methods block.
pub trait ModelStore: Debug + Send + Sync {
    /// Begins to write a file that nobody sees yet; one of that name that was staged before is replaced. Credentials
    /// are read anew, since those from the start of a long training may have expired. What dead writers left goes first:
    /// its room may be needed. About so many `bytes` will be written.
    ///
    /// # Errors
    /// Those of the storage.
    fn stage(&self, name: &str, over: Over, bytes: u64) -> io::Result<Box<dyn StagedFile>>;

    /// Puts a staged file under its name, whole, in place of the one that is there; durable when this returns. May be
    /// called again after an error.
    ///
    /// # Errors
    /// [`Overtaken`] within: stage it anew. [`Uncertain`] within: the file may be in place. Those of the storage; the file
    /// that was there is then still there.
    fn commit(&self, name: &str) -> io::Result<()>;

    /// Removes what this attempt and earlier ones of the same step staged.
    ///
    /// # Errors
    /// Those of the storage.
    fn clear(&self) -> io::Result<()>;

    /// All files below the folder, in no order; none when there is no folder. What goes away meanwhile is left out.
    ///
    /// # Errors
    /// Those of the storage.
    fn list(&self) -> io::Result<Vec<FoundFile>>;

    /// Removes a file; nothing happens when there is none. A file system's folder goes with its last file.
    ///
    /// # Errors
    /// Those of the storage.
    fn delete(&self, name: &str) -> io::Result<()>;

    /// What tells the file's content from another one of its name. `None`: to ask costs as much as to read, or there is
    /// nothing to tell by.
    ///
    /// # Errors
    /// `NotFound` when there is none; those of the storage.
    fn fingerprint(&self, _name: &str) -> io::Result<Option<Fingerprint>> {
        Ok(None)
    }

    /// Reads a file from its start.
    ///
    /// # Errors
    /// `NotFound` when there is none; those of the storage.
    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>>;
}

/// What a staged file may be put in place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Whatever has its name when it is committed.
    Anything,
    /// What has its name now, where the storage can be told so; else as the other.
    WhatIsThere,
}

/// A file must be staged anew: what it was to be put over is not there any more, since another's came in between; or the
/// staged file itself is not.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Overtaken(String);

impl Overtaken {
    /// Of a staged file that somebody removed.
    fn not_staged(name: &str) -> io::Error {
        io::Error::other(Self(format!("{name} was staged, but is not there any more")))
    }
}

/// Whether that is what the error says.
pub fn is_overtaken(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|within| within.is::<Overtaken>())
}

/// A commit may have been made, and may be durable: the storage does not tell.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Uncertain(String);

impl Uncertain {
    fn because(error: &io::Error, why: &str) -> io::Error {
        io::Error::new(error.kind(), Self(format!("{why}: {error}")))
    }
}

/// Whether that is what the error says: then the file may be in place.
pub fn may_be_in_place(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|within| within.is::<Uncertain>())
}

/// The kind of error of a file that was replaced while it was read: what was read of it is worth nothing, and the new one is
/// there.
pub const REPLACED: io::ErrorKind = io::ErrorKind::StaleNetworkFileHandle;

/// How often a model may be replaced under a reader's hands before that counts as a failure of the storage.
const MAX_REPLACED: u32 = 10;

/// Reads a model, and does so anew when it was replaced meanwhile: the storage said so, or `look` sees another one than
/// before. `replaced` counts how often it was. `read` is given what was seen before.
///
/// # Errors
/// Those of `read`.
pub fn anew<T, E>(
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
        // Of a storage that promises nothing, pieces may be of two models; they make a spoilt one.
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
    /// From the folder that was listed, without a slash before it.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// When it was put there, by the storage's clock.
    pub modified: Option<SystemTime>,
}

/// A staged file that is being written.
pub trait StagedFile: Write {
    /// All is written: durable when this returns.
    ///
    /// # Errors
    /// Those of the storage.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// Takes what is staged in large pieces.
#[cfg(any(feature = "hdfs", feature = "http"))]
trait Sink: Send {
    fn send(&mut self, piece: bytes::Bytes) -> io::Result<()>;

    /// See [`StagedFile::finish`].
    fn finish(self) -> io::Result<()>;
}

/// Gathers writes for a sink: every piece but the last has the same size. Unlike the standard library's writer it sends nothing when it is dropped: then the
/// storage has failed, or nobody wants the file.
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

    /// Nobody sees anything before [`StagedFile::finish`].
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

/// Opens the place; nothing is asked of the storage yet. Other storages than files need a tokio runtime around them.
///
/// # Errors
/// One sentence: this agent was built without that storage.
#[cfg_attr(
    not(any(feature = "hdfs", feature = "http")),
    expect(unused_variables, reason = "files need none")
)]
pub fn open(
    place: &ModelPlace,
    attempt: &AttemptRef,
    patience: &Arc<Patience>,
) -> Result<Box<dyn ModelStore>, String> {
    let staging = Staging::new(attempt, place);
    match place.scheme {
        Scheme::File => Ok(Box::new(file::FileStore::new(place.folder.as_str().into(), staging))),
        #[cfg(feature = "hdfs")]
        Scheme::Hdfs => Ok(Box::new(hdfs::HdfsStore::new(place, staging, patience.clone())?)),
        #[cfg(feature = "webhdfs")]
        Scheme::Webhdfs => Ok(Box::new(webhdfs::WebhdfsStore::new(place, staging, patience.clone())?)),
        #[cfg(feature = "objects")]
        scheme if objects::ObjectStore::serves(scheme) => {
            Ok(Box::new(objects::ObjectStore::new(place, attempt, patience.clone())?))
        }
        scheme => Err(format!("this build of the agent has no support for {scheme}://")),
    }
}

/// The path from `folder`, if it is below it.
#[cfg(any(feature = "hdfs", feature = "http"))]
fn below(folder: &str, path: &str) -> Option<String> {
    let rest = path.trim_start_matches('/').strip_prefix(folder.trim_matches('/'))?;
    Some(rest.trim_start_matches('/').to_owned()).filter(|it| !it.is_empty())
}

/// For the names of failpoints.
fn kind(name: &str) -> &'static str {
    if name.ends_with(".tar.gz") { "tarball" } else { "gob" }
}
