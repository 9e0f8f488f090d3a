//! Files that are staged in a folder and committed by a rename, which keeps their length and time. So a rename whose
//! response was lost can be distinguished from one that did not happen.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use sqlflow_sync::lock;

use super::WriteConflict;

/// What a rename keeps of a file, as the storage reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileState {
    pub(super) bytes: u64,
    pub(super) modified: Option<SystemTime>,
}

/// Result of looking for a file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lookup {
    Found(FileState),
    Missing,
    /// The storage did not say.
    Failed,
}

/// The staged files of a store, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct StagedFiles(Arc<Mutex<HashMap<String, FileState>>>);

impl StagedFiles {
    /// Records a complete file.
    pub(super) fn insert(&self, name: String, state: FileState) {
        lock(&self.0).insert(name, state);
    }

    /// The result of a rename that failed with `error`: it may have been done. `from` and `to` are looked up after it.
    pub(super) fn renamed(&self, name: &str, error: io::Error, from: Lookup, to: Lookup) -> io::Result<()> {
        match (from, to) {
            (Lookup::Missing, Lookup::Found(found)) if lock(&self.0).get(name) == Some(&found) => Ok(()),
            (Lookup::Missing, Lookup::Found(_) | Lookup::Missing) => Err(WriteConflict::not_staged(name)),
            (Lookup::Missing, Lookup::Failed) | (Lookup::Found(_) | Lookup::Failed, _) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::is_write_conflict;

    #[test]
    fn lost_response_of_a_rename_is_found_out() {
        let (own, other) = (
            FileState { bytes: 7, modified: Some(SystemTime::UNIX_EPOCH) },
            FileState { bytes: 8, modified: Some(SystemTime::UNIX_EPOCH) },
        );
        let staged = StagedFiles::default();
        staged.insert("m".to_owned(), own);
        let renamed = |from, to| staged.renamed("m", io::Error::other("no response"), from, to);
        assert!(renamed(Lookup::Missing, Lookup::Found(own)).is_ok());
        for to in [Lookup::Found(other), Lookup::Missing] {
            assert!(is_write_conflict(&renamed(Lookup::Missing, to).unwrap_err()), "{to:?}");
        }
        for (from, to) in [(Lookup::Missing, Lookup::Failed), (Lookup::Found(own), Lookup::Found(other))] {
            assert_eq!(renamed(from, to).unwrap_err().to_string(), "no response", "{from:?}, {to:?}");
        }
        assert!(renamed(Lookup::Failed, Lookup::Found(own)).is_err(), "the staged file may exist");
    }
}
