//! Appends to a job's log, combined into groups.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sqlflow_sync::lock;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::JobLog;
use crate::lock::{JobLock, LOCK_WAIT, Tried, Waiting};
use crate::log_state::LogState;
use crate::retention::Retention;
use crate::write::{Addition, Batch};
use crate::{Appended, LogError, Producer};

/// Maximum size of the records of one write, unless a single append is larger.
const GROUP_BYTES: usize = 16 * 1024 * 1024;
type Reply = oneshot::Sender<Result<Appended, LogError>>;

struct Request {
    addition: Addition,
    bytes: usize,
    asked: Instant,
    reply: Reply,
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Request>,
    /// Whether a task processes the queue.
    is_served: bool,
}

/// A group that could not be written, because another process holds the log's lock.
struct Stuck {
    group: Vec<Request>,
    waiting: Waiting,
}

impl JobLog {
    /// Adds to the log, in one group with concurrent additions.
    pub(crate) async fn add(self: &Arc<Self>, addition: Addition) -> Result<Appended, LogError> {
        let bytes = addition.bytes();
        let (reply, answer) = oneshot::channel();
        let must_serve = {
            let mut queue = lock(&self.queue);
            queue.waiting.push_back(Request { addition, bytes, asked: Instant::now(), reply });
            !std::mem::replace(&mut queue.is_served, true)
        };
        if must_serve {
            tokio::spawn(Arc::clone(self).serve_queue());
        }
        answer.await.unwrap_or_else(|_| {
            let gone = std::io::Error::other("the writer of the log ended unexpectedly");
            Err(LogError::io("append to", &self.folder.path)(gone))
        })
    }

    /// Writes groups until the queue is empty. Waiting for the lock blocks no thread.
    async fn serve_queue(self: Arc<Self>) {
        let mut stuck = None;
        loop {
            let this = Arc::clone(&self);
            let mut still = match tokio::task::spawn_blocking(move || this.write_groups(stuck)).await {
                Ok(Some(still)) => still,
                // All requests were answered, even by a panic.
                Ok(None) | Err(_) => return,
            };
            self.give_up_late(&mut still);
            tokio::time::sleep(still.waiting.next_pause()).await;
            stuck = Some(still);
        }
    }

    /// Answers requests whose timeout for the lock has passed. Time before another process held it does not count.
    fn give_up_late(&self, stuck: &mut Stuck) {
        if !stuck.waiting.was_long_enough() {
            return;
        }
        let is_late = |request: &mut Request| request.asked.elapsed() >= LOCK_WAIT;
        let mut late: Vec<Request> = stuck.group.extract_if(.., is_late).collect();
        let mut queue = lock(&self.queue);
        while let Some(request) = queue.waiting.pop_front_if(is_late) {
            late.push(request);
        }
        drop(queue);
        if late.is_empty() {
            return;
        }
        let error = stuck.waiting.busy();
        tracing::warn!(%error, "appends to a result log failed");
        for request in late {
            let _ = request.reply.send(Err(error.duplicate()));
        }
    }

