//! The tarball of a model: the same files give the same bytes, whoever packs them and when.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::store::Patience;
use crate::tarball::META;

/// Weights hardly shrink; the first level gets most of it at several times the speed.
const LEVEL: Compression = Compression::new(1);

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) size_bytes: u64,
    pub(super) sha256: [u8; 32],
}

/// Why there is no tarball.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackError {
    /// Trying again may help.
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the command succeeded but left no file in {}", .0.display())]
    Empty(PathBuf),
    #[error("{} is neither a file nor a folder", .0.display())]
    NotPlain(PathBuf),
    #[error("it does not exist")]
    Missing,
    #[error("the attempt was ended")]
    Abandoned,
}

/// Streams the `extra` files, in their order, and everything below `source`, sorted by name, into `sink`: without times
/// or owners.
pub(super) fn pack(
    source: &Path,
    extra: &[(&str, &[u8])],
    sink: &mut dyn Write,
    patience: &Patience,
) -> Result<Digest, PackError> {
    let mut files = BTreeMap::new();
    collect(source, source, &mut files)?;
    if !files.values().any(|kind| matches!(kind, Source::File(_))) {
        return Err(PackError::Empty(source.to_owned()));
    }
    let mut summed = Summed { sink, hasher: Sha256::new(), size_bytes: 0 };
    let gzip = GzBuilder::new().mtime(0).write(&mut summed, LEVEL);
    let mut builder = Builder::new(gzip);
    for (name, content) in extra {
        files.remove(Path::new(name));
        let mut header = header(EntryType::Regular, content.len() as u64, 0o644);
        builder.append_data(&mut header, name, *content)?;
    }
    // What tells of the model comes before its weights, so that a look at it reads no more.
    let meta = files.remove_entry(Path::new(META));
    for (name, kind) in meta.iter().map(|(name, kind)| (name, kind)).chain(&files) {
        match kind {
            Source::Folder => {
                builder.append_data(&mut header(EntryType::Directory, 0, 0o755), name, io::empty())?;
            }
            Source::File(path) => {
                let file = File::open(path)?;
                let size = file.metadata()?.len();
                let mut exactly = Exactly { file: file.take(size), left: size, patience };
                builder.append_data(&mut header(EntryType::Regular, size, 0o644), name, &mut exactly)?;
            }
        }
        if patience.is_abandoned() {
            return Err(PackError::Abandoned);
        }
    }
    builder.into_inner()?.finish()?;
    Ok(Digest { size_bytes: summed.size_bytes, sha256: summed.hasher.finalize().into() })
}

/// Bytes of the files below `source`, as far as they can be seen.
pub(super) fn size_of(source: &Path) -> u64 {
    let mut files = BTreeMap::new();
    // What is missing here is an error only when it is to be packed.
    let _ = collect(source, source, &mut files);
    let size = |kind: &Source| match kind {
        Source::File(path) => fs::metadata(path).map_or(0, |it| it.len()),
        Source::Folder => 0,
    };
    files.values().map(size).sum()
}

enum Source {
    Folder,
    File(PathBuf),
}

/// Lists what is below `folder`. A link to a file within `root` counts as the file; unpacking allows no links.
fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, Source>) -> Result<(), PackError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(PackError::Empty(root.to_owned()));
        }
        other => other?,
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.strip_prefix(root).expect("read_dir gives paths below the folder").to_owned();
        let kind = fs::symlink_metadata(&path)?.file_type();
        if kind.is_dir() {
            files.insert(name, Source::Folder);
            collect(root, &path, files)?;
        } else if kind.is_file() || (kind.is_symlink() && leads_to_file_within(root, &path)) {
            files.insert(name, Source::File(path));
        } else {
            return Err(PackError::NotPlain(path));
        }
    }
    Ok(())
}

fn leads_to_file_within(root: &Path, link: &Path) -> bool {
    match (root.canonicalize(), link.canonicalize()) {
        (Ok(root), Ok(target)) => target.starts_with(root) && target.is_file(),
        _ => false,
    }
}

fn header(kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Gives as many bytes as the header says, or an error: a file that shrinks would spoil what follows it.
struct Exactly<'a> {
    file: io::Take<File>,
    left: u64,
    patience: &'a Patience,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.patience.is_abandoned() {
            return Err(Patience::abandoned_error());
        }
        let read = self.file.read(buffer)?;
        self.left -= read as u64;
        if read == 0 && self.left > 0 {
            return Err(io::Error::other("a file became shorter while it was packed"));
        }
        Ok(read)
    }
}

/// Sums up what goes through.
struct Summed<'a> {
    sink: &'a mut dyn Write,
    hasher: Sha256,
    size_bytes: u64,
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
