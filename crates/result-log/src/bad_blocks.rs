//! Tests only: bytes of files that the disk cannot read. A file is known by its inode, as by a real disk: another name
//! of it fails too, and a new file in its place does not.

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
    /// `None`: the file cannot be opened.
    range: Option<Range<u64>>,
    error: Errno,
}

/// A fault that ends when this is dropped.
pub struct BadBlocks {
    inode: Inode,
    /// No other file gets the inode until the fault has ended.
    _file: File,
}

impl BadBlocks {
    /// Reading these bytes of the file fails with this error.
    pub fn at(path: &Path, range: Range<u64>, error: Errno) -> Self {
        Self::begin(path, Some(range), error)
    }

    /// Opening the file fails with this error.
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

/// Fails if the file that was opened cannot be.
pub(crate) fn opened(file: File) -> io::Result<File> {
    match faults_of(&file)?.iter().find(|fault| fault.range.is_none()) {
        Some(fault) => Err(fault.error.into()),
        None => Ok(file),
    }
}

/// The beginning of `buffer` that can be filled from `offset` on.
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
