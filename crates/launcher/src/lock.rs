//! The POSIX lock that an agent holds for its whole life, by which any server knows whether it lives.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Holder of an attempt's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Nobody: no agent lives.
    Nobody,
    /// The agent, with this process id, which is positive.
    Process(i32),
    /// A process without an id here, because it is in another PID namespace. It lives, and cannot be signalled.
    Unseen,
}

/// The holder of the lock on this file; `Nobody` also if there is no file.
pub(super) fn holder(path: &Path) -> io::Result<Holder> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        Err(error) => return Err(error),
    };
    let mut query = write_lock();
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GETLK(&mut query))?;
    Ok(holder_of(i32::from(query.l_type), query.l_pid))
}

/// A write lock on a whole file.
pub(super) fn write_lock() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Interprets the kernel's answer. For a holder in another PID namespace the process id is 0, and -1 for a lock that
/// belongs to an open file: `kill` would take them for the server's own process group and for all processes.
fn holder_of(lock_type: i32, pid: i32) -> Holder {
    match (lock_type, pid) {
        (libc::F_UNLCK, _) => Holder::Nobody,
        (_, 1..) => Holder::Process(pid),
        (_, ..=0) => Holder::Unseen,
    }
}

/// Poll interval for a lock whose holder cannot be waited for.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// Waits until nobody holds the lock on this file; `holder` holds it now.
pub(super) async fn released(path: PathBuf, by: Holder) {
    // The kernel reports the exit of a process. A holder without a process here is polled.
    if let Some(process) = process_of(&path, by) {
        let _ = process.readable().await;
    }
    while !matches!(holder(&path), Ok(Holder::Nobody)) {
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

/// A descriptor of the process that holds the lock; it becomes readable when the process has exited.
fn process_of(path: &Path, by: Holder) -> Option<AsyncFd<OwnedFd>> {
    let Holder::Process(id) = by else { return None };
    let process = pidfd_open(Pid::from_raw(id)?, PidfdFlags::NONBLOCK).ok()?;
    // The id may have been reused before the descriptor was opened. A process that holds the lock now also held it
    // then.
    if holder(path).ok()? != by {
        return None;
    }
    #[expect(deprecated, reason = "it is sound for an OwnedFd, and its successor is unsafe")]
    AsyncFd::with_interest(process, Interest::READABLE).ok()
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
    fn lock_without_process_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(holder(&path).unwrap(), Holder::Nobody);
        let file = File::create(&path).unwrap();
        assert_eq!(holder(&path).unwrap(), Holder::Nobody);
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_OFD_SETLK(&write_lock())).unwrap();
        assert_eq!(holder(&path).unwrap(), Holder::Unseen);
    }

    /// Names the file that the process below locks.
    const HELD: &str = "SQLFLOW_TEST_HELD_LOCK";

    /// Another process that holds the lock until it is killed: it runs the test `hold` of this file.
    fn holding(path: &Path) -> tokio::process::Child {
        let (_, module) = module_path!().split_once("::").unwrap();
        let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("{module}::hold")]).env(HELD, path);
        command.stdout(std::process::Stdio::null()).kill_on_drop(true).spawn().unwrap()
    }

    #[tokio::test]
    async fn hold() {
        let Some(path) = std::env::var_os(HELD) else { return };
        let file = File::create(path).unwrap();
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETLK(&write_lock())).unwrap();
        std::future::pending::<()>().await;
    }

    #[tokio::test]
    async fn exit_of_foreign_process_is_awaited() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let mut child = holding(&path);
        let by = loop {
            match holder(&path).unwrap() {
                Holder::Nobody => tokio::time::sleep(Duration::from_millis(5)).await,
                held => break held,
            }
        };
        let id = i32::try_from(child.id().unwrap()).unwrap();
        assert_eq!(by, Holder::Process(id));
        assert!(process_of(&path, by).is_some() && process_of(&path, Holder::Process(1)).is_none());
        let mut released = Box::pin(released(path, by));
        assert!(futures::FutureExt::now_or_never(&mut released).is_none(), "it runs");
        child.kill().await.unwrap();
        released.await;
    }

    #[tokio::test]
    async fn holder_in_other_pid_namespace_is_polled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        released(path, Holder::Unseen).await;
    }
}
