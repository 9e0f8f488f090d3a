//! Cache of fetched models on this machine.
//!
//! The key of a tarball is its [`Fingerprint`]: tag and length from the storage, and the checksum in its last bytes.
//! Errors of the cache never fail a fetch.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

/// No fetch takes so long. An older temporary file belongs to an agent that was killed.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Length of the trailer of a gzip file: CRC-32 and length of its content.
pub const TRAILER: usize = 8;

/// Identifies the content of a tarball.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Entity tag or modification time.
    pub tag: String,
    /// Length of the tarball.
    pub length: u64,
    /// Its last bytes.
    pub trailer: [u8; TRAILER],
}

/// A folder of tarballs, which agents may share.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    limit: u64,
}

/// Result of a write to the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheWrite {
    /// The writer may go on.
    Written,
    /// The tarball cannot be cached; drop the writer.
    Failed,
}

/// A tarball that is being written to the cache.
#[derive(Debug)]
pub struct CacheWriter<'a> {
    cache: &'a Cache,
    fingerprint: Fingerprint,
    to: PathBuf,
    file: TempFile,
    length: u64,
    trailer: [u8; TRAILER],
}

impl Cache {
    /// Holds at most `limit` bytes. The folder is created on first use.
    pub fn new(folder: PathBuf, limit: u64) -> Self {
        Self { folder, limit }
    }

    /// Opens the tarball of this location and fingerprint, if it is cached.
    pub fn open(&self, uri: &str, fingerprint: &Fingerprint) -> Option<File> {
        let mut file = File::open(self.path(uri, fingerprint)).ok()?;
        if !matches(&mut file, fingerprint).unwrap_or(false) {
            return None;
        }
        // The least recently used file is removed first.
        let _ = file.set_modified(SystemTime::now());
        Some(file)
    }

    /// Removes a corrupted tarball.
    pub fn remove(&self, uri: &str, fingerprint: &Fingerprint) {
        let _ = fs::remove_file(self.path(uri, fingerprint));
    }

    /// Begins to write a tarball. `None`: it is too large, or the folder cannot be written.
    pub fn writer(&self, uri: &str, fingerprint: &Fingerprint) -> Option<CacheWriter<'_>> {
        if fingerprint.length > self.limit {
            return None;
        }
        let to = self.path(uri, fingerprint);
        let file = fs::create_dir_all(&self.folder).and_then(|()| TempFile::new(&self.folder));
        let file = file.inspect_err(|error| tracing::warn!(%error, "cannot use the cache of models")).ok()?;
        Some(CacheWriter {
            cache: self,
            fingerprint: fingerprint.clone(),
            to,
            file,
            length: 0,
            trailer: [0; TRAILER],
        })
    }

    fn path(&self, uri: &str, fingerprint: &Fingerprint) -> PathBuf {
        let Fingerprint { tag, length, trailer } = fingerprint;
        let digest = Sha256::digest(format!("{uri}\n{tag}\n{length}\n{trailer:?}"));
        self.folder.join(format!("{digest:x}.tar.gz"))
    }

    /// Evicts the oldest tarballs beyond the limit. Files that are being written count, but stay.
    fn make_room(&self) -> io::Result<()> {
        let mut files = Vec::new();
        let mut unfinished = 0;
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            // Another agent may have removed it.
            let Ok(found) = fs::metadata(&path) else { continue };
            let modified = found.modified()?;
            let is_abandoned = || modified.elapsed().is_ok_and(|age| age > ABANDONED_AFTER);
            match path.extension().and_then(|it| it.to_str()) {
                Some("gz") => files.push((modified, found.len(), path)),
                Some("tmp") if is_abandoned() => drop(fs::remove_file(path)),
                Some("tmp") => unfinished += found.len(),
                _ => {}
            }
        }
        files.sort();
        let mut used: u64 = unfinished + files.iter().map(|(_, length, _)| length).sum::<u64>();
        for (_, length, path) in files {
            if used <= self.limit {
                break;
            }
            let _ = fs::remove_file(path);
            used = used.saturating_sub(length);
        }
        Ok(())
    }
}

/// Whether the file has this length and trailer. Seeks to its start.
fn matches(file: &mut File, fingerprint: &Fingerprint) -> io::Result<bool> {
    if file.metadata()?.len() != fingerprint.length {
        return Ok(false);
    }
    let mut last = [0; TRAILER];
    file.seek(SeekFrom::End(-(TRAILER as i64)))?;
    file.read_exact(&mut last)?;
    file.rewind()?;
    Ok(last == fingerprint.trailer)
}

