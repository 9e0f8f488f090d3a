//! Models that were fetched before, kept on this machine so that the next one who needs them reads no storage.
//!
//! A tarball is known by its [`Fingerprint`]: what the storage says of it, its length, and the checksum in its last bytes.
//! Nothing here fails a fetch: a cache that cannot be used is as good as none.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

/// No model takes so long to be fetched: what is unfinished for longer is of an agent that was killed.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes at the end of a gzip file: the CRC-32 of its content, and the content's length.
pub const TRAILER: usize = 8;

/// Tells one content of a name from the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Entity tag or time of change.
    pub tag: String,
    /// Of the tarball.
    pub length: u64,
    /// Its last bytes.
    pub trailer: [u8; TRAILER],
}

/// A folder of tarballs, which several agents may use at the same time.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    limit: u64,
}

/// A tarball on its way into the cache.
#[derive(Debug)]
pub struct CacheWriter<'a> {
    cache: &'a Cache,
    fingerprint: Fingerprint,
    to: PathBuf,
    file: Unfinished,
    length: u64,
    trailer: [u8; TRAILER],
}

impl Cache {
    /// One that holds at most `limit` bytes; the folder is made when it is needed.
    pub fn new(folder: PathBuf, limit: u64) -> Self {
        Self { folder, limit }
    }

    /// A tarball of this place and fingerprint, if it is there.
    pub fn open(&self, uri: &str, fingerprint: &Fingerprint) -> Option<File> {
        let mut file = File::open(self.path(uri, fingerprint)).ok()?;
        if !is_of(&mut file, fingerprint).unwrap_or(false) {
            return None;
        }
        // What was used last goes last.
        let _ = file.set_modified(SystemTime::now());
        Some(file)
    }

    /// What is there is spoilt.
    pub fn forget(&self, uri: &str, fingerprint: &Fingerprint) {
        let _ = fs::remove_file(self.path(uri, fingerprint));
    }

    /// Begins to keep a tarball. `None`: it is too large, or the folder cannot be written.
    pub fn keep(&self, uri: &str, fingerprint: &Fingerprint) -> Option<CacheWriter<'_>> {
        if fingerprint.length > self.limit {
            return None;
        }
        let to = self.path(uri, fingerprint);
        let file = fs::create_dir_all(&self.folder).and_then(|()| Unfinished::new(&self.folder));
        let file =
            file.inspect_err(|error| tracing::warn!(%error, "the cache of models cannot be used")).ok()?;
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

    /// Keeps to the limit, oldest first. What is being fetched counts, but stays.
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

/// Whether it has the length and the last bytes; leaves it at its start.
fn is_of(file: &mut File, fingerprint: &Fingerprint) -> io::Result<bool> {
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
    /// The next bytes. False: they cannot be kept, so nothing is.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.length += bytes.len() as u64;
        let last = &bytes[bytes.len().saturating_sub(TRAILER)..];
        self.trailer.rotate_left(last.len());
        self.trailer[TRAILER - last.len()..].copy_from_slice(last);
        self.length <= self.fingerprint.length && self.file.file.write_all(bytes).is_ok()
    }

    /// All was written and is a whole model: kept, if it is what the fingerprint was of. It may have been replaced in
    /// between.
    pub fn finish(self) {
        let Self { cache, fingerprint, to, file, length, trailer } = self;
        if length != fingerprint.length || trailer != fingerprint.trailer {
            return;
        }
        let kept = cache.make_room().and_then(|()| file.rename(&to));
        if let Err(error) = kept {
            tracing::warn!(%error, "a model cannot be kept in the cache");
        }
    }
}

/// A file that goes away unless it is given its name.
#[derive(Debug)]
struct Unfinished {
    file: File,
    path: PathBuf,
}

impl Unfinished {
    fn new(folder: &Path) -> io::Result<Self> {
        let path = folder.join(format!("{:016x}.tmp", rand::random::<u64>()));
        Ok(Self { file: File::create_new(&path)?, path })
    }

    /// No sync: what a crash spoils is found out by its checksum.
    fn rename(self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)
    }
}

impl Drop for Unfinished {
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

    fn keep(cache: &Cache, uri: &str, content: &[u8]) {
        let mut keeping = cache.keep(uri, &fingerprint(content)).unwrap();
        for piece in content.chunks(3) {
            assert!(keeping.write(piece));
        }
        keeping.finish();
    }

    fn files(cache: &Cache) -> usize {
        fs::read_dir(&cache.folder).map_or(0, Iterator::count)
    }

    #[test]
    fn what_was_kept_is_there_for_its_fingerprint_only() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("cache"), 1000);
        keep(&cache, "s3://b/m", b"first content");
        let mut text = String::new();
        let found = cache.open("s3://b/m", &fingerprint(b"first content"));
        found.unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "first content");
        assert!(cache.open("s3://b/m", &fingerprint(b"other matters")).is_none());
        assert!(cache.open("s3://b/n", &fingerprint(b"first content")).is_none());
    }

    #[test]
    fn what_was_replaced_while_it_was_read_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().to_owned(), 1000);
        let mut keeping = cache.keep("u", &fingerprint(b"first content")).unwrap();
        assert!(keeping.write(b"other matters"));
        keeping.finish();
        assert_eq!(files(&cache), 0);
    }

    #[test]
    fn it_keeps_to_its_limit_and_forgets_what_was_used_least() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().to_owned(), 30);
        let contents = [b"content 1".as_slice(), b"content 2", b"content 3"];
        for (content, age) in contents.iter().zip([300, 200, 100]) {
            keep(&cache, "u", content);
            let file = File::open(cache.path("u", &fingerprint(content))).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        assert!(cache.open("u", &fingerprint(contents[0])).is_some(), "now it is the newest");
        keep(&cache, "u", b"content 4");
        assert!(cache.open("u", &fingerprint(contents[1])).is_none());
        assert!(cache.open("u", &fingerprint(contents[0])).is_some());
        assert!(cache.keep("u", &fingerprint(&[0; 31])).is_none());
    }

    #[test]
    fn what_is_there_by_another_content_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().to_owned(), 1000);
        let print = fingerprint(b"first content");
        for other in ["short", "other matters", ""] {
            fs::write(cache.path("u", &print), other).unwrap();
            assert!(cache.open("u", &print).is_none(), "{other}");
        }
    }

    #[test]
    fn what_agents_left_unfinished_counts_and_goes_when_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().to_owned(), 30);
        keep(&cache, "u", b"content 1");
        for (name, age) in
            [("old.tmp", ABANDONED_AFTER + Duration::from_secs(60)), ("new.tmp", Duration::ZERO)]
        {
            fs::write(dir.path().join(name), [0; 20]).unwrap();
            File::open(dir.path().join(name)).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }
        keep(&cache, "u", b"content 2");
        assert!(!dir.path().join("old.tmp").exists() && dir.path().join("new.tmp").exists());
        assert!(cache.open("u", &fingerprint(b"content 1")).is_none(), "it was in the way");
        assert!(cache.open("u", &fingerprint(b"content 2")).is_some());
    }
}
