//! Lists, describes, copies and deletes models for people.
//!
//! All facts about a model come from its tarball, whose replacement is the commit point. The gob beside it is for other
//! readers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use sqlflow_os::durable;
use sqlflow_proto::agent::AttemptRef;

use crate::tarball::{self, GOB, META};
use crate::{ModelLocation, ModelStore, RetryPolicy};

/// Retry timeout.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);

/// A storage of models.
#[derive(Debug)]
pub struct Models {
    uri: String,
}

/// A listed model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Name, such as `team/flowers`.
    pub name: String,
    /// Length of its tarball.
    pub bytes: u64,
    /// Time of publication, by the storage's clock.
    pub modified: Option<SystemTime>,
}

/// Content of a model.
#[derive(Debug, Default, PartialEq)]
pub struct Content {
    /// Files, with their lengths.
    pub files: BTreeMap<String, u64>,
    /// Metadata from its submitter, if there is some.
    pub meta: Option<serde_json::Value>,
    /// `sqlflow.gob`, if there is one.
    pub gob: Option<Vec<u8>>,
}

impl Models {
    /// The models at a URI such as `hdfs://namenode:9000/models`. Needs a tokio runtime around all calls. All methods
    /// block.
    ///
    /// # Errors
    /// A message.
    pub fn at(uri: &str) -> anyhow::Result<Self> {
        ModelLocation::root(uri).map_err(anyhow::Error::msg)?;
        Ok(Self { uri: uri.trim_end_matches('/').to_owned() })
    }

    /// Lists all models by name.
    ///
    /// # Errors
    /// Those of the storage.
    pub fn list(&self) -> anyhow::Result<Vec<Model>> {
        let root = ModelLocation::root(&self.uri).map_err(anyhow::Error::msg)?;
        let found = self.open(&root)?.list().with_context(|| format!("cannot list {}", self.uri))?;
        let mut models: Vec<_> = found
            .into_iter()
            .filter_map(|file| {
                let name = model_of(&file.path)?.to_owned();
                Some(Model { name, bytes: file.bytes, modified: file.modified })
            })
            .collect();
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(models)
    }

