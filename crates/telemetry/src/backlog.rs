//! Items in a queue of the SDK. The SDK drops what does not fit, and what is left at the end, without a number. So they are
//! counted here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::Signal;
use crate::exporter::Lost;
use crate::loss_log::LossLog;

/// Counts the items that wait or are being sent, and those that were lost.
#[derive(Debug)]
pub(crate) struct Backlog {
    waiting: AtomicUsize,
    max: usize,
    is_closed: AtomicBool,
    pub(crate) losses: LossLog,
}

impl Backlog {
    /// `max`: number of items for which the queue has room.
    pub(crate) fn new(signal: Signal, max: usize) -> Self {
        let (waiting, is_closed) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { waiting, max, is_closed, losses: LossLog::new(signal) }
    }

    /// Counts an item, which must then be queued. `None`: it must be dropped, because the queue is full or has ended.
    #[must_use]
    pub(crate) fn admit(&self) -> Option<()> {
        if self.is_closed.load(Ordering::Relaxed) {
            // An item of the shutdown itself.
            return None;
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.losses.add(1, "the collector is too slow");
            return None;
        }
        Some(())
    }

    /// Exports items that were admitted. The SDK calls from a thread of its own, outside the Tokio runtime.
    pub(crate) async fn send(
        self: &Arc<Self>,
        runtime: &Handle,
        count: usize,
        export: impl Future<Output = Result<(), Lost>> + Send + 'static,
    ) {
        let backlog = Arc::clone(self);
        let sent = runtime.spawn(async move { backlog.note_sent(count, export.await.err()) });
        if sent.await.is_err() {
            self.note_sent(count, Some(Lost { count, reason: "the program ends".to_owned() }));
        }
    }

    fn note_sent(&self, count: usize, lost: Option<Lost>) {
        let subtract = |waiting: usize| waiting.checked_sub(count);
        if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract).is_err() {
            // `end` has counted them as lost.
            return;
        }
        if let Some(lost) = lost {
            self.losses.add(lost.count, &lost.reason);
        }
    }

    /// Ends the queue by `shutdown`, which blocks, and waits for at most this time.
    pub(crate) async fn end(&self, timeout: Duration, shutdown: impl FnOnce() + Send + 'static) {
        self.is_closed.store(true, Ordering::Relaxed);
        let ended = tokio::task::spawn_blocking(shutdown);
        let _ = tokio::time::timeout(timeout, ended).await;
        let rest = self.waiting.swap(0, Ordering::Relaxed);
        if rest > 0 {
            self.losses.add(rest, "the collector did not accept them within the timeout");
        }
        self.losses.flush();
    }
}