impl CacheWriter<'_> {
    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> CacheWrite {
        self.length += bytes.len() as u64;
        let last = &bytes[bytes.len().saturating_sub(TRAILER)..];
        self.trailer.rotate_left(last.len());
        self.trailer[TRAILER - last.len()..].copy_from_slice(last);
        if self.length <= self.fingerprint.length && self.file.file.write_all(bytes).is_ok() {
            CacheWrite::Written
        } else {
            CacheWrite::Failed
        }
    }

    /// Adds the complete tarball to the cache, unless it does not match the fingerprint: then the model was replaced
    /// during the read.
    pub fn finish(self) {
        let Self { cache, fingerprint, to, file, length, trailer } = self;
        if length != fingerprint.length || trailer != fingerprint.trailer {
            return;
        }
        let added = cache.make_room().and_then(|()| file.rename(&to));
        if let Err(error) = added {
            tracing::warn!(%error, "cannot add a model to the cache");
        }
    }
}

/// A temporary file, removed unless it is renamed.
#[derive(Debug)]
struct TempFile {
    file: File,
    path: PathBuf,
}

impl TempFile {
    fn new(folder: &Path) -> io::Result<Self> {
        let path = folder.join(format!("{:016x}.tmp", rand::random::<u64>()));
        Ok(Self { file: File::create_new(&path)?, path })
    }

    /// No sync: a file that a crash corrupts is detected by its checksum.
    fn rename(self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::Duration;

    use super::*;

    fn fingerprint(content: &[u8]) -> Fingerprint {
        let trailer = content[content.len() - TRAILER..].try_into().unwrap();
        Fingerprint { tag: "t".to_owned(), length: content.len() as u64, trailer }
    }

    fn insert(cache: &Cache, uri: &str, content: &[u8]) {
        let mut writer = cache.writer(uri, &fingerprint(content)).unwrap();
        for piece in content.chunks(3) {
            assert_eq!(writer.write(piece), CacheWrite::Written);
        }
        writer.finish();
    }

    fn files(cache: &Cache) -> usize {
        fs::read_dir(&cache.folder).map_or(0, Iterator::count)
    }

    #[test]
    fn tarball_is_found_by_its_fingerprint_only() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("cache"), 1000);
        insert(&cache, "s3://b/m", b"first content");
        let mut text = String::new();
        let found = cache.open("s3://b/m", &fingerprint(b"first content"));
        found.unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "first content");
        assert!(cache.open("s3://b/m", &fingerprint(b"other matters")).is_none());
        assert!(cache.open("s3://b/n", &fingerprint(b"first content")).is_none());
    }

    #[test]
    fn tarball_that_was_replaced_during_the_read_is_not_cached() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().to_owned(), 1000);
        let mut writer = cache.writer("u", &fingerprint(b"first content")).unwrap();
        assert_eq!(writer.write(b"other matters"), CacheWrite::Written);
        writer.finish();
        assert_eq!(files(&cache), 0);
    }

    #[test]
    fn least_recently_used_tarballs_are_evicted() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().to_owned(), 30);
        let contents = [b"content 1".as_slice(), b"content 2", b"content 3"];
        for (content, age) in contents.iter().zip([300, 200, 100]) {
            insert(&cache, "u", content);
            let file = File::open(cache.path("u", &fingerprint(content))).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        assert!(cache.open("u", &fingerprint(contents[0])).is_some(), "now the most recently used");
        insert(&cache, "u", b"content 4");
        assert!(cache.open("u", &fingerprint(contents[1])).is_none());
        assert!(cache.open("u", &fingerprint(contents[0])).is_some());
        assert!(cache.writer("u", &fingerprint(&[0; 31])).is_none());
    }

    #[test]
    fn file_with_other_content_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().to_owned(), 1000);
        let print = fingerprint(b"first content");
        for other in ["short", "other matters", ""] {
            fs::write(cache.path("u", &print), other).unwrap();
            assert!(cache.open("u", &print).is_none(), "{other}");
        }
    }

    #[test]
    fn temporary_files_count_and_old_ones_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().to_owned(), 30);
        insert(&cache, "u", b"content 1");
        for (name, age) in
            [("old.tmp", ABANDONED_AFTER + Duration::from_secs(60)), ("new.tmp", Duration::ZERO)]
        {
            fs::write(dir.path().join(name), [0; 20]).unwrap();
            File::open(dir.path().join(name)).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }
        insert(&cache, "u", b"content 2");
        assert!(!dir.path().join("old.tmp").exists() && dir.path().join("new.tmp").exists());
        assert!(cache.open("u", &fingerprint(b"content 1")).is_none(), "evicted");
        assert!(cache.open("u", &fingerprint(b"content 2")).is_some());
    }
}
