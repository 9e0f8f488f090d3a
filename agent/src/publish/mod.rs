//! Publishes models: packed and staged beside their destination, then, after the grant, committed by an atomic
//! replacement. At every moment the model's name holds all of the old version or all of the new.
//!
//! [`sqlflow_model_storage`] packs and stores; `existing` describes the model that is replaced.

mod existing;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sqlflow_model_storage::pack::{self, Contents, Digest, PackError};
use sqlflow_model_storage::tarball::{self, GOB};
use sqlflow_model_storage::{self as store, ModelLocation, ModelStore, Precondition, RetryPolicy, Scheme};
use sqlflow_os::paths::inside;
use sqlflow_os::run_as::RunAs;
use sqlflow_proto::agent::{AttemptRef, ModelVisibility, Output};
use sqlflow_proto::record::ModelPublished;
use sqlflow_sync::lock;

use crate::known_models::near_misses;
use existing::Found;

/// Number of concurrent commits after which the gob is left to the other writers.
const MAX_CONCURRENT_COMMITS: u32 = 10;

/// Publication of the models of one attempt. All methods block.
#[derive(Debug)]
pub struct Publication {
    outputs: Vec<ModelOutput>,
    retry: Arc<RetryPolicy>,
    /// The published ones, a prefix of `outputs`. Its lock keeps staging and clearing apart.
    committed: Mutex<Vec<ModelPublished>>,
    /// Measured bytes per second.
    speed: AtomicU64,
}

#[derive(Debug)]
struct ModelOutput {
    output: Output,
    /// Workspace, which the source must not leave.
    workspace: PathBuf,
    source: PathBuf,
    /// With whose rights the source is read; `None`: the agent's.
    user: Option<RunAs>,
    tarball: String,
    gob_copy: String,
    is_first_attempt: bool,
    store: Box<dyn ModelStore>,
    /// Which models a message may suggest.
    visibility: Option<ModelVisibility>,
    /// The last warning of left-out files.
    warned: Mutex<Option<String>>,
}

/// A model that is ready for its commit.
struct Prepared {
    published: ModelPublished,
    /// Bytes that were packed.
    bytes: u64,
}

/// Why not all models are published.
#[derive(Debug)]
pub struct PublishError {
    /// A message for people.
    pub message: String,
    /// Models that are published.
    pub committed: Vec<ModelPublished>,
    /// Who can do what about it.
    pub kind: PublishErrorKind,
}

/// Kinds of [`PublishError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishErrorKind {
    /// The storage failed.
    Storage,
    /// Another model was published in between, or the staged file is gone. Stage again, and ask again for the grant.
    WriteConflict,
    /// The user can fix it.
    UserError,
    /// The attempt was ended.
    Abandoned,
}

impl From<&PackError> for PublishErrorKind {
    fn from(error: &PackError) -> Self {
        match error {
            PackError::Io(error) if store::is_write_conflict(error) => Self::WriteConflict,
            PackError::Io(_) => Self::Storage,
            PackError::Empty(_) | PackError::Missing(_) | PackError::Unreadable { .. } => Self::UserError,
            PackError::Abandoned => Self::Abandoned,
        }
    }
}

impl Publication {
    /// See [`RetryPolicy::on_failing`].
    pub fn on_failing_storage(&self, notify: impl Fn(String) + Send + Sync + 'static) {
        self.retry.on_failing(notify);
    }

    /// Whose messages suggest these models only; `None`: all.
    #[must_use]
    pub fn suggesting(mut self, visibility: Option<&ModelVisibility>) -> Self {
        for model in &mut self.outputs {
            model.visibility = visibility.cloned();
        }
        self
    }

    /// Whose folders belong to this user, with whose rights they are read; `None`: with the agent's.
    #[must_use]
    pub fn reading_as(mut self, user: Option<RunAs>) -> Self {
        for model in &mut self.outputs {
            model.user = user;
        }
        self
    }

