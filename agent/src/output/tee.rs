//! Copies the command's output to the agent's own stdout and stderr, beside the agent's log.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::ValueEnum;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{mpsc, watch};

/// Bytes that may be queued, plus one chunk.
const QUEUE: usize = 2 << 20;
/// Overhead of a chunk.
const CHUNK_OVERHEAD: usize = 256;
/// Timeout for a stuck reader of a copy, once; and for the last output at the exit.
pub const READER_TIMEOUT: Duration = Duration::from_secs(1);

/// How the command's output is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TeeMode {
    /// Byte for byte
    Raw,
    /// For readers of lines, such as a container's log: a progress bar with carriage returns becomes a line per second
    Lines,
    /// Not at all
    None,
}

/// Meaning of the output here. It decides what happens when a full pipe is not read, or writing fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A copy: after one bounded wait, bytes are dropped silently.
    Copy,
    /// The output itself. When the reader is gone, the command gets a closed pipe, as without an agent. After any other
    /// failure nothing more is written, so that the written output has no hole.
    Output {
        /// The command waits for a stuck reader. Otherwise bytes are dropped as from a copy, and counted.
        waits: bool,
    },
}

/// One of the agent's own streams; cheap to clone.
#[derive(Debug, Clone)]
pub struct Tee {
    queue: mpsc::UnboundedSender<Chunk>,
    role: Role,
    state: Arc<State>,
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    /// Output of the command, not a line of the log.
    is_output: bool,
}

#[derive(Debug)]
struct State {
    name: &'static str,
    /// Cost of the queued chunks.
    waiting: watch::Sender<usize>,
    is_stuck: AtomicBool,
    /// Bytes of output to write, and of written output.
    offered: AtomicU64,
    written: AtomicU64,
    failure: OnceLock<Errno>,
    failure_is_reported: AtomicBool,
    /// The agent does not wait for the reader any more.
    given_up: AtomicBool,
}

impl Chunk {
    fn cost(&self) -> usize {
        self.bytes.len() + CHUNK_OVERHEAD
    }
}

/// Output that was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritten {
    stream: &'static str,
    bytes: u64,
    /// `None`: it was not read. How much of the last piece was read is unknown.
    failure: Option<Errno>,
}

impl Unwritten {
    /// Whether the reader was too slow or stuck, and writing did not fail.
    pub fn is_unread(&self) -> bool {
        self.failure.is_none()
    }
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, bytes, failure } = self;
        match failure {
            Some(failure) => {
                write!(f, "{bytes} bytes of its {stream} could not be written: {}", failure.desc())
            }
            None => write!(f, "up to {bytes} bytes of its {stream} were not written: nobody read them"),
        }
    }
}

