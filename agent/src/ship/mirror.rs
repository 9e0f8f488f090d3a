//! The child's output and the agent's log on the agent's own stdout and stderr. A reader that is stuck there (a full
//! pipe nobody empties) costs a bounded wait once and a bounded queue; then bytes are dropped here, and only here.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Chunks of at most 64 KiB that may wait.
const QUEUE: usize = 32;
/// How long the child's output waits for a stuck reader, once.
const PATIENCE: Duration = Duration::from_secs(1);

/// One of the agent's own streams; cheap to clone.
#[derive(Debug, Clone)]
pub struct Mirror {
    queue: mpsc::Sender<Bytes>,
    stuck: Arc<AtomicBool>,
}

impl Mirror {
    /// Writes to `sink` from a thread of its own.
    pub fn spawn(mut sink: impl Write + Send + 'static) -> Self {
        let (queue, mut chunks) = mpsc::channel::<Bytes>(QUEUE);
        std::thread::spawn(move || {
            while let Some(chunk) = chunks.blocking_recv() {
                // Nobody is there to be told that nobody reads.
                let _ = sink.write_all(&chunk).and_then(|()| sink.flush());
            }
        });
        Self { queue, stuck: Arc::default() }
    }

    /// Repeats a piece of output; waits for room, but not for a reader that is stuck.
    pub async fn write(&self, chunk: Bytes) {
        match self.queue.try_send(chunk) {
            Ok(()) => self.stuck.store(false, Ordering::Relaxed),
            Err(TrySendError::Full(chunk)) if !self.stuck.load(Ordering::Relaxed) => {
                let sent = tokio::time::timeout(PATIENCE, self.queue.send(chunk)).await;
                self.stuck.store(sent.is_err(), Ordering::Relaxed);
            }
            Err(_) => {}
        }
    }

    /// Waits until what was queued is written, or the patience is over.
    pub fn flush(&self) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.queue.capacity() < QUEUE && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// For the log: a line is queued, or dropped when the reader is stuck.
impl Write for Mirror {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let _ = self.queue.try_send(Bytes::copy_from_slice(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
