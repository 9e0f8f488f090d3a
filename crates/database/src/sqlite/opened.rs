//! Files that SQLite has opened, as the kernel names them. A path is judged before SQLite opens it, and another program
//! could change a folder of it meanwhile. What is open is certain.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::Error;

/// Descriptors of this process.
const DESCRIPTORS: &str = "/proc/self/fd";

/// The descriptors that are open at a moment; `None`: nobody asks what was opened since.
#[derive(Debug)]
pub(super) struct Descriptors(Option<HashSet<Descriptor>>);

/// A descriptor, and what it leads to: its number may be used again for another file.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Descriptor {
    number: OsString,
    device: u64,
    inode: u64,
}

impl Descriptors {
    /// Those of now, if somebody asks later.
    ///
    /// # Errors
    /// The kernel does not list them.
    pub(super) fn watched(is_watched: bool) -> Result<Self, Error> {
        let open = is_watched.then(open).transpose();
        open.map(Self).map_err(|error| unseen(&error))
    }

    /// The real paths of the files with a name that were opened since.
    ///
    /// # Errors
    /// The kernel does not show them.
    pub(super) fn opened_since(&self) -> Result<Vec<PathBuf>, Error> {
        let Some(before) = &self.0 else { return Ok(Vec::new()) };
        let now = open().map_err(|error| unseen(&error))?;
        let opened = now.difference(before).map(|it| target(&Path::new(DESCRIPTORS).join(&it.number)));
        let opened = opened.filter_map(Result::transpose).collect::<io::Result<_>>();
        opened.map_err(|error| unseen(&error))
    }
}

fn open() -> io::Result<HashSet<Descriptor>> {
    let mut open = HashSet::new();
    for entry in fs::read_dir(DESCRIPTORS)? {
        let number = entry?.file_name();
        match fs::metadata(Path::new(DESCRIPTORS).join(&number)) {
            Ok(found) => _ = open.insert(Descriptor { number, device: found.dev(), inode: found.ino() }),
            // The one that lists the folder, or another thread's.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(open)
}

/// The path of the file of a descriptor. `None`: no file, or without a name, such as a temporary one.
fn target(descriptor: &Path) -> io::Result<Option<PathBuf>> {
    match fs::metadata(descriptor) {
        Ok(found) if found.is_file() && found.nlink() > 0 => fs::read_link(descriptor).map(Some),
        Ok(_) => Ok(None),
        // The one that listed the folder is closed again.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn unseen(error: &io::Error) -> Error {
    Error::user(format!("cannot see which files SQLite has opened: {error}; mount /proc"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn file_is_named_by_its_real_path() {
        let dir = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(dir.path()).unwrap().join("a");
        fs::write(&real, "").unwrap();
        symlink("a", dir.path().join("link")).unwrap();
        let before = Descriptors::watched(true).unwrap();
        let _opened = fs::File::open(dir.path().join("link")).unwrap();
        // Other tests open files meanwhile.
        assert!(before.opened_since().unwrap().contains(&real));
    }
}
