//! Inputs: models that are fetched, verified and unpacked before the command starts.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use sqlflow_model_storage::cache::{Cache, CacheWrite, CacheWriter, Fingerprint};
use sqlflow_model_storage::tarball::{self, META};
use sqlflow_model_storage::unpack::unpack;
use sqlflow_model_storage::{self as store, ModelLocation, ModelStore, RetryPolicy};
use sqlflow_os::paths::inside;
use sqlflow_proto::agent::{AttemptRef, Input, ModelVisibility};

use crate::exhaustion::is_exhaustion;
use crate::known_models::near_misses;

/// An input could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The model does not exist.
    #[error("model {name} does not exist at {uri}{near}")]
    Missing {
        /// The model's name.
        name: String,
        /// Its URI.
        uri: String,
        /// Suggestion, such as `; did you mean team/flowers?`, or nothing.
        near: String,
    },
    /// The model exists, but cannot be read or is not a model.
    #[error("cannot fetch model {name} from {uri}: {cause:#}")]
    Unusable {
        /// The model's name.
        name: String,
        /// Its URI.
        uri: String,
        /// The cause.
        cause: anyhow::Error,
    },
}

/// Unpacks a model into its folder in the workspace, from the cache if possible. Failures of the storage and
/// exhaustion, such as of the disk, are retried by the policy.
///
/// # Errors
/// See [`InputError`].
pub fn fetch(
    workspace: &Path,
    input: &Input,
    attempt: &AttemptRef,
    visibility: Option<&ModelVisibility>,
    cache: Option<&Cache>,
    retry: &Arc<RetryPolicy>,
) -> Result<(), InputError> {
    let unusable = |cause| InputError::Unusable { name: input.name.clone(), uri: input.uri.clone(), cause };
    let refused = |why| unusable(anyhow::Error::msg(why));
    let location = ModelLocation::new(&input.uri, &input.name).map_err(refused)?;
    let store = store::open(&location, attempt, retry).map_err(refused)?;
    let folder = inside(workspace, &input.directory).map_err(|error| unusable(error.into()))?;
    let fetched = fetch_from(&*store, &location.tarball(), &folder, input, cache, retry);
    fetched.map_err(|failure| match failure {
        Failure::Storage(error) if error.kind() == io::ErrorKind::NotFound => missing(input, visibility),
        Failure::Storage(error) => unusable(error.into()),
        Failure::Content(cause) => unusable(cause),
    })
}

