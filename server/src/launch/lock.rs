//! The POSIX lock that an agent holds for its whole life: it tells any server whether the agent lives.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use nix::libc;

/// Who holds an attempt's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nobody: no agent lives.
    Nobody,
    /// This process: the agent. Its id is positive.
    Process(i32),
    /// A process that has no id here, since it is in another PID namespace. It lives, and cannot be signalled.
    Unseen,
}

/// Who holds the lock on this file; nobody also when there is no file.
pub(super) fn holder(path: &Path) -> io::Result<Holder> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        Err(error) => return Err(error),
    };
    let mut query = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GETLK(&mut query))?;
    Ok(holder_of(i32::from(query.l_type), query.l_pid))
}

/// What the kernel's answer says. For a holder in another PID namespace the process id is 0, and -1 for a lock that
/// belongs to an open file: `kill` would take them for the server's own process group and for every process.
fn holder_of(lock_type: i32, pid: i32) -> Holder {
    match (lock_type, pid) {
        (libc::F_UNLCK, _) => Holder::Nobody,
        (_, 1..) => Holder::Process(pid),
        (_, ..=0) => Holder::Unseen,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn only_a_positive_id_is_a_process() {
        assert_eq!(holder_of(libc::F_WRLCK, 17), Holder::Process(17));
        assert_eq!([0, -1].map(|pid| holder_of(libc::F_WRLCK, pid)), [Holder::Unseen; 2]);
        assert_eq!(holder_of(libc::F_UNLCK, 17), Holder::Nobody);
    }

    /// The kernel gives -1 for the holder of such a lock.
    #[test]
    fn a_lock_without_a_process_is_held_and_has_no_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(holder(&path).unwrap(), Holder::Nobody);
        let file = File::create(&path).unwrap();
        assert_eq!(holder(&path).unwrap(), Holder::Nobody);
        let lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_OFD_SETLK(&lock)).unwrap();
        assert_eq!(holder(&path).unwrap(), Holder::Unseen);
    }
}
