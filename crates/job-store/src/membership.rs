//! Membership: which of the servers that share a state folder are alive. Each holds a lock on its own file for its
//! whole life. The kernel releases the lock however the server ends, so the leases of a dead server need not expire
//! first.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};

use super::ServerId;

/// Membership of this server; clones share it.
#[derive(Clone)]
pub struct Membership {
    id: ServerId,
    dir: PathBuf,
    _lock: Arc<Flock<fs::File>>,
}

impl Membership {
    /// Registers a new server in this folder.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn join(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let id = ServerId::generate();
        // The file gets its name after its lock: other servers would take an unlocked one for that of a dead server.
        let unnamed = dir.join(format!("{id}.new"));
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&unnamed)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
        fs::rename(&unnamed, path(dir, &id))?;
        let membership = Self { id, dir: dir.to_owned(), _lock: Arc::new(lock) };
        membership.forget_the_gone()?;
        Ok(membership)
    }

    /// Removes the files of servers that have ended. No server asks about one that held no job.
    fn forget_the_gone(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let other = name.to_str().and_then(|name| name.strip_suffix(".lock")).map(str::to_owned);
            if let Some(other) = other.map(ServerId).filter(|other| *other != self.id) {
                let _ = self.is_gone(&other);
            }
        }
        Ok(())
    }

    /// Whether that server runs; for tools. It removes nothing and takes no lock.
    ///
    /// # Errors
    /// Its lock file cannot be opened.
    pub fn is_held(dir: &Path, server: &ServerId) -> io::Result<bool> {
        match fs::File::open(path(dir, server)) {
            Ok(file) => Ok(Flock::lock(file, FlockArg::LockSharedNonblock).is_err()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// This server.
    #[must_use]
    pub fn id(&self) -> &ServerId {
        &self.id
    }

    /// Whether that server has certainly ended.
    #[must_use]
    pub fn is_gone(&self, other: &ServerId) -> bool {
        let path = path(&self.dir, other);
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            // It was never here, or another server found that it has ended and removed the file.
            Err(error) => return error.kind() == io::ErrorKind::NotFound,
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(_lock) => {
                let _ = fs::remove_file(&path);
                true
            }
            Err(_) => false,
        }
    }
}

fn path(dir: &Path, id: &ServerId) -> PathBuf {
    dir.join(format!("{id}.lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_is_gone_when_its_lock_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let here = Membership::join(dir.path()).unwrap();
        let other = Membership::join(dir.path()).unwrap();
        let other_id = other.id().clone();
        assert!(!here.is_gone(&other_id));
        assert!(Membership::is_held(dir.path(), &other_id).unwrap());
        drop(other);
        assert!(!Membership::is_held(dir.path(), &other_id).unwrap());
        assert!(path(dir.path(), &other_id).exists(), "who only looks removes nothing");
        assert!(here.is_gone(&other_id));
        assert!(here.is_gone(&other_id), "also when its file was removed");

        let next = Membership::join(dir.path()).unwrap();
        drop(here);
        let newest = Membership::join(dir.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().path()).collect();
        left.sort();
        let mut there = [path(dir.path(), next.id()), path(dir.path(), newest.id())];
        there.sort();
        assert_eq!(left, there);
    }
}