    /// Publishes `outputs` from the workspace. Failures of a storage are retried for the given time.
    ///
    /// # Errors
    /// A message: a location or folder cannot be used.
    pub fn new(
        attempt: &AttemptRef,
        outputs: &[Output],
        workspace: &Path,
        retry: Duration,
    ) -> Result<Self, String> {
        let retry = Arc::new(RetryPolicy::new(retry));
        let model = |output: &Output| {
            let location = ModelLocation::new(&output.uri, &output.name)?;
            let source = inside(workspace, &output.directory).map_err(|error| error.to_string())?;
            if location.scheme == Scheme::File && Path::new(&location.folder).starts_with(&source) {
                let source = source.display();
                return Err(format!("cannot publish {source} into itself; use another location"));
            }
            Ok(ModelOutput {
                workspace: workspace.to_owned(),
                source,
                tarball: location.tarball(),
                gob_copy: format!("{}.gob", location.last),
                is_first_attempt: attempt.attempt <= 1,
                store: store::open(&location, attempt, &retry)?,
                user: None,
                output: output.clone(),
                visibility: None,
                warned: Mutex::default(),
            })
        };
        for (at, output) in outputs.iter().enumerate() {
            if outputs[..at].iter().any(|it| (&it.uri, &it.name) == (&output.uri, &output.name)) {
                let Output { uri, name, .. } = output;
                return Err(format!(
                    "cannot publish two outputs as {name} at {uri}; use different locations"
                ));
            }
        }
        Ok(Self {
            outputs: outputs.iter().map(model).collect::<Result<_, String>>()?,
            retry,
            committed: Mutex::default(),
            speed: AtomicU64::new(0),
        })
    }

    /// Creates the folders that will be published, for the command to write into. Warns of files in them that would be
    /// left out.
    ///
    /// # Errors
    /// A message: a folder cannot be created.
    pub fn prepare(&self, warn: &dyn Fn(String)) -> Result<(), String> {
        for model in self.outputs.iter().filter(|it| it.output.removal.is_none()) {
            let folder = model.source.display();
            std::fs::create_dir_all(&model.source)
                .map_err(|error| format!("cannot create the folder {folder} of an output: {error}"))?;
            // The workspace is still the agent's. A file that cannot be read now may be readable after the command.
            if let Some(left_out) = Contents::of(&model.source, None).ok().and_then(|it| it.left_out()) {
                model.warn_of(left_out, warn);
            }
        }
        Ok(())
    }

    /// Packs and stages every model that is not committed yet, and returns what a commit would publish. Nothing is
    /// visible yet. Warns of files that are left out.
    ///
    /// # Errors
    /// A folder without a model in it, or a storage that fails for longer than the retry timeout.
    pub fn stage(&self, warn: &dyn Fn(String)) -> Result<Vec<ModelPublished>, PublishError> {
        let committed = self.committed();
        let begun = Instant::now();
        let mut staged = committed.clone();
        let mut bytes = 0;
        for model in &self.outputs[committed.len()..] {
            let made = self.with_retries(|| model.prepare(&self.retry, warn));
            let made = made.map_err(|cause| model.error(&cause, &committed))?;
            staged.push(made.published);
            bytes += made.bytes;
        }
        self.speed.store((bytes as f64 / begun.elapsed().as_secs_f64().max(1e-3)) as u64, Ordering::Relaxed);
        Ok(staged)
    }

    /// Bytes of the folders that will be published, as far as they exist; `None`: nothing will be.
    pub fn source_bytes(&self) -> Option<u64> {
        let bytes = || self.outputs.iter().map(|model| pack::size_of(&model.source, model.user)).sum();
        (!self.outputs.is_empty()).then(bytes)
    }

    /// Bytes per second that were packed and stored; 0: not known yet.
    pub fn speed(&self) -> u64 {
        self.speed.load(Ordering::Relaxed)
    }

