//! Unpacks a gzipped tarball of this agent or of `tar czf` into a folder. Anyone who can write to the model storage can
//! put any file there, so nothing is written outside of the folder or through a link.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use sqlflow_os::disk;
use sqlflow_os::paths::inside;
use tar::{EntryType, Header};

use crate::tarball::{self, TarEntry, leads_out};

/// Maximum size of what is unpacked: this, and so many times the size of the tarball. Models compress to a half or a tenth;
/// zeros to a thousandth, so that a tarball of megabytes could fill a disk.
const MAX_UNPACKED: u64 = 256 << 20;
const MAX_RATIO: u64 = 100;

/// Keeps times and modes (without set-user-id and the like), not owners. Existing files and links of the same names are
/// replaced. `made` receives the files and links.
///
/// # Errors
/// A read or write failed; an entry is not a file, a folder or a link that stays within the folder; a file has no room on
/// the disk; or the tarball holds far more than its own size, see [`MAX_RATIO`].
pub fn unpack(tarball: impl Read, folder: &Path, made: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let size = Size::default();
    let mut unpacking = Unpacking {
        folder,
        made,
        last_folder: folder.to_owned(),
        links: Vec::new(),
        folders: Vec::new(),
        size: size.clone(),
    };
    tarball::read(Measured { from: tarball, read: size.packed }, |entry| {
        let path = entry.path()?.into_owned();
        unpacking.entry(&path, entry).with_context(|| format!("cannot unpack {}", path.display()))
    })?;
    unpacking.finish()
}

/// State of unpacking. Its memory is bounded by the names in a tarball.
struct Unpacking<'a> {
    folder: &'a Path,
    made: &'a mut BTreeSet<PathBuf>,
    /// The last folder that is known not to be behind a link. Entries are ordered by folder.
    last_folder: PathBuf,
    /// Created last, so that nothing is written through one.
    links: Vec<(PathBuf, PathBuf)>,
    /// With attributes that are set last: a mode may forbid writing, and new files change the time.
    folders: Vec<(PathBuf, Attributes)>,
    size: Size,
}

/// Bytes so far.
#[derive(Debug, Clone, Default)]
struct Size {
    packed: Rc<Cell<u64>>,
    unpacked: Rc<Cell<u64>>,
}

/// Counts the bytes that are read.
struct Measured<R> {
    from: R,
    read: Rc<Cell<u64>>,
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.read.set(self.read.get().saturating_add(read as u64));
        Ok(read)
    }
}

/// Content of a file, which fails where the tarball holds too much.
struct Content<'a, R> {
    from: &'a mut R,
    size: Size,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        let Size { packed, unpacked } = &self.size;
        unpacked.set(unpacked.get().saturating_add(read as u64));
        if unpacked.get() > MAX_RATIO.saturating_mul(packed.get()).saturating_add(MAX_UNPACKED) {
            let message = format!(
                "the tarball holds more than {MAX_RATIO} times its size and {} MiB; pack the model without long runs of \
                 equal bytes",
                MAX_UNPACKED >> 20
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(read)
    }
}

/// Checks that a file of this size has room in a folder. Otherwise other programs would have none either.
fn check_room(folder: &Path, size: u64) -> anyhow::Result<()> {
    let Ok(Some(free)) = disk::free_bytes(folder) else { return Ok(()) };
    if size <= free {
        return Ok(());
    }
    let message = format!("it takes {size} bytes, and the disk of {} has {free} free", folder.display());
    Err(anyhow::Error::new(Errno::ENOSPC).context(message))
}

/// Attributes of an entry that are kept.
#[derive(Debug, Clone, Copy)]
struct Attributes {
    mode: Option<u32>,
    modified: Option<SystemTime>,
}

impl Attributes {
    fn of(header: &Header) -> Self {
        // Entries of a model have no time.
        let seconds = header.mtime().ok().filter(|it| *it > 0);
        Self {
            mode: header.mode().ok().map(|it| it & 0o777),
            modified: seconds.and_then(|it| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(it))),
        }
    }

    fn set(self, file: &File) -> io::Result<()> {
        if let Some(modified) = self.modified {
            // Some file systems do not support it.
            let _ = file.set_modified(modified);
        }
        self.mode.map_or(Ok(()), |mode| file.set_permissions(Permissions::from_mode(mode)))
    }
}

