//! Models in object stores, where nothing can be renamed.
//!
//! A file is staged as a multipart upload that is not completed: it is invisible, and its completion replaces the
//! object atomically. So nothing is copied, and the commit is one small request. The upload of an agent that died
//! stays, invisible, until a later agent finds that it is old (S3), or a lifecycle rule of the store removes it.

mod service;
mod upload;

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use opendal::Operator;
use sqlflow_os::failpoint;
use sqlflow_proto::agent::AttemptRef;
use sqlflow_sync::lock;

pub(super) use service::serves;
use upload::{Staged, Upload, Uploads};

use super::part_size::{PART, part_of};
use super::retry::Calls;
use super::{
    CommitUnknown, FoundFile, ModelLocation, ModelStore, Pieces, Precondition, REPLACED, RetryPolicy, Scheme,
    StagedFile, WriteConflict, below, http, kind,
};
use crate::cache::Fingerprint;

/// Parts that are sent at the same time. Together with a waiting, a held back and a growing part they bound the memory:
/// 36 MiB, and the copies of the HTTP client. At the grant, all but the last two may still have to be sent.
const CONCURRENT: usize = 2;
/// Key in an object's metadata that identifies the writer.
const WRITTEN_BY: &str = "sqlflow-writer";

pub(super) struct ObjectStore {
    scheme: Scheme,
    bucket: String,
    /// `a/b/`, or nothing.
    prefix: String,
    /// Identifies this writer.
    writer: String,
    calls: Calls,
    uploads: Uploads,
    /// The store does not support conditional writes.
    is_unconditional: AtomicBool,
}

/// Condition of a write.
enum Condition {
    None,
    /// The object has this entity tag.
    Is(String),
    IsMissing,
}