    /// Finds one model, without reading it.
    ///
    /// # Errors
    /// It does not exist; those of the storage.
    pub fn find(&self, name: &str) -> anyhow::Result<Model> {
        let (location, store) = self.model(name)?;
        let file = match store.find(&location.tarball()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("model {name} does not exist at {}", self.uri)
            }
            found => found.with_context(|| format!("cannot find model {name} at {}", self.uri))?,
        };
        Ok(Model { name: name.to_owned(), bytes: file.bytes, modified: file.modified })
    }

    /// Reads a model from start to end, which verifies it.
    ///
    /// # Errors
    /// It does not exist, cannot be read, or is corrupted.
    pub fn read(&self, name: &str) -> anyhow::Result<Content> {
        let (location, store) = self.model(name)?;
        retry_if_replaced(name, &location, &*store, || {
            content(self.tarball(name, &location, &*store)?)
                .with_context(|| format!("model {name} at {} is corrupted", self.uri))
        })
    }

    /// Copies a model into a new or existing folder as `<last segment of its name>.tar.gz` and `sqlflow.gob`, the files
    /// that SQLFlow's own tools read. Existing files of these names are replaced once the copy is complete.
    ///
    /// # Errors
    /// Those of [`Self::read`]; the folder cannot be written.
    pub fn get(&self, name: &str, folder: &Path) -> anyhow::Result<()> {
        let (location, store) = self.model(name)?;
        retry_if_replaced(name, &location, &*store, || self.copy(name, &location, &*store, folder))
    }

    fn copy(
        &self,
        name: &str,
        location: &ModelLocation,
        store: &dyn ModelStore,
        folder: &Path,
    ) -> anyhow::Result<()> {
        let tarball = self.tarball(name, location, store)?;
        let writing = || format!("cannot write in {}", folder.display());
        fs::create_dir_all(folder).with_context(writing)?;
        let mut gob = None;
        durable::replace(&folder.join(location.tarball()), |copy| {
            let copied = content(Copying { from: tarball, to: copy });
            let kind = |error: &anyhow::Error| {
                if was_replaced(error) { crate::REPLACED } else { io::ErrorKind::Other }
            };
            gob = copied.map_err(|error| io::Error::new(kind(&error), error))?.gob;
            Ok(())
        })
        .with_context(|| format!("cannot copy model {name} to {}", folder.display()))?;
        let beside = folder.join(GOB);
        match gob {
            Some(gob) => durable::replace(&beside, |file| file.write_all(&gob)).with_context(writing),
            // It belongs to another model.
            None => match fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(writing),
                _ => Ok(()),
            },
        }
    }

    /// Removes a model.
    ///
    /// # Errors
    /// It does not exist; those of the storage.
    pub fn delete(&self, name: &str) -> anyhow::Result<()> {
        let (location, store) = self.model(name)?;
        self.find(name)?;
        // The tarball first: without it there is no model.
        for file in [location.tarball().as_str(), GOB] {
            store.delete(file).with_context(|| format!("cannot remove model {name}"))?;
        }
        Ok(())
    }

    fn model(&self, name: &str) -> anyhow::Result<(ModelLocation, Box<dyn ModelStore>)> {
        let location =
            ModelLocation::new(&format!("{}/{name}", self.uri), name).map_err(anyhow::Error::msg)?;
        let store = self.open(&location)?;
        Ok((location, store))
    }

    fn open(&self, location: &ModelLocation) -> anyhow::Result<Box<dyn ModelStore>> {
        let retry = Arc::new(RetryPolicy::new(RETRY_TIMEOUT));
        crate::open(location, &AttemptRef::default(), &retry).map_err(anyhow::Error::msg)
    }

    fn tarball(
        &self,
        name: &str,
        location: &ModelLocation,
        store: &dyn ModelStore,
    ) -> anyhow::Result<Box<dyn Read + Send>> {
        match store.read(&location.tarball()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("model {name} does not exist at {}", self.uri)
            }
            other => other.with_context(|| format!("cannot read model {name} at {}", self.uri)),
        }
    }
}

fn retry_if_replaced<T>(
    name: &str,
    location: &ModelLocation,
    store: &dyn ModelStore,
    mut read: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    crate::retry_if_replaced(
        name,
        &mut 0,
        was_replaced,
        || store.fingerprint(&location.tarball()),
        |_| read(),
    )
}

fn was_replaced(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|it| it.kind() == crate::REPLACED)
}

/// `team/flowers/flowers.tar.gz` → `team/flowers`. Staged files have no such path.
fn model_of(path: &str) -> Option<&str> {
    let (name, file) = path.rsplit_once('/')?;
    let last = name.rsplit('/').next()?;
    (file.strip_suffix(".tar.gz") == Some(last)).then_some(name)
}

fn content(tarball: impl Read) -> anyhow::Result<Content> {
    let mut content = Content::default();
    tarball::read(tarball, |entry| {
        if !entry.header().entry_type().is_file() {
            return Ok(());
        }
        let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        if path == META || path == GOB {
            let bytes = tarball::content(entry)?;
            if path == GOB {
                content.gob = Some(bytes);
            } else {
                content.meta = serde_json::from_slice(&bytes).ok();
            }
        }
        content.files.insert(path, entry.size());
        Ok(())
    })?;
    Ok(content)
}

/// Copies what is read through it.
struct Copying<'a, R> {
    from: R,
    to: &'a mut File,
}

impl<R: Read> Read for Copying<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.to.write_all(&buffer[..read])?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_name_is_derived_from_the_tarball_path() {
        assert_eq!(model_of("team/flowers/flowers.tar.gz"), Some("team/flowers"));
        assert_eq!(model_of("flowers/flowers.tar.gz"), Some("flowers"));
        for other in ["flowers.tar.gz", "a/b.tar.gz", "m/.staging-j-0-1/m.tar.gz", "m/sqlflow.gob", "m/m.tar"]
        {
            assert_eq!(model_of(other), None, "{other}");
        }
    }
}
