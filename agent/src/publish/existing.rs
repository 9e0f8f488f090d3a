//! The model at a location before it is replaced or removed, for the report to the user.

use std::io;
use std::time::SystemTime;

use serde_json::Value;
use sqlflow_proto::record::EarlierModel;

use sqlflow_model_storage::ModelStore;
use sqlflow_model_storage::tarball;

/// Maximum length of a user's name, in characters.
const MAX_USER: usize = 100;

/// Result of [`look`].
pub(super) enum Found {
    Nothing,
    Model(EarlierModel),
    /// The storage cannot be read. Some credentials may only write, and some storages deny access to a missing file: a
    /// model can be published there. An outage is reported by the write.
    Unknown(io::Error),
}

impl Found {
    pub(super) fn model(self) -> Option<EarlierModel> {
        match self {
            Self::Model(model) => Some(model),
            Self::Nothing | Self::Unknown(_) => None,
        }
    }
}

/// Reads only the beginning of the tarball.
pub(super) fn look(store: &dyn ModelStore, tarball: &str) -> Found {
    let content = match store.read(tarball) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Nothing,
        Err(error) => return Found::Unknown(error),
        Ok(content) => content,
    };
    // A tarball that cannot be read can be replaced.
    let meta = tarball::meta(content).ok().flatten().unwrap_or_default();
    let meta: Value = serde_json::from_slice(&meta).unwrap_or_default();
    let user = meta["trained_by"].as_str().unwrap_or_default();
    let made_ms = match meta["trained_ms"].as_i64() {
        Some(trained) => trained,
        None => published_ms(store, tarball).unwrap_or(0),
    };
    // It becomes part of a line of text, and may contain anything.
    let trained_by = user.chars().filter(|c| !c.is_control()).take(MAX_USER).collect();
    Found::Model(EarlierModel { made_ms, trained_by })
}

/// `None`: the storage does not report it.
fn published_ms(store: &dyn ModelStore, tarball: &str) -> Option<i64> {
    let modified = store.find(tarball).ok()?.modified?;
    let since_1970 = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since_1970.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use sqlflow_model_storage::{FoundFile, Precondition, StagedFile};

    use super::*;

    /// A storage that fails with this kind of error.
    #[derive(Debug)]
    struct Refusing(io::ErrorKind);

    impl ModelStore for Refusing {
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
            Err(self.0.into())
        }

        fn find(&self, _: &str) -> io::Result<FoundFile> {
            Err(self.0.into())
        }

        fn delete(&self, _: &str) -> io::Result<()> {
            unreachable!()
        }

        fn read(&self, _: &str) -> io::Result<Box<dyn Read + Send>> {
            Err(self.0.into())
        }
    }

    #[test]
    fn unreadable_storage_can_be_published_to() {
        let look = |kind| look(&Refusing(kind), "m.tar.gz");
        assert!(matches!(look(io::ErrorKind::PermissionDenied), Found::Unknown(_)));
        assert!(matches!(look(io::ErrorKind::ConnectionReset), Found::Unknown(_)));
        assert!(matches!(look(io::ErrorKind::NotFound), Found::Nothing));
    }
}