    /// Commits every staged model. Call it only after the grant.
    ///
    /// # Errors
    /// A storage that fails for longer than the retry timeout; a write conflict.
    pub fn commit(&self, staged: Vec<ModelPublished>) -> Result<Vec<ModelPublished>, PublishError> {
        let mut committed = self.committed();
        let left = committed.len();
        for (model, published) in self.outputs.iter().zip(staged).skip(left) {
            let swap = self.with_retries(|| model.commit(&self.retry).map_err(PackError::Io));
            swap.map_err(|cause| model.error(&cause, &committed))?;
            committed.push(published);
            if model.output.removal.is_some() {
                continue;
            }
            if let Err(cause) = model.publish_gob(&self.retry) {
                let is = if store::is_commit_unknown(&cause) { "may be" } else { "is" };
                let message = format!(
                    "model {} is in place, but {GOB} beside it {is} the old one: {cause}",
                    model.output.name
                );
                let committed = committed.clone();
                return Err(PublishError { message, committed, kind: PublishErrorKind::Storage });
            }
            if let Err(error) = model.store.clear() {
                tracing::warn!(%error, model = model.output.name, "cannot remove the staging folder");
            }
        }
        Ok(committed.clone())
    }

    fn committed(&self) -> MutexGuard<'_, Vec<ModelPublished>> {
        lock(&self.committed)
    }

    /// Makes failures final from now on.
    pub fn hurry(&self) {
        self.retry.hurry();
    }

    /// Stops staging as soon as possible.
    pub fn abandon(&self) {
        self.retry.abandon();
    }

    /// Removes staged files.
    pub fn clear(&self) {
        let _staging = self.committed();
        for model in &self.outputs {
            if let Err(error) = model.store.clear() {
                tracing::warn!(%error, model = model.output.name, "cannot remove the staging folder");
            }
        }
    }

    /// Retries while the storage fails.
    fn with_retries<T>(&self, work: impl Fn() -> Result<T, PackError>) -> Result<T, PackError> {
        self.retry.retry(work, is_retryable)
    }
}

fn is_retryable(error: &PackError) -> bool {
    PublishErrorKind::from(error) == PublishErrorKind::Storage
}

impl ModelOutput {
    /// Stages the model, or finds the one to remove.
    fn prepare(&self, retry: &RetryPolicy, warn: &dyn Fn(String)) -> Result<Prepared, PackError> {
        let found = existing::look(&*self.store, &self.tarball);
        let Output { name, uri, removal, .. } = &self.output;
        let model = ModelPublished { name: name.clone(), uri: uri.clone(), ..ModelPublished::default() };
        if let Some(removal) = removal {
            return match found {
                // An earlier attempt may have removed it.
                Found::Nothing if !removal.if_exists && self.is_first_attempt => {
                    Err(PackError::Missing(near_misses(name, uri, self.visibility.as_ref())))
                }
                Found::Unknown(error) => Err(error.into()),
                found @ (Found::Nothing | Found::Model(_)) => {
                    let published = ModelPublished { removed: true, replaced: found.model(), ..model };
                    Ok(Prepared { published, bytes: 0 })
                }
            };
        }
        self.check_source()?;
        let contents = Contents::of(&self.source, self.user)?;
        let bytes = contents.bytes();
        let digest = self.stage(contents, retry, warn)?;
        let published = ModelPublished {
            size_bytes: digest.size_bytes,
            sha256: digest.sha256.to_vec().into(),
            replaced: found.model(),
            ..model
        };
        Ok(Prepared { published, bytes })
    }

    /// Refuses a folder outside of the workspace. The command may have replaced its folder, or one above it, by a link to
    /// files that it cannot open itself.
    fn check_source(&self) -> Result<(), PackError> {
        // Otherwise it does not exist, and the listing says so.
        let (Ok(workspace), Ok(source)) = (self.workspace.canonicalize(), self.source.canonicalize()) else {
            return Ok(());
        };
        if source.starts_with(workspace) {
            return Ok(());
        }
        let cause = io::Error::other("it is a link out of the workspace");
        Err(PackError::Unreadable { path: self.source.clone(), cause })
    }

