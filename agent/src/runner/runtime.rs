//! The threads that an agent has.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::errno::Errno;
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Runtime;
use tokio::task::spawn_blocking;

/// A thread that does not come within this time does not come.
const THREAD_TIMEOUT: Duration = Duration::from_secs(1);

/// One thread, and two for work that blocks, which stay: a command may use up the limit of processes, and tokio panics
/// where it has no such thread and gets none. With one, a publication that has it would wait for ever for a host's
/// address, which takes another.
///
/// # Errors
/// These threads are not to be had.
pub(super) fn start() -> io::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(Duration::MAX)
        .build()?;
    let started = runtime.block_on(async {
        // The first by way of a file: of all that blocks only that is told of a missing thread.
        let (_read, write) = io::pipe()?;
        let mut file = tokio::fs::File::from_std(std::fs::File::from(OwnedFd::from(write)));
        file.write_all(b"x").await.and(file.flush().await).map_err(|_| Errno::EAGAIN)?;
        // The second while the first is held.
        let (release, held) = std::sync::mpsc::channel::<()>();
        spawn_blocking(move || held.recv());
        let second = tokio::time::timeout(THREAD_TIMEOUT, spawn_blocking(|| ())).await;
        drop(release);
        second.map_err(|_| Errno::EAGAIN)?.map_err(io::Error::from)
    });
    started.map(|()| runtime)
}
