//! Tests only: files with unreadable bytes. A file is identified by its inode, as on a real disk: a hard link has the
//! fault too, and a new file of the same name does not.

#![expect(clippy::unwrap_used, reason = "for tests")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Mutex;

use nix::errno::Errno;
use sqlflow_sync::lock;

static FAULTS: Mutex<Vec<Fault>> = Mutex::new(Vec::new());

type Inode = (u64, u64);

#[derive(Clone)]
struct Fault {
    inode: Inode,
    /// `None`: opening the file fails.
    range: Option<Range<u64>>,
    error: Errno,
}

/// A fault. It ends when this is dropped.
pub struct BadBlocks {
    inode: Inode,
    /// Keeps the inode in use until the fault ends.
    _file: File,
}

impl BadBlocks {
    /// Makes reading these bytes of the file fail with this error.
    pub fn at(path: &Path, range: Range<u64>, error: Errno) -> Self {
        Self::begin(path, Some(range), error)
    }

    /// Makes opening the file fail with this error.
    pub fn no_open(path: &Path, error: Errno) -> Self {
        Self::begin(path, None, error)
    }

    fn begin(path: &Path, range: Option<Range<u64>>, error: Errno) -> Self {
        let file = File::open(path).unwrap();
        let inode = inode(&file).unwrap();
        faults(|all| all.push(Fault { inode, range, error }));
        Self { inode, _file: file }
    }
}

impl Drop for BadBlocks {
    fn drop(&mut self) {
        faults(|all| all.retain(|fault| fault.inode != self.inode));
    }
}

fn faults<T>(work: impl FnOnce(&mut Vec<Fault>) -> T) -> T {
    work(&mut lock(&FAULTS))
}

fn inode(file: &File) -> io::Result<Inode> {
    file.metadata().map(|it| (it.dev(), it.ino()))
}

fn faults_of(file: &File) -> io::Result<Vec<Fault>> {
    let inode = inode(file)?;
    Ok(faults(|all| all.iter().filter(|fault| fault.inode == inode).cloned().collect()))
}

/// Fails if the opened file has a fault in opening.
pub(crate) fn opened(file: File) -> io::Result<File> {
    match faults_of(&file)?.iter().find(|fault| fault.range.is_none()) {
        Some(fault) => Err(fault.error.into()),
        None => Ok(file),
    }
}

/// The beginning of `buffer` without unreadable bytes, for a read at `offset`.
pub(crate) fn readable<'a>(file: &File, buffer: &'a mut [u8], offset: u64) -> io::Result<&'a mut [u8]> {
    let mut end = offset + buffer.len() as u64;
    for Fault { range, error, .. } in faults_of(file)? {
        let Some(range) = range else { continue };
        if range.contains(&offset) {
            return Err(error.into());
        }
        if range.start > offset {
            end = end.min(range.start);
        }
    }
    Ok(&mut buffer[..usize::try_from(end - offset).unwrap()])
}
