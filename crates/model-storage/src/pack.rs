//! The tarball of a folder. A model, which has a gob, is packed reproducibly: the same files give the same bytes. Any
//! other output keeps modes and times.
//!
//! Links that stay within the folder are kept as links. Links that lead out of it, and what is neither file, folder nor
//! link, are left out and reported by name: the command has succeeded, and the rest is worth keeping.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};
use sqlflow_os::run_as::RunAs;
use tar::{Builder, EntryType, Header};

use crate::RetryPolicy;
use crate::tarball::{GOB, META, leads_out};

/// Weights hardly shrink. The first level achieves most of it at several times the speed.
const LEVEL: Compression = Compression::new(1);
/// Number of left-out files that are named; further ones are counted.
const NAMED: usize = 5;

/// Length and checksum of a tarball.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    pub size_bytes: u64,
    pub sha256: [u8; 32],
}

/// Why there is no tarball.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Retryable.
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the command succeeded but left no file in {}", .0.display())]
    Empty(PathBuf),
    /// With a suggestion, such as `; did you mean m?`, or nothing.
    #[error("it does not exist{0}")]
    Missing(String),
    #[error("cannot read {}: {cause}", .path.display())]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("the attempt was ended")]
    Abandoned,
}

impl PackError {
    fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |cause| match cause.kind() {
            io::ErrorKind::PermissionDenied => Self::Unreadable { path: path.to_owned(), cause },
            kind => Self::Io(io::Error::new(kind, format!("cannot read {}: {cause}", path.display()))),
        }
    }
}

/// Files to pack, and what is left out.
#[derive(Debug, Default)]
pub struct Contents {
    root: PathBuf,
    /// With whose rights files are read; `None`: the own ones.
    user: Option<RunAs>,
    /// Length of all files.
    bytes: u64,
    sources: BTreeMap<PathBuf, Source>,
    left_out: Vec<String>,
    left_out_more: usize,
}

#[derive(Debug)]
struct Source {
    kind: Kind,
    path: PathBuf,
    mode: u32,
    seconds: u64,
}

#[derive(Debug)]
enum Kind {
    Folder,
    File,
    /// With its target.
    Link(PathBuf),
}

impl Contents {
    /// Lists a folder. A folder of another user, who may change it meanwhile, is read with the rights of this `user` only.
    ///
    /// # Errors
    /// The folder does not exist or cannot be read.
    pub fn of(root: &Path, user: Option<RunAs>) -> Result<Self, PackError> {
        let mut contents = Self { root: root.to_owned(), user, ..Self::default() };
        with_rights(user, || contents.collect(root, root))??;
        Ok(contents)
    }