impl Unpacking<'_> {
    fn entry<R: Read>(&mut self, path: &Path, entry: &mut TarEntry<'_, R>) -> anyhow::Result<()> {
        match entry.header().entry_type() {
            EntryType::Directory if path.components().all(|part| part == Component::CurDir) => {}
            EntryType::Directory => {
                let target = inside(self.folder, path)?;
                self.make_folder(&target)?;
                // The mode of an existing folder may forbid writing.
                fs::set_permissions(&target, Permissions::from_mode(0o700))?;
                self.folders.push((target, Attributes::of(entry.header())));
            }
            EntryType::Regular | EntryType::Continuous => {
                let target = self.room_for(path)?;
                check_room(&self.last_folder, entry.size())?;
                // New, so that nothing is written through an existing link.
                let mut file = File::create_new(&target)?;
                self.made.insert(target);
                let attributes = Attributes::of(entry.header());
                io::copy(&mut Content { from: entry, size: self.size.clone() }, &mut file)?;
                attributes.set(&file)?;
            }
            EntryType::Symlink => {
                let link = entry.link_name()?.context("it is a link without a target")?.into_owned();
                if leads_out(path, &link) {
                    bail!("it is a link out of its folder, to {}", link.display());
                }
                self.links.push((path.to_owned(), link));
            }
            EntryType::Link => {
                let link = entry.link_name()?.context("it is a link without a target")?.into_owned();
                let original = inside(self.folder, &link)?;
                // Only to unpacked files: others do not belong to the tarball.
                if !self.made.contains(&original) || inside(self.folder, path)? == original {
                    bail!(
                        "it is a hard link to {}, which is not an earlier file of the tarball",
                        link.display()
                    );
                }
                let target = self.room_for(path)?;
                // Some file systems do not support hard links.
                fs::hard_link(&original, &target).or_else(|_| fs::copy(&original, &target).map(drop))?;
                self.made.insert(target);
            }
            other => bail!("it is neither a file, a folder nor a link ({other:?})"),
        }
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<()> {
        for (path, link) in std::mem::take(&mut self.links) {
            self.link(&path, &link).with_context(|| format!("cannot unpack {}", path.display()))?;
        }
        // Inner folders first.
        for (folder, attributes) in self.folders.into_iter().rev() {
            File::open(&folder)
                .and_then(|it| attributes.set(&it))
                .with_context(|| format!("cannot set the mode of {}", folder.display()))?;
        }
        Ok(())
    }

    fn link(&mut self, path: &Path, link: &Path) -> anyhow::Result<()> {
        let target = self.room_for(path)?;
        symlink(link, &target)?;
        self.made.insert(target);
        Ok(())
    }

    /// Path of a new file or link: creates its folder and removes what exists there.
    fn room_for(&mut self, path: &Path) -> anyhow::Result<PathBuf> {
        let target = inside(self.folder, path)?;
        if let Some(parent) = target.parent() {
            self.make_folder(parent)?;
        }
        match fs::symlink_metadata(&target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
            Ok(found) if found.is_dir() => bail!("a folder of this name exists"),
            // It existed before or comes twice. As with `tar`, the last one counts.
            Ok(_) => fs::remove_file(&target)?,
        }
        Ok(target)
    }

    /// Creates a folder and its parents. None of them may be a link, which may lead out of the root.
    fn make_folder(&mut self, target: &Path) -> anyhow::Result<()> {
        if target == self.last_folder {
            return Ok(());
        }
        let mut folder = self.folder.to_owned();
        for part in target.strip_prefix(self.folder)?.components() {
            folder.push(part);
            match fs::symlink_metadata(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&folder)?,
                Err(error) => return Err(error.into()),
                Ok(found) if found.is_dir() => {}
                Ok(_) => bail!("{} exists and is not a folder", folder.display()),
            }
        }
        self.last_folder = folder;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::Builder;

    use super::*;

    fn tarball(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (path, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            if matches!(kind, EntryType::Symlink | EntryType::Link) {
                header.set_size(0);
                header.set_link_name(content).unwrap();
            } else {
                header.set_size(content.len() as u64);
            }
            // The raw field, since the setter refuses what a hostile tarball holds.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            let body = if header.size().unwrap() == 0 { "" } else { content };
            builder.append(&header, body.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    /// Compares with the tree that GNU tar packed.
    #[test]
    fn tarball_of_gnu_tar_is_unpacked_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let script = "mkdir -p tree/sub tree/closed && cd tree && echo tool > sub/tool && chmod 751 sub/tool
ln -s tool sub/link && ln -s sub folder && ln -s ../sub/tool closed/up && ln -s nowhere dangling && ln sub/tool hard
echo x > closed/x && touch -d @1000000000 sub/tool closed/x && chmod 400 closed/x && touch -d @1000000001 sub && chmod 500 closed
tar czf ../tree.tar.gz . && tar czf ../pax.tar.gz --format=pax --pax-option=comment=x .";
        let status =
            std::process::Command::new("sh").args(["-c", script]).current_dir(&dir).status().unwrap();
        assert!(status.success());
        for name in ["tree.tar.gz", "pax.tar.gz"] {
            let tarball = fs::read(dir.path().join(name)).unwrap();
            let folder = dir.path().join(format!("of-{name}"));
            // Twice into the same folder, as when a container is restarted.
            for _ in 0..2 {
                unpack(&tarball[..], &folder, &mut BTreeSet::new()).unwrap();
                let find = |of: &Path| {
                    let mut find = std::process::Command::new("find");
                    let format = ["-printf", "%P %y %m %Ts %l\\n"];
                    let found =
                        find.args(["!", "-name", "link", "!", "-type", "l"]).args(format).current_dir(of);
                    let text = String::from_utf8(found.output().unwrap().stdout).unwrap();
                    // The folder itself belongs to the user.
                    let mut lines: Vec<_> =
                        text.lines().filter(|it| !it.starts_with(' ')).map(str::to_owned).collect();
                    lines.sort();
                    lines
                };
                assert_eq!(find(&folder), find(&dir.path().join("tree")));
                for (link, target) in [
                    ("sub/link", "tool"),
                    ("folder", "sub"),
                    ("closed/up", "../sub/tool"),
                    ("dangling", "nowhere"),
                ] {
                    assert_eq!(fs::read_link(folder.join(link)).unwrap(), Path::new(target));
                }
                assert_eq!(fs::read_to_string(folder.join("hard")).unwrap(), "tool\n");
            }
        }
    }

    /// Links that lead out only together with another one, and files that would be written through one.
    #[test]
    fn nothing_is_written_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("m");
        fs::create_dir(dir.path().join("outside")).unwrap();
        for bad in [
            &[
                ("b", EntryType::Symlink, "."),
                ("a", EntryType::Symlink, "b/../outside"),
                ("a/x", EntryType::Regular, "x"),
            ][..],
            &[("s", EntryType::Symlink, "t"), ("s/x", EntryType::Regular, "x")],
            &[("hard", EntryType::Link, "../outside")],
            &[("x", EntryType::Regular, "x"), ("x", EntryType::Link, "x")],
        ] {
            let _ = fs::remove_dir_all(&folder);
            unpack(&tarball(bad)[..], &folder, &mut BTreeSet::new()).unwrap_err();
            assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
        }
        // A link of the user in the folder.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        symlink(dir.path().join("outside"), folder.join("sub")).unwrap();
        symlink(dir.path().join("outside/y"), folder.join("y")).unwrap();
        let error =
            unpack(&tarball(&[("sub/x", EntryType::Regular, "x")])[..], &folder, &mut BTreeSet::new())
                .unwrap_err();
        assert!(format!("{error:#}").contains("sub exists and is not a folder"), "{error:#}");
        unpack(&tarball(&[("y", EntryType::Regular, "y")])[..], &folder, &mut BTreeSet::new()).unwrap();
        assert_eq!(fs::read_to_string(folder.join("y")).unwrap(), "y");
        assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
        // Thousands of folders in one name must not overflow the stack.
        let deep = "d/".repeat(20_000);
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut header = Header::new_gnu();
        header.set_size(0);
        builder.append_data(&mut header, format!("{deep}x"), io::empty()).unwrap();
        let deep = builder.into_inner().unwrap().finish().unwrap();
        unpack(&deep[..], &folder, &mut BTreeSet::new()).unwrap_err();
    }

    #[test]
    fn model_is_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let good =
            tarball(&[("./", EntryType::Directory, ""), ("a/model.bin", EntryType::Regular, "weights")]);
        unpack(&good[..], &dir.path().join("m"), &mut BTreeSet::new()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("m/a/model.bin")).unwrap(), "weights");
    }

    #[test]
    fn hostile_entries_are_rejected() {
        for bad in [
            ("../x", EntryType::Regular, "x"),
            ("/x", EntryType::Regular, "x"),
            ("a/../../x", EntryType::Regular, "x"),
            ("link", EntryType::Symlink, ".."),
            ("link", EntryType::Link, "/etc/passwd"),
            ("pipe", EntryType::Fifo, ""),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let error =
                unpack(&tarball(&[bad])[..], &dir.path().join("m"), &mut BTreeSet::new()).unwrap_err();
            assert!(
                !dir.path().join("x").exists() && !dir.path().join("m/link").exists(),
                "{bad:?}: {error}"
            );
        }
    }

    /// A tarball with one file of zeros.
    fn zeros(size: u64) -> Vec<u8> {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut header = Header::new_gnu();
        header.set_size(size);
        builder.append_data(&mut header, "model.bin", io::repeat(0).take(size)).unwrap();
        builder.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn tarball_that_holds_far_more_than_its_size_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        unpack(&zeros(MAX_UNPACKED)[..], &dir.path().join("few"), &mut BTreeSet::new()).unwrap();
        let folder = dir.path().join("many");
        let error = unpack(&zeros(3 * MAX_UNPACKED)[..], &folder, &mut BTreeSet::new()).unwrap_err();
        let message = format!("{error:#}");
        assert!(
            message.contains("model.bin: the tarball holds more than 100 times its size and 256 MiB"),
            "{message}"
        );
        let written = fs::metadata(folder.join("model.bin")).unwrap().len();
        assert!(written < 2 * MAX_UNPACKED, "{written}");
    }

    /// Before anything is written.
    #[test]
    fn file_without_room_on_the_disk_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let mut header = Header::new_gnu();
        header.set_size(1 << 60);
        header.set_path("model.bin").unwrap();
        header.set_cksum();
        let mut bytes = GzEncoder::new(Vec::new(), Compression::fast());
        io::Write::write_all(&mut bytes, header.as_bytes()).unwrap();
        let tarball = bytes.finish().unwrap();
        let error = unpack(&tarball[..], &dir.path().join("m"), &mut BTreeSet::new()).unwrap_err();
        let message = format!("{error:#}");
        assert!(
            message.contains("model.bin: it takes 1152921504606846976 bytes, and the disk of"),
            "{message}"
        );
        assert_eq!(error.downcast_ref::<Errno>(), Some(&Errno::ENOSPC), "it is tried again");
        assert!(!dir.path().join("m/model.bin").exists());
    }

    #[test]
    fn truncated_or_corrupted_tarball_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let whole = tarball(&[("model.bin", EntryType::Regular, "weights")]);
        let cut = &whole[..whole.len() - 4];
        assert!(unpack(cut, &dir.path().join("cut"), &mut BTreeSet::new()).is_err());
        let mut corrupted = whole.clone();
        let crc = corrupted.len() - 8;
        corrupted[crc] ^= 1;
        assert!(unpack(&corrupted[..], &dir.path().join("corrupted"), &mut BTreeSet::new()).is_err());
    }
}
