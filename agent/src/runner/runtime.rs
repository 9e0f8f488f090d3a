//! Threads of the agent.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::errno::Errno;
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Runtime;
use tokio::task::spawn_blocking;

/// Timeout for the start of a thread.
const THREAD_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts the main thread's runtime and two permanent threads for blocking work. Later they may not start: a command
/// may exhaust the limit of processes, and tokio panics without such a thread. One would be too few: a publication on
/// it would wait forever for the name resolution, which needs another.
///
/// # Errors
/// The threads cannot be started.
pub(super) fn start() -> io::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(Duration::MAX)
        .build()?;
    let started = runtime.block_on(async {
        // The first by a file operation: only those report a missing thread as an error.
        let (_read, write) = io::pipe()?;
        let mut file = tokio::fs::File::from_std(std::fs::File::from(OwnedFd::from(write)));
        file.write_all(b"x").await.and(file.flush().await).map_err(|_| Errno::EAGAIN)?;
        // The second, while the first one is busy.
        let (release, held) = std::sync::mpsc::channel::<()>();
        spawn_blocking(move || held.recv());
        let second = tokio::time::timeout(THREAD_TIMEOUT, spawn_blocking(|| ())).await;
        drop(release);
        second.map_err(|_| Errno::EAGAIN)?.map_err(io::Error::from)
    });
    started.map(|()| runtime)
}