    /// Commits or removes the tarball. A model without its tarball does not exist.
    fn commit(&self, retry: &RetryPolicy) -> io::Result<()> {
        if self.output.removal.is_none() {
            return self.store.commit(&self.tarball);
        }
        self.store.delete(&self.tarball)?;
        self.store.delete(GOB)?;
        // This may have removed the gob of a model that was published in between.
        match self.gob_in_place(retry) {
            Some(gob) => self.put_gob(&gob),
            None => Ok(()),
        }
    }

    /// Warns once of the same files.
    fn warn_of(&self, left_out: String, warn: &dyn Fn(String)) {
        let mut warned = lock(&self.warned);
        if warned.as_ref() != Some(&left_out) {
            let folder = self.source.display();
            warn(format!(
                "not published of {folder}, since only files, folders and links within it can be: {left_out}"
            ));
            *warned = Some(left_out);
        }
    }

    fn stage(
        &self,
        contents: Contents,
        retry: &RetryPolicy,
        warn: &dyn Fn(String),
    ) -> Result<Digest, PackError> {
        let gob = (!self.output.gob.is_empty()).then_some((&*self.gob_copy, &self.output.gob[..]));
        let left_out = contents.left_out();
        let mut staged = self.store.stage(&self.tarball, Precondition::IfUnchanged, contents.bytes())?;
        let digest = contents.pack(gob, &mut staged, retry)?;
        staged.finish()?;
        if let Some(left_out) = left_out {
            self.warn_of(left_out, warn);
        }
        Ok(digest)
    }

    /// Writes the gob, and then checks whether another tarball was committed meanwhile: its gob may have been replaced
    /// by this one. So the gob beside a tarball is the one in it, in any order of writers.
    fn publish_gob(&self, retry: &RetryPolicy) -> io::Result<()> {
        if self.output.gob.is_empty() {
            return Ok(());
        }
        let mut gob = self.output.gob.clone();
        for _ in 0..MAX_CONCURRENT_COMMITS {
            retry.retry(|| self.put_gob(&gob), |_| true)?;
            match self.gob_in_place(retry) {
                Some(published) if published != gob => gob = published,
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn put_gob(&self, gob: &[u8]) -> io::Result<()> {
        let mut staged = self.store.stage(GOB, Precondition::None, gob.len() as u64)?;
        staged.write_all(gob)?;
        staged.finish()?;
        self.store.commit(GOB)
    }

    /// Gob of the tarball that is published now. `None`: it has none, or does not exist, or cannot be read. This model
    /// counts as published anyway.
    fn gob_in_place(&self, retry: &RetryPolicy) -> Option<Bytes> {
        let is_retryable = |error: &io::Error| {
            !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
        };
        let look = || self.store.read(&self.tarball).and_then(tarball::gob);
        let found = retry.retry(look, is_retryable).inspect_err(|error| {
            tracing::debug!(%error, "cannot read the gob of the published model");
        });
        found.ok().flatten().map(Bytes::from)
    }

    fn error(&self, cause: &PackError, committed: &[ModelPublished]) -> PublishError {
        let Output { name, uri, .. } = &self.output;
        let is_unknown = matches!(cause, PackError::Io(error) if store::is_commit_unknown(error));
        let message = if self.output.removal.is_some() {
            format!("cannot drop model {name} at {uri}: {cause}")
        } else if is_unknown {
            format!("model {name} may be in place at {uri}, but that is not certain: {cause}")
        } else {
            format!("model {name} could not be published at {uri}: {cause}")
        };
        PublishError { message, committed: committed.to_owned(), kind: cause.into() }
    }
}

#[cfg(test)]
mod tests;