    /// Writes groups until the queue is empty or another process holds the lock; returns what could not be written.
    fn write_groups(&self, stuck: Option<Stuck>) -> Option<Stuck> {
        /// Releases the queue if this panics.
        struct Served<'a>(&'a JobLog);
        impl Drop for Served<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    let mut queue = lock(&self.0.queue);
                    queue.is_served = false;
                    queue.waiting.clear();
                }
            }
        }
        let _served = Served(self);
        let (mut group, mut waiting) = match stuck {
            Some(Stuck { group, waiting }) => (group, Some(waiting)),
            None => (Vec::new(), None),
        };
        loop {
            if group.is_empty() {
                group = self.next_group()?;
            }
            let tried = match waiting.take() {
                Some(waiting) => waiting.try_again(),
                None => Ok(None),
            };
            let tried = tried.and_then(|tried| tried.map_or_else(|| JobLock::try_make(&self.folder), Ok));
            match tried {
                Ok(Tried::Busy(waiting)) => return Some(Stuck { group, waiting }),
                Ok(Tried::Held(held)) => self.write_group(std::mem::take(&mut group), held),
                Ok(Tried::NoFolder) => {}
                Err(error) => {
                    for request in group.drain(..) {
                        let _ = request.reply.send(Err(error.duplicate()));
                    }
                }
            }
        }
    }

    /// The next group of requests; `None`: the queue is empty, and no task processes it from here on.
    fn next_group(&self) -> Option<Vec<Request>> {
        let mut group = Vec::new();
        let mut queue = lock(&self.queue);
        let mut bytes = 0;
        while let Some(request) =
            queue.waiting.pop_front_if(|it| group.is_empty() || bytes + it.bytes <= GROUP_BYTES)
        {
            bytes += request.bytes;
            group.push(request);
        }
        if group.is_empty() {
            queue.is_served = false;
            return None;
        }
        Some(group)
    }

    fn write_group(&self, group: Vec<Request>, held: JobLock) {
        let caught_up = {
            let mut slot = lock(&self.view);
            LogState::catch_up(&mut slot, &self.folder, &held).map(|view| {
                if view.summary.reader_last_position() < *self.position.borrow() {
                    // An older copy was restored while this process ran.
                    self.floor.store(self.folder.floor_now(), Ordering::Relaxed);
                }
                self.notify(view);
                Batch::new(view, self.options.segment_bytes, self.floor.load(Ordering::Relaxed))
            })
        };
        let mut batch = match caught_up {
            Ok(batch) => batch,
            Err(error) => {
                for request in group {
                    let _ = request.reply.send(Err(error.duplicate()));
                }
                return;
            }
        };
        let mut accepted: Vec<(Reply, Vec<Producer>)> = Vec::new();
        for Request { addition, reply, .. } in group {
            match batch.take(addition, self.options.max_bytes_per_job) {
                Ok(producers) => accepted.push((reply, producers)),
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            }
        }
        let begins_segment = batch.begins_segment() && !batch.is_empty();
        let summary = batch.summary.clone();
        if let Err(error) = self.make_durable(batch, &held) {
            for (reply, _) in accepted {
                let _ = reply.send(Err(error.duplicate()));
            }
            return;
        }
        for (reply, producers) in accepted {
            // The caller may have been dropped.
            let _ = reply.send(Ok(Appended::of(&summary, producers)));
        }
        if begins_segment {
            self.retain(summary.removable_bytes, &held);
        }
    }

    fn make_durable(&self, batch: Batch, held: &JobLock) -> Result<(), LogError> {
        if batch.is_empty() {
            return Ok(());
        }
        let written = batch.write(&self.folder, held);
        let mut slot = lock(&self.view);
        match (written, slot.as_mut()) {
            (Ok(committed), Some(view)) => {
                batch.apply(committed, view);
                self.notify(view);
                Ok(())
            }
            (Ok(_), None) => Ok(()),
            (Err(error), _) => {
                // The next query finds out what is on disk now.
                *slot = None;
                Err(error)
            }
        }
    }

    /// The lock must be held. After a failure records are accepted anyway, and the next segment retries.
    fn retain(&self, removable_bytes: u64, held: &JobLock) {
        let retention = Retention {
            limit: self.options.retain_output_bytes_per_job,
            segment_bytes: self.options.segment_bytes,
        };
        let mut applied = retention.apply(&self.folder, removable_bytes);
        if let Err(LogError::Corrupt { file, .. }) = &applied {
            applied = self.repair(held, file).and_then(|()| retention.apply(&self.folder, removable_bytes));
        }
        let retained = applied.and_then(|()| self.folder.list());
        match (retained, lock(&self.view).as_mut()) {
            (Ok(listing), Some(view)) => view.segments = listing.segments,
            (Ok(_), None) => {}
            (Err(error), _) => {
                tracing::warn!(log = %self.folder.path.display(), error = describe(&error), "cannot remove old output");
            }
        }
    }
}

fn describe(error: &LogError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