/// Checks that a model exists that a later step needs, and writes its metadata into its folder, if it has one. If the
/// storage cannot be read, the later step reports it.
///
/// # Errors
/// [`InputError::Missing`]
pub fn require(
    workspace: &Path,
    model: &Input,
    attempt: &AttemptRef,
    visibility: Option<&ModelVisibility>,
    retry: &Arc<RetryPolicy>,
) -> Result<(), InputError> {
    let Ok(location) = ModelLocation::new(&model.uri, &model.name) else { return Ok(()) };
    let Ok(store) = store::open(&location, attempt, retry) else { return Ok(()) };
    match store.read(&location.tarball()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing(model, visibility)),
        Ok(tarball) if !model.directory.is_empty() => {
            if let Err(error) = describe(workspace, model, tarball) {
                tracing::warn!(%error, model = model.name, "cannot read the metadata of a model for a later statement");
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Writes the metadata of a model, if there is some, into its folder in the workspace.
fn describe(workspace: &Path, model: &Input, tarball: impl Read) -> anyhow::Result<()> {
    let Some(meta) = tarball::meta(tarball)? else { return Ok(()) };
    let folder = inside(workspace, &model.directory)?;
    std::fs::create_dir_all(&folder)?;
    Ok(std::fs::write(folder.join(META), meta)?)
}

fn missing(model: &Input, visibility: Option<&ModelVisibility>) -> InputError {
    let near = near_misses(&model.name, &model.uri, visibility);
    InputError::Missing { name: model.name.clone(), uri: model.uri.clone(), near }
}

fn fetch_from(
    store: &dyn ModelStore,
    tarball: &str,
    folder: &Path,
    input: &Input,
    cache: Option<&Cache>,
    retry: &RetryPolicy,
) -> Result<(), Failure> {
    // If the disk has no room for the model, a copy in the cache would need even more.
    let is_full = Cell::new(false);
    let read = |print: io::Result<Option<Fingerprint>>| {
        let print = print?;
        let known = cache.zip(print.as_ref());
        if let Some((cache, print)) = known
            && let Some(file) = cache.open(&input.uri, print)
        {
            let mut reading = Reading { file: Box::new(file), retry, failed: false, caching: None };
            match unpack_from(&mut reading, folder) {
                Ok(()) => {
                    tracing::info!(model = input.name, "the model is from the cache");
                    return Ok(());
                }
                Err(failure) if failure.is_exhaustion() => return Err(failure),
                Err(error) => {
                    tracing::warn!(%error, model = input.name, "the cached model is corrupted");
                    cache.remove(&input.uri, print);
                }
            }
        }
        let caching =
            known.filter(|_| !is_full.get()).and_then(|(cache, print)| cache.writer(&input.uri, print));
        let mut reading = Reading { file: store.read(tarball)?, retry, failed: false, caching };
        unpack_from(&mut reading, folder)
            .inspect_err(|failure| is_full.set(is_full.get() || failure.is_exhaustion()))?;
        if let Some(caching) = reading.caching {
            caching.finish();
        }
        Ok(())
    };
    // Replacements are not failures of the storage, but their number over all retries is bounded.
    let mut replaced = 0;
    let was_replaced =
        |failure: &Failure| matches!(failure, Failure::Storage(error) if error.kind() == store::REPLACED);
    let look = || store.fingerprint(tarball);
    let read = || store::retry_if_replaced(&input.name, &mut replaced, was_replaced, look, read);
    retry.retry(read, Failure::is_retryable)
}

/// Failure of a fetch, by its cause.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Storage(#[from] io::Error),
    #[error("{0:#}")]
    Content(anyhow::Error),
}

impl Failure {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Storage(error) => error.kind() != io::ErrorKind::NotFound,
            Self::Content(_) => self.is_exhaustion(),
        }
    }

    /// Whether unpacking failed for exhaustion of this machine.
    fn is_exhaustion(&self) -> bool {
        matches!(self, Self::Content(cause) if is_exhaustion(cause))
    }
}

/// Unpacks a model. After a failure, removes what was unpacked, so that a retry finds the folder unchanged.
fn unpack_from(tarball: &mut Reading<'_>, folder: &Path) -> Result<(), Failure> {
    let mut made = BTreeSet::new();
    unpack(&mut *tarball, folder, &mut made).map_err(|cause| {
        for file in made {
            let _ = std::fs::remove_file(file);
        }
        match cause.downcast::<io::Error>() {
            Ok(error) if tarball.failed => Failure::Storage(error),
            Ok(error) => Failure::Content(error.into()),
            Err(cause) => Failure::Content(cause),
        }
    })
}