    fn collect(&mut self, root: &Path, folder: &Path) -> Result<(), PackError> {
        let entries = match fs::read_dir(folder) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(PackError::Empty(root.to_owned()));
            }
            other => other.map_err(PackError::reading(folder))?,
        };
        for entry in entries {
            let path = entry.map_err(PackError::reading(folder))?.path();
            let name = path.strip_prefix(root).expect("read_dir gives paths below the folder").to_owned();
            let found = fs::symlink_metadata(&path).map_err(PackError::reading(&path))?;
            let kind = if found.is_dir() {
                self.collect(root, &path)?;
                Kind::Folder
            } else if found.is_file() {
                self.bytes += found.len();
                Kind::File
            } else if found.is_symlink() {
                let target = fs::read_link(&path).map_err(PackError::reading(&path))?;
                match link_within(root, &name, &target) {
                    Some(target) => Kind::Link(target),
                    None => {
                        self.leave_out(&name, &format!("a link to {}", target.display()));
                        continue;
                    }
                }
            } else {
                self.leave_out(&name, special(&found));
                continue;
            };
            let seconds = u64::try_from(found.mtime()).unwrap_or(0);
            self.sources.insert(name, Source { kind, path, mode: found.mode() & 0o7777, seconds });
        }
        Ok(())
    }

    fn leave_out(&mut self, name: &Path, what: &str) {
        if self.left_out.len() < NAMED {
            self.left_out.push(format!("{} ({what})", name.display()));
        } else {
            self.left_out_more += 1;
        }
    }

    /// Names of what is left out; `None`: nothing is.
    pub fn left_out(&self) -> Option<String> {
        let mut names = self.left_out.join(", ");
        if self.left_out_more > 0 {
            names = format!("{names} and {} more", self.left_out_more);
        }
        (!names.is_empty()).then_some(names)
    }

    /// Length of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Streams the gob, under its own name and the given one, and all files, sorted by name and without owners, into
    /// `sink`.
    ///
    /// # Errors
    /// See [`PackError`].
    pub fn pack(
        mut self,
        gob: Option<(&str, &[u8])>,
        sink: &mut dyn Write,
        retry: &RetryPolicy,
    ) -> Result<Digest, PackError> {
        if !self.sources.values().any(|it| matches!(it.kind, Kind::File)) {
            return Err(PackError::Empty(self.root));
        }
        let mut hashing = Hashing { sink, hasher: Sha256::new(), size_bytes: 0 };
        let gzip = GzBuilder::new().mtime(0).write(&mut hashing, LEVEL);
        let mut builder = Builder::new(gzip);
        for (name, content) in gob.into_iter().flat_map(|(copy, content)| [(GOB, content), (copy, content)]) {
            self.sources.remove(Path::new(name));
            let mut header = header(EntryType::Regular, content.len() as u64, 0o644, 0);
            builder.append_data(&mut header, name, content)?;
        }
        // Metadata comes before the weights, so that a reader of it reads no more.
        let meta = self.sources.remove_entry(Path::new(META));
        let sources = meta.iter().map(|(name, source)| (name, source)).chain(&self.sources);
        for (name, Source { kind, path, mode, seconds }) in sources {
            let header = |kind, size, plain_mode| match gob {
                Some(_) => header(kind, size, plain_mode, 0),
                None => header(kind, size, *mode, *seconds),
            };
            match kind {
                Kind::Folder => {
                    builder.append_data(&mut header(EntryType::Directory, 0, 0o755), name, io::empty())?;
                }
                Kind::Link(target) => {
                    builder.append_link(&mut header(EntryType::Symlink, 0, 0o777), name, target)?;
                }
                Kind::File => {
                    let opened = with_rights(self.user, || open_listed(path)).flatten();
                    let file = opened.map_err(PackError::reading(path))?;
                    let size = file.metadata()?.len();
                    let mut exactly = Exactly { file: file.take(size), left: size, retry };
                    builder.append_data(&mut header(EntryType::Regular, size, 0o644), name, &mut exactly)?;
                }
            }
            if retry.is_abandoned() {
                return Err(PackError::Abandoned);
            }
        }
        builder.into_inner()?.finish()?;
        Ok(Digest { size_bytes: hashing.size_bytes, sha256: hashing.hasher.finalize().into() })
    }
}

/// Uses files with the rights of this user; `None`: with the own ones.
fn with_rights<T>(user: Option<RunAs>, work: impl FnOnce() -> T) -> io::Result<T> {
    match user {
        Some(user) => user.with_its_rights(work),
        None => Ok(work()),
    }
}

/// Opens a file that was listed. A process of the command may have replaced it since by a link to a file that only this
/// program can open.
fn open_listed(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(path)
}

/// A relative target for the link `name` that leads where it leads now. `None`: that is not within `root`.
fn link_within(root: &Path, name: &Path, target: &Path) -> Option<PathBuf> {
    let root = root.canonicalize().ok()?;
    let resolved = root.join(name).canonicalize().ok();
    match resolved {
        Some(resolved) => {
            let below = resolved.strip_prefix(&root).ok()?;
            if !leads_out(name, target) {
                return Some(target.to_owned());
            }
            let up = name.components().skip(1).map(|_| Component::ParentDir.as_os_str());
            let relative: PathBuf = up.chain(below.iter()).collect();
            Some(if relative.as_os_str().is_empty() { ".".into() } else { relative })
        }
        // A dangling link is harmless.
        None => (!leads_out(name, target)).then(|| target.to_owned()),
    }
}

fn special(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Length of all files below `source`, as far as they can be read with the rights of `user`.
pub fn size_of(source: &Path, user: Option<RunAs>) -> u64 {
    let mut contents = Contents::default();
    // A missing file is an error only when it has to be packed.
    let _ = with_rights(user, || contents.collect(source, source));
    contents.bytes
}

fn header(kind: EntryType, size: u64, mode: u32, seconds: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(seconds);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Reads as many bytes as the header says, or fails: a file that shrinks would corrupt the rest of the tarball.
struct Exactly<'a> {
    file: io::Take<File>,
    left: u64,
    retry: &'a RetryPolicy,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.retry.is_abandoned() {
            return Err(RetryPolicy::abandoned_error());
        }
        let read = self.file.read(buffer)?;
        self.left -= read as u64;
        if read == 0 && self.left > 0 {
            return Err(io::Error::other("a file became shorter while it was packed"));
        }
        Ok(read)
    }
}

/// Counts and hashes what is written through it.
struct Hashing<'a> {
    sink: &'a mut dyn Write,
    hasher: Sha256,
    size_bytes: u64,
}

impl Write for Hashing<'_> {
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