impl fmt::Debug for ObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStore")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl ObjectStore {
    pub(super) fn new(
        location: &ModelLocation,
        attempt: &AttemptRef,
        retry: Arc<RetryPolicy>,
    ) -> Result<Self, String> {
        let folder = location.folder.trim_start_matches('/');
        Ok(Self {
            scheme: location.scheme,
            bucket: location.authority.clone(),
            prefix: if folder.is_empty() { String::new() } else { format!("{folder}/") },
            // Random too: `exec` has no attempt.
            writer: format!(
                "{}/{}/{}/{:x}",
                attempt.job_id,
                attempt.step,
                attempt.attempt,
                rand::random::<u64>()
            ),
            calls: Calls::new(retry)?,
            uploads: Arc::default(),
            is_unconditional: AtomicBool::new(false),
        })
    }

    fn operator(&self) -> io::Result<Operator> {
        Ok(http::retried(service::operator(self.scheme, &self.bucket)?))
    }

    fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Removes abandoned uploads, if the store can list them and permits it. Failures do not matter.
    #[cfg_attr(not(feature = "s3"), expect(unused_variables, reason = "only S3 can list them"))]
    fn remove_abandoned(&self, operator: &Operator, path: &str) {
        #[cfg(feature = "s3")]
        if self.scheme == Scheme::S3 {
            match self.calls.wait(super::abandoned_uploads::abort_abandoned(
                operator,
                &service::region(),
                path,
            )) {
                Ok(0) => {}
                Ok(count) => tracing::info!(path, count, "removed uploads that were abandoned a day ago"),
                Err(error) => tracing::debug!(path, %error, "cannot list abandoned uploads"),
            }
        }
    }

    /// Aborts the upload of this name, if there is one.
    fn abort(&self, name: &str) {
        let Some(mut upload) = lock(&self.uploads).remove(name) else { return };
        let aborting = async { upload.writer.abort().await.map_err(http::io_error) };
        if let Err(error) = self.calls.wait_for_cleanup(aborting) {
            tracing::debug!(name, %error, "cannot abort an upload");
        }
    }

    fn complete(&self, path: &str, upload: &mut Upload) -> io::Result<()> {
        let closed = if upload.is_closed {
            Ok(())
        } else {
            self.calls.wait_with_retries(async || upload.writer.close().await).map(drop)
        };
        upload.is_closed = closed.is_ok();
        let Upload { operator, length, is_conditional, .. } = upload;
        let found = self.calls.wait_with_retries(async || operator.stat(path).await);
        let is_marked = operator.info().capability().write_with_user_metadata;
        let found = match (closed, found) {
            // Another writer has already replaced it.
            (Ok(()), Ok(found)) if is_marked && !self.is_ours(&found) => return Ok(()),
            // Credentials that may only write cannot verify it.
            (Ok(()), Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            // It was removed since.
            (Ok(()), Err(error)) if error.kind() == io::ErrorKind::NotFound => return Err(error),
            (Ok(()), Err(error)) => {
                tracing::warn!(path, %error, "the store confirmed the commit; it could not be verified");
                return Ok(());
            }
            (Ok(()), Ok(found)) => found,
            // An earlier completion succeeded, and only its response was lost.
            (Err(_), Ok(found)) if self.is_ours(&found) => found,
            // A request without a response may have completed it. Without permission to write it has not.
            (Err(error), Err(unknown))
                if error.kind() != io::ErrorKind::PermissionDenied
                    && unknown.kind() != io::ErrorKind::NotFound =>
            {
                return Err(CommitUnknown::because(
                    &error,
                    "the store does not say whether it was committed",
                ));
            }
            (Err(error), _) if self.is_write_conflict(&error, *is_conditional) => {
                return Err(io::Error::other(WriteConflict(match error.kind() {
                    io::ErrorKind::NotFound => format!("it was removed meanwhile ({error})"),
                    _ => format!("another model came in between ({error})"),
                })));
            }
            (Err(error), _) => return Err(error),
        };
        if found.content_length() == *length {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "{length} bytes were sent, but the store has {}",
            found.content_length()
        )))
    }

    /// Whether the precondition does not hold any more, or the upload is gone. Then the file has to be staged again.
    fn is_write_conflict(&self, error: &io::Error, is_conditional: bool) -> bool {
        match error.kind() {
            io::ErrorKind::NotFound => !is_bucket_missing(error),
            _ => is_conditional && self.is_precondition_failed(error),
        }
    }

    /// Also for a store without conditional writes; then the next upload has no precondition.
    fn is_precondition_failed(&self, error: &io::Error) -> bool {
        match http::code(error) {
            Some("NotImplemented") => {
                self.is_unconditional.store(true, Ordering::Relaxed);
                true
            }
            Some("ConditionalRequestConflict") => true,
            _ => error.kind() == REPLACED,
        }
    }

    /// The condition under which the upload may replace the object.
    fn condition(&self, operator: &Operator, path: &str) -> io::Result<Condition> {
        let can = operator.info().capability();
        if !(can.write_with_if_match && can.write_with_if_not_exists)
            || self.is_unconditional.load(Ordering::Relaxed)
        {
            return Ok(Condition::None);
        }
        match self.calls.wait(async { operator.stat(path).await.map_err(http::io_error) }) {
            Ok(found) => Ok(found.etag().map_or(Condition::None, |tag| Condition::Is(tag.to_owned()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Condition::IsMissing),
            // Without permission to list, a missing object is "permission denied". A missing permission to write shows
            // next.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Condition::None),
            Err(error) => {
                // A response to HEAD has no body that says why.
                let asked = self.calls.wait(async {
                    operator.read_with(path).range(0..1).await.map(drop).map_err(http::io_error)
                });
                Err(asked.err().unwrap_or(error))
            }
        }
    }

    fn is_ours(&self, found: &opendal::Metadata) -> bool {
        found.user_metadata().and_then(|all| all.get(WRITTEN_BY)).is_some_and(|by| *by == self.writer)
    }
}

impl ModelStore for ObjectStore {
    fn stage(&self, name: &str, precondition: Precondition, bytes: u64) -> io::Result<Box<dyn StagedFile>> {
        let timed = service::operator(self.scheme, &self.bucket)?;
        let operator = http::retried(timed.clone());
        let path = self.path(name);
        self.abort(name);
        self.remove_abandoned(&operator, &path);
        // Without `chunk`: OpenDAL loses what it has buffered for a chunk when sending fails.
        let mut writer = timed.writer_with(&path).concurrent(CONCURRENT);
        if operator.info().capability().write_with_user_metadata {
            writer = writer.user_metadata([(WRITTEN_BY.to_owned(), self.writer.clone())]);
        }
        let condition = match precondition {
            Precondition::IfUnchanged => self.condition(&operator, &path)?,
            Precondition::None => Condition::None,
        };
        let is_conditional = !matches!(condition, Condition::None);
        writer = match condition {
            Condition::None => writer,
            Condition::Is(tag) => writer.if_match(&tag),
            Condition::IsMissing => writer.if_not_exists(true),
        };
        let writer = self.calls.wait(async { writer.await.map_err(http::io_error) })?;
        let upload =
            Upload { operator, writer, length: 0, is_conditional, is_whole: false, is_closed: false };
        lock(&self.uploads).insert(name.to_owned(), upload);
        let part = part_of(bytes);
        let staged = Staged {
            name: name.to_owned(),
            part,
            held_back: Bytes::new(),
            uploads: self.uploads.clone(),
            calls: self.calls.clone(),
        };
        Ok(Box::new(Pieces::new(staged, part)))
    }

    fn commit(&self, name: &str) -> io::Result<()> {
        let mut uploads = lock(&self.uploads);
        let Some(upload) = uploads.get_mut(name).filter(|it| it.is_whole) else {
            return Err(io::Error::other(format!("{name} was not staged")));
        };
        failpoint::agent(&format!("{}-before-rename", kind(name)));
        self.complete(&self.path(name), upload)?;
        uploads.remove(name);
        failpoint::agent(&format!("{}-after-rename", kind(name)));
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        failpoint::agent("clear");
        let names: Vec<_> = lock(&self.uploads).keys().cloned().collect();
        names.iter().for_each(|name| self.abort(name));
        Ok(())
    }

    fn fingerprint(&self, name: &str) -> io::Result<Option<Fingerprint>> {
        let operator = self.operator()?;
        self.calls.wait(http::fingerprint(&operator, &self.path(name)))
    }

    fn list(&self) -> io::Result<Vec<FoundFile>> {
        let operator = self.operator()?;
        let entries = self.calls.wait(async {
            match operator.list_with(&self.prefix).recursive(true).await {
                Err(error) if error.kind() == opendal::ErrorKind::NotFound => Ok(Vec::new()),
                other => other.map_err(http::io_error),
            }
        })?;
        let file = |entry: opendal::Entry| {
            let metadata = entry.metadata();
            Some(FoundFile {
                path: below(&self.prefix, entry.path())?,
                bytes: metadata.content_length(),
                modified: metadata.last_modified().map(SystemTime::from),
            })
        };
        Ok(entries.into_iter().filter(|it| it.metadata().is_file()).filter_map(file).collect())
    }

    fn find(&self, name: &str) -> io::Result<FoundFile> {
        let operator = self.operator()?;
        let path = self.path(name);
        let found = self.calls.wait(async { operator.stat(&path).await.map_err(http::io_error) })?;
        let modified = found.last_modified().map(SystemTime::from);
        Ok(FoundFile { path: name.to_owned(), bytes: found.content_length(), modified })
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let operator = self.operator()?;
        let path = self.path(name);
        self.remove_abandoned(&operator, &path);
        self.calls.wait(async { operator.delete(&path).await.map_err(http::io_error) })
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let operator = self.operator()?;
        let path = self.path(name);
        let stream = self.calls.wait(async {
            // Reports a missing object now.
            let found = operator.stat(&path).await.map_err(http::io_error)?;
            let mut reader = operator.reader_with(&path).chunk(PART).concurrent(2);
            // All pieces are of this version of the object, even if it is replaced meanwhile.
            if let Some(tag) = found.etag().filter(|_| operator.info().capability().read_with_if_match) {
                reader = reader.if_match(tag);
            }
            let reader = reader.await.map_err(http::io_error)?;
            reader.into_bytes_stream(..).await.map_err(http::io_error)
        })?;
        Ok(Box::new(http::Reading::new(stream, self.calls.clone())))
    }
}

/// Whether the bucket or container does not exist: staging again does not help.
fn is_bucket_missing(not_found: &io::Error) -> bool {
    match http::code(not_found) {
        Some("NoSuchBucket" | "ContainerNotFound") => true,
        // Google's JSON API, which inserts a whole object and has no other code: only the bucket can be missing.
        // Uploads in parts use its XML API.
        Some("404") => true,
        _ => false,
    }
}

#[cfg(feature = "s3")]
#[cfg(test)]
mod tests;
