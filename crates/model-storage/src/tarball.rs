//! Reads a model's gzipped tarball, which `pack` writes.
//!
//! Anyone who can write to the model storage can put any file there, so all memory for a tarball is bounded.

use std::cell::Cell;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path};
use std::rc::Rc;

use anyhow::bail;
use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};

/// Metadata from the server: the first file in the tarball, and beside it.
pub const GOB: &str = "sqlflow.gob";

/// Metadata from the submitter: directly after the gob and its copy.
pub const META: &str = "model_meta.json";
/// Number of entries that are searched for it, and length of an entry that may be skipped.
const META_WITHIN: usize = 3;
const MAX_PASSED: u64 = 1 << 20;

/// Maximum length of metadata or a gob.
const MAX_CONTENT: u64 = 64 << 20;
/// Maximum length of an entry's header with a long name. The `tar` crate has no bound of its own.
const MAX_HEADER: u64 = 64 << 10;
/// Maximum length of all names together, which readers keep in memory.
const MAX_NAMES: usize = 64 << 20;
/// Overhead of a name in memory.
const NAME_OVERHEAD: usize = 64;

/// Entry of a tarball that is read from `R`.
pub type TarEntry<'a, R> = Entry<'a, Allowance<R>>;

/// Limits the number of bytes that may be read now.
#[derive(Debug)]
pub struct Allowance<R> {
    content: MultiGzDecoder<BufReader<R>>,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Allowance<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left.get()).unwrap_or(usize::MAX);
        if left == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the name of a file is too long"));
        }
        let most = buffer.len().min(left);
        let read = self.content.read(&mut buffer[..most]).map_err(|error| self.explained(error))?;
        self.left.set(self.left.get() - read as u64);
        Ok(read)
    }
}

impl<R: Read> Allowance<R> {
    /// The library says "invalid gzip header".
    fn explained(&self, error: io::Error) -> io::Error {
        let is_at_start = self.content.header().is_none();
        if is_at_start && error.kind() == io::ErrorKind::InvalidInput {
            let hint = "it is not a gzipped tarball; make one with `tar czf`";
            return io::Error::new(io::ErrorKind::InvalidData, hint);
        }
        error
    }
}

/// Whether a link of this name in a folder may lead out of the folder. A safe target is relative, has `..` only at its
/// beginning, and goes up no further than the folder: a segment before a later `..` may be another link. The folders in
/// the name itself must not be links.
pub fn leads_out(name: &Path, target: &Path) -> bool {
    let depth = name.components().filter(|it| matches!(it, Component::Normal(_))).count();
    let mut ups = 0;
    let mut is_down = false;
    for part in target.components() {
        match part {
            Component::ParentDir if is_down => return true,
            Component::ParentDir => ups += 1,
            Component::Normal(_) => is_down = true,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return true,
        }
    }
    ups >= depth.max(1)
}

/// Calls `each` for every entry in order, and reads to the end. Without an error the tarball is complete and not
/// corrupted.
///
/// # Errors
/// Those of `each`; the tarball cannot be read, or is truncated or corrupted; too many or too long names.
pub fn read<R: Read>(
    tarball: R,
    mut each: impl FnMut(&mut TarEntry<'_, R>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (mut archive, allowed) = open(tarball);
    let mut entries = archive.entries()?;
    let mut names = 0;
    loop {
        allowed.set(MAX_HEADER);
        let next = entries.next();
        allowed.set(u64::MAX);
        let Some(mut entry) = next.transpose()? else { break };
        // Its holes may expand without bound.
        if entry.header().entry_type() == EntryType::GNUSparse {
            bail!("cannot read sparse file {}; pack it without --sparse", entry.path()?.display());
        }
        // Metadata of the archive, as from `git archive`.
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            io::copy(&mut entry, &mut io::sink())?;
            continue;
        }
        names += entry.path_bytes().len() + entry.link_name_bytes().map_or(0, |it| it.len()) + NAME_OVERHEAD;
        if names > MAX_NAMES {
            bail!("too many files in the tarball");
        }
        each(&mut entry)?;
        // The rest of it does not count as a header.
        io::copy(&mut entry, &mut io::sink())?;
    }
    // The checksum of gzip follows the end of the archive.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}

/// Reads the gob of a tarball, and nothing else. `None`: there is none, or this is not a tarball.
///
/// # Errors
/// It cannot be read.
pub fn gob(tarball: impl Read) -> io::Result<Option<Vec<u8>>> {
    let failed = Rc::new(Cell::new(false));
    match find(Watched { from: tarball, failed: failed.clone() }, GOB, 1) {
        Err(error) if !failed.get() => {
            tracing::warn!(%error, "the published model is corrupted");
            Ok(None)
        }
        found => found,
    }
}

/// Distinguishes errors of the reader from errors in the content.
struct Watched<R> {
    from: R,
    failed: Rc<Cell<bool>>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.from.read(buffer).inspect_err(|_| self.failed.set(true))
    }
}

/// Reads metadata or a gob.
///
/// # Errors
/// It cannot be read, or is too long.
pub fn content(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(MAX_CONTENT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_CONTENT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a file is too long for metadata"));
    }
    Ok(bytes)
}

/// Reads the metadata if it is among the first entries, before a large one. Reads nothing else.
///
/// # Errors
/// It cannot be read, or is not a tarball.
pub fn meta(tarball: impl Read) -> io::Result<Option<Vec<u8>>> {
    find(tarball, META, META_WITHIN)
}