impl Tee {
    /// Writes to `sink`, called `name` in messages, from a new thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn spawn(sink: impl AsFd + Send + 'static, name: &'static str, role: Role) -> io::Result<Self> {
        let (queue, mut chunks) = mpsc::unbounded_channel::<Chunk>();
        let state = Arc::new(State {
            name,
            waiting: watch::Sender::new(0),
            is_stuck: AtomicBool::new(false),
            offered: AtomicU64::new(0),
            written: AtomicU64::new(0),
            failure: OnceLock::new(),
            failure_is_reported: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
        });
        let thread_state = state.clone();
        std::thread::Builder::new().spawn(move || {
            while let Some(chunk) = chunks.blocking_recv() {
                if thread_state.writes(role, &chunk) {
                    thread_state.write(&sink, &chunk);
                }
                thread_state.waiting.send_modify(|waiting| *waiting -= chunk.cost());
            }
        })?;
        Ok(Self { queue, role, state })
    }

    /// Waits until there is room for output, or until the timeout of the reader. Safe to cancel: output may be passed
    /// then too.
    pub async fn room(&self) {
        let waits = self.role == Role::Output { waits: true };
        let room = self.state.waiting_at_most(QUEUE - 1);
        if waits {
            room.await;
        } else if !self.state.is_stuck.load(Ordering::Relaxed) {
            let came = tokio::time::timeout(READER_TIMEOUT, room).await;
            self.state.is_stuck.store(came.is_err(), Ordering::Relaxed);
        }
    }

    /// Queues output.
    pub fn pass(&self, bytes: Bytes) {
        self.state.offered.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let has_room = self.has_room();
        if has_room {
            self.state.is_stuck.store(false, Ordering::Relaxed);
        }
        if has_room || self.role == (Role::Output { waits: true }) {
            self.queue(Chunk { bytes, is_output: true });
        }
    }

    /// Whether the command has to wait for the reader now.
    pub fn holds(&self) -> bool {
        self.role == Role::Output { waits: true } && !self.has_room()
    }

    fn has_room(&self) -> bool {
        *self.state.waiting.borrow() < QUEUE
    }

    fn queue(&self, chunk: Chunk) {
        self.state.waiting.send_modify(|waiting| *waiting += chunk.cost());
        // The thread lives as long as there is a sender.
        let _ = self.queue.send(chunk);
    }

    /// Whether the command should get a closed pipe.
    pub fn is_over(&self) -> bool {
        self.role != Role::Copy && self.state.failure.get() == Some(&Errno::EPIPE)
    }

    /// A message about a failure, once. A closed reader is not a failure.
    pub fn failure(&self) -> Option<String> {
        let failure = self.state.failure.get().filter(|failure| **failure != Errno::EPIPE)?;
        let is_reported = self.state.failure_is_reported.swap(true, Ordering::Relaxed);
        let (name, why) = (self.state.name, failure.desc());
        let ends =
            if self.role == Role::Copy { "" } else { "; no more output of the command is written to it" };
        (!is_reported).then(|| format!("cannot write to {name}: {why}{ends}"))
    }

    /// Waits until everything is written, or `given_up` ends. Returns what is missing then.
    pub async fn finish(&self, given_up: impl Future<Output = ()>) -> Option<Unwritten> {
        tokio::select! {
            biased;
            () = self.state.waiting_at_most(0) => {}
            () = given_up => self.state.given_up.store(true, Ordering::Relaxed),
        }
        let bytes = self.state.offered.load(Ordering::Relaxed) - self.state.written.load(Ordering::Relaxed);
        let failure = self.state.failure.get().copied();
        let is_missing = bytes > 0 && self.role != Role::Copy && failure != Some(Errno::EPIPE);
        is_missing.then_some(Unwritten { stream: self.state.name, bytes, failure })
    }

    /// Waits for the last lines of the log, up to the timeout of the reader, unless the reader is known to be stuck.
    pub fn flush_log(&self) {
        let begun = Instant::now();
        let waits = || !self.state.given_up.load(Ordering::Relaxed) && begun.elapsed() < READER_TIMEOUT;
        while *self.state.waiting.borrow() > 0 && waits() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl State {
    async fn waiting_at_most(&self, limit: usize) {
        // An error would mean that the sender is gone, which `self` holds.
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting <= limit).await;
    }

    fn writes(&self, role: Role, chunk: &Chunk) -> bool {
        let is_cut = role != Role::Copy && self.failure.get().is_some();
        let is_given_up = chunk.is_output && self.given_up.load(Ordering::Relaxed);
        !is_cut && !is_given_up
    }

    fn write(&self, sink: &impl AsFd, chunk: &Chunk) {
        let mut rest = &chunk.bytes[..];
        while !rest.is_empty() {
            match nix::unistd::write(sink, rest) {
                Ok(written) => {
                    rest = &rest[written..];
                    if chunk.is_output {
                        self.written.fetch_add(written as u64, Ordering::Relaxed);
                    }
                }
                Err(Errno::EINTR) => {}
                // Another process that shares the stream may have made it non-blocking. An error shows at the next
                // write.
                Err(Errno::EAGAIN) => {
                    let _ = poll(&mut [PollFd::new(sink.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE);
                }
                Err(failure) => {
                    let _ = self.failure.set(failure);
                    return;
                }
            }
        }
    }
}

/// For the log: a line is queued, or dropped when the reader is stuck.
impl Write for Tee {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.has_room() {
            self.queue(Chunk { bytes: Bytes::copy_from_slice(line), is_output: false });
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::Read as _;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    const OUTPUT: Role = Role::Output { waits: true };

    fn full() -> File {
        OpenOptions::new().write(true).open("/dev/full").unwrap()
    }

    #[tokio::test]
    async fn full_disk_is_reported_as_a_failure() {
        let tee = Tee::spawn(full(), "stdout", OUTPUT).unwrap();
        tee.pass(Bytes::from_static(b"hi\n"));
        let unwritten = tee.finish(std::future::pending()).await.unwrap();
        assert_eq!(
            unwritten.to_string(),
            "3 bytes of its stdout could not be written: No space left on device"
        );
        assert!(!tee.is_over());
        assert!(tee.failure().unwrap().contains("No space left on device"));
        assert_eq!(tee.failure(), None, "once");
        let copy = Tee::spawn(full(), "stdout", Role::Copy).unwrap();
        copy.pass(Bytes::from_static(b"hi\n"));
        assert_eq!(copy.finish(std::future::pending()).await, None, "a copy misses nothing");
    }

    #[tokio::test]
    async fn closed_reader_is_not_a_failure() {
        let (read, write) = io::pipe().unwrap();
        drop(read);
        let tee = Tee::spawn(write, "stdout", OUTPUT).unwrap();
        tee.pass(Bytes::from_static(b"hi\n"));
        assert_eq!(tee.finish(std::future::pending()).await, None);
        assert!(tee.is_over() && tee.failure().is_none());
    }

    #[tokio::test]
    async fn unread_bytes_are_counted_after_the_timeout() {
        let (read, write) = io::pipe().unwrap();
        for (role, least) in [(OUTPUT, 40 << 16), (Role::Output { waits: false }, 30 << 16)] {
            let tee = Tee::spawn(write.try_clone().unwrap(), "stderr", role).unwrap();
            for _ in 0..41 {
                tee.pass(Bytes::from(vec![b'x'; 64 << 10]));
            }
            let unwritten = tee.finish(std::future::ready(())).await.unwrap();
            assert!(unwritten.bytes >= least, "{unwritten:?}");
            assert!(unwritten.to_string().ends_with("of its stderr were not written: nobody read them"));
        }
        drop(read);
    }

    #[tokio::test]
    async fn non_blocking_stream_is_polled() {
        let (mut read, write) = io::pipe().unwrap();
        fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let tee = Tee::spawn(write, "stdout", OUTPUT).unwrap();
        tee.pass(Bytes::from(vec![b'x'; 1 << 20]));
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; 1 << 20];
            read.read_exact(&mut all).map(|()| all)
        });
        assert_eq!(tee.finish(std::future::pending()).await, None);
        assert_eq!(reader.join().unwrap().unwrap(), vec![b'x'; 1 << 20]);
    }
}
