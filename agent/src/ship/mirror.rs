//! The child's output and the agent's log on the agent's own stdout and stderr.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Chunks of at most 64 KiB that may wait.
const QUEUE: usize = 32;
/// How long the child's output waits for a stuck reader, once; and the exit for the last of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// What to do when nobody empties a full pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stuck {
    /// A bounded wait once, then bytes are dropped here, and only here: the records hold them.
    Drop,
    /// The child waits, as it would without us. When the reader is gone, the child meets a closed pipe too.
    Wait,
}

/// One of the agent's own streams; cheap to clone.
#[derive(Debug, Clone)]
pub struct Mirror {
    queue: mpsc::Sender<Bytes>,
    when_stuck: Stuck,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    stuck: AtomicBool,
    /// Nobody reads any more.
    closed: AtomicBool,
    /// Nobody waits for the reader any more.
    hurried: AtomicBool,
}

impl Mirror {
    /// Writes to `sink` from a thread of its own.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn spawn(mut sink: impl Write + Send + 'static, when_stuck: Stuck) -> io::Result<Self> {
        let (queue, mut chunks) = mpsc::channel::<Bytes>(QUEUE);
        let state = Arc::new(State::default());
        let of_thread = state.clone();
        std::thread::Builder::new().spawn(move || {
            while let Some(chunk) = chunks.blocking_recv() {
                if sink.write_all(&chunk).and_then(|()| sink.flush()).is_err() {
                    of_thread.closed.store(true, Ordering::Relaxed);
                }
            }
        })?;
        Ok(Self { queue, when_stuck, state })
    }

    /// Repeats a piece of output; waits for room. Safe to cancel, but the piece may then be missing here.
    pub async fn write(&self, chunk: Bytes) {
        match self.queue.try_send(chunk) {
            Ok(()) => self.state.stuck.store(false, Ordering::Relaxed),
            Err(TrySendError::Full(chunk)) if self.when_stuck == Stuck::Wait => {
                let _ = self.queue.send(chunk).await;
            }
            Err(TrySendError::Full(chunk)) if !self.state.stuck.load(Ordering::Relaxed) => {
                let sent = tokio::time::timeout(PATIENCE, self.queue.send(chunk)).await;
                self.state.stuck.store(sent.is_err(), Ordering::Relaxed);
            }
            Err(_) => {}
        }
    }

    /// The child should meet a closed pipe.
    pub fn is_over(&self) -> bool {
        self.when_stuck == Stuck::Wait && self.state.closed.load(Ordering::Relaxed)
    }

    /// The time is up: the exit waits for the reader no longer than the patience.
    pub fn hurry(&self) {
        self.state.hurried.store(true, Ordering::Relaxed);
    }

    /// Waits until what was queued is written. If output may be dropped, or time is up, not for ever.
    pub fn flush(&self) {
        let begun = Instant::now();
        let waits = || match self.when_stuck {
            Stuck::Wait if !self.state.hurried.load(Ordering::Relaxed) => true,
            Stuck::Wait | Stuck::Drop => begun.elapsed() < PATIENCE,
        };
        while self.queue.capacity() < QUEUE && waits() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// For the log: a line is queued, or dropped when the reader is stuck.
impl Write for Mirror {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = self.queue.try_send(Bytes::copy_from_slice(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