/// Content of the entry with this name, if it is one of the first.
fn find(tarball: impl Read, name: &str, within: usize) -> io::Result<Option<Vec<u8>>> {
    let (mut archive, allowed) = open(tarball);
    let mut entries = archive.entries()?;
    for left in (0..within).rev() {
        allowed.set(MAX_HEADER);
        let Some(mut entry) = entries.next().transpose()? else { break };
        allowed.set(u64::MAX);
        if entry.path()?.as_os_str() == name {
            return content(&mut entry).map(Some);
        }
        if left == 0 || entry.size() > MAX_PASSED {
            break;
        }
        io::copy(&mut entry, &mut io::sink())?;
    }
    Ok(None)
}

fn open<R: Read>(tarball: R) -> (Archive<Allowance<R>>, Rc<Cell<u64>>) {
    let left = Rc::new(Cell::new(MAX_HEADER));
    let content = MultiGzDecoder::new(BufReader::with_capacity(64 << 10, tarball));
    (Archive::new(Allowance { content, left: left.clone() }), left)
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{Builder, Header};

    use super::*;

    fn header(kind: EntryType, name: &str, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path(name).unwrap();
        header.set_size(size);
        header.set_cksum();
        header
    }

    fn tarball(entries: &[(EntryType, &str, u64)]) -> Vec<u8> {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (kind, name, size) in entries {
            builder.append(&header(*kind, name, *size), io::repeat(b'x').take(*size)).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn names(tarball: &[u8]) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        read(tarball, |entry| {
            names.push(entry.path()?.display().to_string());
            Ok(())
        })?;
        Ok(names)
    }

    #[test]
    fn unread_entries_are_skipped() {
        let large = 3 * MAX_HEADER;
        let found = names(&tarball(&[(EntryType::Regular, "a", large), (EntryType::Regular, "b", 1)]));
        assert_eq!(found.unwrap(), ["a", "b"]);
    }

    #[test]
    fn entry_names_are_bounded() {
        let name = |length| {
            tarball(&[(EntryType::GNULongName, "././@LongLink", length), (EntryType::Regular, "a", 1)])
        };
        assert_eq!(names(&name(4096)).unwrap(), ["x".repeat(4096)]);
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            let huge = tarball(&[(kind, "name", 100 << 20), (EntryType::Regular, "a", 1)]);
            assert_eq!(names(&huge).unwrap_err().to_string(), "the name of a file is too long", "{kind:?}");
        }
    }

    #[test]
    fn gob_is_found_only_as_the_first_entry() {
        let with = tarball(&[(EntryType::Regular, GOB, 3), (EntryType::Regular, "a", 1)]);
        assert_eq!(gob(&with[..]).unwrap(), Some(b"xxx".to_vec()));
        assert_eq!(gob(&tarball(&[(EntryType::Regular, "a", 1)])[..]).unwrap(), None);
        assert_eq!(gob(&tarball(&[])[..]).unwrap(), None);
        assert_eq!(gob(&b"no tarball"[..]).unwrap(), None);
        let cut = with[..with.len() / 2].chain(Unreadable);
        assert_eq!(gob(cut).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn metadata_is_found_only_before_large_entries() {
        let entries = |large: u64| {
            let entry = |name, size| (EntryType::Regular, name, size);
            tarball(&[entry(GOB, 3), entry("m.gob", large), entry(META, 2), entry("weights", 9)])
        };
        assert_eq!(meta(&entries(3)[..]).unwrap(), Some(b"xx".to_vec()));
        assert_eq!(meta(&entries(MAX_PASSED + 1)[..]).unwrap(), None);
        assert_eq!(meta(&tarball(&[(EntryType::Regular, "weights", 9)])[..]).unwrap(), None);
    }

    struct Unreadable;

    impl Read for Unreadable {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }

    #[test]
    fn links_that_lead_out_are_detected() {
        for (name, target) in
            [("a", "b"), ("a", "./b/c"), ("s/a", "../b"), ("s/t/a", "../../b"), ("s/a", ".."), ("a", ".")]
        {
            assert!(!leads_out(Path::new(name), Path::new(target)), "{name} {target}");
        }
        for (name, target) in [
            ("a", "/b"),
            ("a", ".."),
            ("a", "../b"),
            ("s/a", "../../b"),
            ("a", "b/../c"),
            ("s/a", "./../x/../.."),
        ] {
            assert!(leads_out(Path::new(name), Path::new(target)), "{name} {target}");
        }
    }

    #[test]
    fn metadata_length_is_bounded() {
        assert_eq!(content(&mut &b"short"[..]).unwrap(), b"short");
        let long = content(&mut io::repeat(b'x')).unwrap_err();
        assert_eq!(long.to_string(), "a file is too long for metadata");
    }

    #[test]
    fn plain_tar_is_refused_with_the_command_that_makes_a_gzipped_one() {
        let mut plain = Builder::new(Vec::new());
        plain.append(&header(EntryType::Regular, "a", 1), io::repeat(b'x').take(1)).unwrap();
        let error = format!("{:#}", names(&plain.into_inner().unwrap()).unwrap_err());
        assert!(error.contains("it is not a gzipped tarball; make one with `tar czf`"), "{error}");
    }
}
