//! Models in a file system.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use sqlflow_os::{durable, failpoint};
use sqlflow_sync::lock;

use super::staging::{Folders, Staging, is_staging};
use super::{CommitUnknown, FoundFile, ModelStore, Precondition, StagedFile, WriteConflict, kind};

/// Write buffer, so that a tarball costs few system calls.
const BUFFER: usize = 256 << 10;

/// A model's folder. Files are staged in a folder within it, so that renames stay on one file system.
#[derive(Debug)]
pub(super) struct FileStore {
    folder: PathBuf,
    staging: Staging,
    /// Files that were renamed. If only the sync after it failed, a retry must not rename again.
    renamed: Mutex<HashSet<String>>,
}

impl FileStore {
    pub(super) fn new(folder: PathBuf, staging: Staging) -> Self {
        Self { folder, staging, renamed: Mutex::default() }
    }

    fn staging(&self) -> PathBuf {
        self.folder.join(self.staging.folder())
    }
}

impl ModelStore for FileStore {
    fn stage(&self, name: &str, precondition: Precondition, _bytes: u64) -> io::Result<Box<dyn StagedFile>> {
        lock(&self.renamed).remove(name);
        fs::create_dir_all(self.staging())?;
        let file = File::create(self.staging().join(name))?;
        if precondition == Precondition::IfUnchanged {
            self.staging.sweep(self);
        }
        Ok(Box::new(Staged(BufWriter::with_capacity(BUFFER, file))))
    }

    fn commit(&self, name: &str) -> io::Result<()> {
        if !lock(&self.renamed).contains(name) {
            failpoint::agent(&format!("{}-before-rename", kind(name)));
            fs::rename(self.staging().join(name), self.folder.join(name)).map_err(|error| {
                match error.kind() {
                    io::ErrorKind::NotFound => WriteConflict::not_staged(name),
                    _ => error,
                }
            })?;
            failpoint::agent(&format!("{}-after-rename", kind(name)));
            lock(&self.renamed).insert(name.to_owned());
        }
        durable::sync_folder(&self.folder)
            // The model's folder may be new.
            .and_then(|()| self.folder.parent().map_or(Ok(()), durable::sync_folder))
            .map_err(|error| CommitUnknown::because(&error, "cannot sync its folder"))
    }

    fn clear(&self) -> io::Result<()> {
        failpoint::agent("clear");
        self.staging.clear(self)
    }

    fn list(&self) -> io::Result<Vec<FoundFile>> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in if_there(fs::read_dir(&folder))?.into_iter().flatten() {
                let path = entry?.path();
                // Not followed: links may form a cycle.
                let Some(metadata) = if_there(fs::symlink_metadata(&path))? else { continue };
                if metadata.is_dir() {
                    folders.push(path);
                } else if metadata.is_file()
                    && let Ok(below) = path.strip_prefix(&self.folder)
                {
                    found.push(FoundFile {
                        path: below.to_string_lossy().into_owned(),
                        bytes: metadata.len(),
                        modified: metadata.modified().ok(),
                    });
                }
            }
        }
        Ok(found)
    }

    fn find(&self, name: &str) -> io::Result<FoundFile> {
        let found = fs::metadata(self.folder.join(name))?;
        if !found.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(FoundFile { path: name.to_owned(), bytes: found.len(), modified: found.modified().ok() })
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let file = self.folder.join(name);
        match fs::remove_file(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        durable::sync_folder(&self.folder)?;
        self.staging.sweep(self);
        // Succeeds only if it is empty.
        let _ = fs::remove_dir(&self.folder);
        Ok(())
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(self.folder.join(name))?))
    }
}

impl Folders for FileStore {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in if_there(fs::read_dir(&self.folder))?.into_iter().flatten() {
            names.extend(entry?.file_name().into_string().ok().filter(|name| is_staging(name)));
        }
        Ok(names)
    }

    fn changed(&self, name: &str) -> io::Result<Option<SystemTime>> {
        if_there(last_change(&self.folder.join(name)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if_there(fs::remove_dir_all(self.folder.join(name))).map(drop)
    }
}

/// Time of the last change in the folder or of an entry of it.
fn last_change(folder: &Path) -> io::Result<SystemTime> {
    let mut last = fs::metadata(folder)?.modified()?;
    for entry in fs::read_dir(folder)? {
        if let Some(found) = if_there(entry?.metadata())? {
            last = last.max(found.modified()?);
        }
    }
    Ok(last)
}

/// `None`: not found.
fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

struct Staged(BufWriter<File>);

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl StagedFile for Staged {
    fn finish(self: Box<Self>) -> io::Result<()> {
        failpoint::agent("staged");
        self.0.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}