/// Reads a model, copies it to the cache, and notes whether the storage failed.
struct Reading<'a> {
    file: Box<dyn Read + Send>,
    retry: &'a RetryPolicy,
    failed: bool,
    caching: Option<CacheWriter<'a>>,
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.retry.is_abandoned() {
            return Err(RetryPolicy::abandoned_error());
        }
        let read = self.file.read(buffer);
        self.failed |= read.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        if let Ok(length) = read
            && self.caching.as_mut().is_some_and(|it| it.write(&buffer[..length]) == CacheWrite::Failed)
        {
            self.caching = None;
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use sqlflow_model_storage::{FoundFile, Precondition, StagedFile};
    use sqlflow_os::small_disk::{self, MIB};
    use tar::{Builder, Header};

    use super::*;

    fn tarball(name: &str, content: &[u8]) -> Vec<u8> {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content).unwrap();
        builder.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn missing_model_is_reported_with_its_uri() {
        let dir = tempfile::tempdir().unwrap();
        let uri = format!("file://{}/m", dir.path().display());
        let input = Input { uri: uri.clone(), name: "m".into(), directory: "inputs/m".into() };
        let retry = Arc::new(RetryPolicy::new(Duration::ZERO));
        let error = fetch(dir.path(), &input, &AttemptRef::default(), None, None, &retry).unwrap_err();
        assert_eq!(error.to_string(), format!("model m does not exist at {uri}"));
    }

    #[test]
    fn model_required_by_a_later_step_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("m")).unwrap();
        std::fs::write(dir.path().join("m/m.tar.gz"), "x").unwrap();
        let retry = Arc::new(RetryPolicy::new(Duration::ZERO));
        let require = |name: &str, directory: &str| {
            let uri = format!("file://{}/{name}", dir.path().display());
            let input = Input { uri, name: name.into(), directory: directory.into() };
            require(dir.path(), &input, &AttemptRef::default(), None, &retry)
        };
        require("m", "").unwrap();
        assert!(require("mm", "").unwrap_err().to_string().ends_with("; did you mean m?"));
        // A file that is not a tarball is reported by the later step.
        require("m", "ahead/m").unwrap();
        assert!(!dir.path().join("ahead/m").exists());
        std::fs::write(dir.path().join("m/m.tar.gz"), tarball(META, b"{}")).unwrap();
        require("m", "ahead/m").unwrap();
        assert_eq!(std::fs::read(dir.path().join("ahead/m/model_meta.json")).unwrap(), b"{}");
        require("m", "").unwrap();
    }

    const LARGE: usize = MIB * 2 / 3;

    /// An incompressible model that takes two thirds of the small disk.
    fn large_model() -> Stored {
        let mut random = 1_u64;
        let digit = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from((random >> 57) as u8)
        };
        let weights: String = std::iter::repeat_with(digit).take(LARGE).collect();
        Stored(tarball("weights", weights.as_bytes()))
    }

    /// A storage with one tarball and its fingerprint.
    #[derive(Debug)]
    struct Stored(Vec<u8>);

    impl ModelStore for Stored {
        fn stage(&self, _: &str, _: Precondition, _: u64) -> io::Result<Box<dyn StagedFile>> {
            unreachable!()
        }

        fn commit(&self, _: &str) -> io::Result<()> {
            unreachable!()
        }

        fn clear(&self) -> io::Result<()> {
            unreachable!()
        }

        fn list(&self) -> io::Result<Vec<FoundFile>> {
            unreachable!()
        }

        fn find(&self, _: &str) -> io::Result<FoundFile> {
            unreachable!()
        }

        fn delete(&self, _: &str) -> io::Result<()> {
            unreachable!()
        }

        fn fingerprint(&self, _: &str) -> io::Result<Option<Fingerprint>> {
            let trailer = *self.0.last_chunk().unwrap();
            Ok(Some(Fingerprint { tag: "1".to_owned(), length: self.0.len() as u64, trailer }))
        }

        fn read(&self, _: &str) -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(io::Cursor::new(self.0.clone())))
        }
    }

    #[test]
    fn on_a_small_disk() {
        let Some(disk) = small_disk::here() else { return };
        let (model, folder) = (large_model(), disk.join("m"));
        let fetch = |cache: &Cache, seconds| {
            let retry = RetryPolicy::new(Duration::from_secs(seconds));
            fetch_from(&model, "m.tar.gz", &folder, &Input::default(), Some(cache), &retry)
        };
        // There is room for the model, but not for a copy in the cache.
        let same = Cache::new(disk.join("cache"), u64::MAX);
        let ballast = small_disk::fill(&disk);
        std::thread::scope(|scope| {
            let fetched = scope.spawn(|| fetch(&same, 60));
            std::thread::sleep(Duration::from_millis(500));
            assert!(!fetched.is_finished());
            std::fs::remove_file(ballast).unwrap();
            fetched.join().unwrap().unwrap();
        });
        let weights = folder.join("weights");
        assert_eq!(std::fs::metadata(&weights).unwrap().len(), LARGE as u64);

        // A cached model that cannot be unpacked for lack of room is not removed.
        let elsewhere = tempfile::tempdir().unwrap();
        let cache = Cache::new(elsewhere.path().to_owned(), u64::MAX);
        std::fs::remove_file(&weights).unwrap();
        fetch(&cache, 0).unwrap();
        std::fs::remove_file(&weights).unwrap();
        small_disk::fill(&disk);
        assert!(fetch(&cache, 0).unwrap_err().is_exhaustion());
        assert!(!weights.exists() && std::fs::read_dir(elsewhere.path()).unwrap().count() == 1);
        small_disk::done();
    }

    #[test]
    fn full_disk_is_retried() {
        small_disk::run("input::tests::on_a_small_disk");
    }
}
