//! Denied paths: without links, as a tree from the root.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// Maximum number of links in a path, as in the kernel.
const MAX_LINKS: usize = 40;
/// What may follow the name of a denied file in the name of a file that belongs to it.
const SEPARATOR: u8 = b'-';

/// The real path of a file, which need not exist: a link may lead to a file that is created later.
///
/// # Errors
/// The path is relative, or its links form a loop.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    if !path.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not an absolute path"));
    }
    let mut resolved = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = names(path).collect();
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            resolved.pop();
            continue;
        }
        let next = resolved.join(&name);
        // Fails for everything but a link.
        let Ok(target) = fs::read_link(&next) else {
            resolved = next;
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(io::Error::other("it has too many symbolic links"));
        }
        if target.is_absolute() {
            resolved = PathBuf::from("/");
        }
        for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
            rest.push_front(name);
        }
    }
    Ok(resolved)
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

/// All denied paths.
#[derive(Debug, Default)]
pub(super) struct Denied {
    root: Folder,
    files: HashSet<(u64, u64)>,
}

impl Denied {
    /// Adds a path without links.
    pub(super) fn insert(&mut self, path: &Path) {
        let mut folder = &mut self.root;
        let mut names = names(path).peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                folder.0.insert(name, Entry::Denied);
                break;
            }
            match folder.0.entry(name).or_insert_with(|| Entry::Folder(Folder::default())) {
                // Its folder is denied.
                Entry::Denied => break,
                Entry::Folder(below) => folder = below,
            }
        }
        if let Ok(found) = fs::symlink_metadata(path)
            && !found.is_dir()
        {
            self.files.insert((found.dev(), found.ino()));
        }
    }

    /// The root folder.
    pub(super) fn root(&self) -> &Folder {
        &self.root
    }

    /// Whether this is a denied file, under whichever name.
    pub(super) fn is_file(&self, device: u64, inode: u64) -> bool {
        self.files.contains(&(device, inode))
    }
}

/// A folder above denied paths: the names in it that are denied, or lead to denied ones.
#[derive(Debug, Default)]
pub(super) struct Folder(BTreeMap<OsString, Entry>);

#[derive(Debug)]
enum Entry {
    Denied,
    Folder(Folder),
}

impl Folder {
    /// Whether an entry of the folder is not to be allowed as a whole.
    pub(super) fn covers(&self, name: &OsStr, is_folder: bool) -> bool {
        if self.0.contains_key(name) {
            return true;
        }
        let belongs = |denied: &OsString| {
            let rest = name.as_encoded_bytes().strip_prefix(denied.as_encoded_bytes());
            rest.is_some_and(|rest| rest.first() == Some(&SEPARATOR))
        };
        !is_folder && self.0.iter().any(|(denied, entry)| matches!(entry, Entry::Denied) && belongs(denied))
    }

    /// Its subfolders that lead to denied paths.
    pub(super) fn folders(&self) -> impl Iterator<Item = (&OsStr, &Self)> {
        self.0.iter().filter_map(|(name, entry)| match entry {
            Entry::Denied => None,
            Entry::Folder(below) => Some((name.as_os_str(), below)),
        })
    }

    /// One of the denied paths below it, for messages.
    pub(super) fn example(&self, own: &Path) -> PathBuf {
        match self.0.iter().next() {
            Some((name, Entry::Denied)) => own.join(name),
            Some((name, Entry::Folder(below))) => below.example(&own.join(name)),
            None => own.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_resolved_also_to_what_does_not_exist() {
        let dir = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(dir.join("data")).unwrap();
        symlink("data/../data/later.db", dir.join("a")).unwrap();
        symlink(dir.join("a"), dir.join("b")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        assert_eq!(resolve(&dir.join("b")).unwrap(), dir.join("data/later.db"));
        assert_eq!(resolve(&dir.join("./data//x")).unwrap(), dir.join("data/x"));
        assert!(resolve(&dir.join("loop")).is_err() && resolve(Path::new("x")).is_err());
    }

    #[test]
    fn denied_folder_covers_what_is_below() {
        for order in [["/a/b", "/a/b/c/d"], ["/a/b/c/d", "/a/b"]] {
            let mut denied = Denied::default();
            order.iter().for_each(|path| denied.insert(Path::new(path)));
            let (_, a) = denied.root().folders().next().unwrap();
            assert!(a.covers(OsStr::new("b"), true) && a.folders().next().is_none(), "{order:?}");
        }
    }

    #[test]
    fn files_that_belong_to_a_denied_one_are_covered() {
        let mut denied = Denied::default();
        denied.insert(Path::new("/iris.db"));
        let covers = |name: &str, is_folder| denied.root().covers(OsStr::new(name), is_folder);
        assert!(covers("iris.db", false) && covers("iris.db-wal", false) && covers("iris.db-mj1A2B", false));
        assert!(!covers("iris.dbx", false) && !covers("iris", false) && !covers("iris.db-features", true));
    }
}
