//! A job's log in this process: appends are combined into groups, readers follow the committed offset.
//!
//! Locks are taken in this order: the log's lock (between processes), then `log_state` (short, within this process).

mod append;
mod read;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use sqlflow_sync::lock;
use tokio::sync::watch;
use tokio::time::Instant;

use super::blocking::run_blocking;
use super::folder::Folder;
use super::lock::{JobLock, LOCK_WAIT, Tried, Waiting};
use super::log_cache::{self, CachedLog};
use super::log_state::{LogState, Refreshed};
use super::{LogError, LogOptions};
use append::Queue;

/// Result of a query without waiting.
enum Looked<T> {
    Answer(T),
    /// It needs the lock, which another process holds.
    Busy(Waiting),
}

/// A job's log. Its state is a cache, and may be dropped while it is not in use.
pub(super) struct JobLog {
    folder: Folder,
    options: Arc<LogOptions>,
    view: Mutex<Option<LogState>>,
    queue: Mutex<Queue>,
    position: watch::Sender<u64>,
    /// Lowest position that readers see for records of this process.
    floor: AtomicU64,
    used: AtomicU64,
}

impl JobLog {
    pub(super) fn new(folder: Folder, options: Arc<LogOptions>) -> Self {
        let floor = AtomicU64::new(folder.floor(options.opened_micros));
        Self {
            folder,
            options,
            floor,
            view: Mutex::default(),
            queue: Mutex::default(),
            position: watch::Sender::new(0),
            used: AtomicU64::new(0),
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.position.subscribe()
    }

    /// Queries a state that covers all durable records.
    pub(super) async fn look<T: Send + 'static>(
        self: &Arc<Self>,
        ask: impl Fn(&LogState) -> T + Send + Sync + 'static,
    ) -> Result<T, LogError> {
        let ask = Arc::new(ask);
        let begun = Instant::now();
        loop {
            let (this, asked) = (Arc::clone(self), Arc::clone(&ask));
            let waiting = match run_blocking(move || this.look_if_free(&*asked)).await? {
                Looked::Answer(answer) => return Ok(answer),
                Looked::Busy(waiting) if begun.elapsed() >= LOCK_WAIT => return Err(waiting.busy()),
                Looked::Busy(waiting) => waiting,
            };
            if let Some(held) = self.wait_for_view(waiting).await? {
                let this = Arc::clone(self);
                return run_blocking(move || this.catch_up(Some(&held), &*ask)).await;
            }
        }
    }

    fn look_if_free<T>(&self, ask: impl Fn(&LogState) -> T) -> Result<Looked<T>, LogError> {
        {
            let mut slot = lock(&self.view);
            if LogState::refresh(&mut slot, &self.folder)? == Refreshed::Current
                && let Some(view) = slot.as_ref()
            {
                self.notify(view);
                return Ok(Looked::Answer(ask(view)));
            }
        }
        match JobLock::try_if_there(&self.folder)? {
            Tried::Busy(waiting) => Ok(Looked::Busy(waiting)),
            Tried::Held(held) => self.catch_up(Some(&held), ask).map(Looked::Answer),
            Tried::NoFolder => self.catch_up(None, ask).map(Looked::Answer),
        }
    }

    /// Queries the state under the log's lock; without a lock file there is no log.
    fn catch_up<T>(&self, held: Option<&JobLock>, ask: impl Fn(&LogState) -> T) -> Result<T, LogError> {
        let mut slot = lock(&self.view);
        let view = match held {
            Some(held) => LogState::catch_up(&mut slot, &self.folder, held)?,
            None => slot.insert(LogState::default()),
        };
        self.notify(view);
        Ok(ask(view))
    }

    /// Waits until the lock is free. `None`: it is no longer needed, because a write has ended or the log was deleted.
    async fn wait_for_view(self: &Arc<Self>, mut waiting: Waiting) -> Result<Option<JobLock>, LogError> {
        while !waiting.was_long_enough() {
            tokio::time::sleep(waiting.next_pause()).await;
            let this = Arc::clone(self);
            let tried = run_blocking(move || {
                if LogState::refresh(&mut lock(&this.view), &this.folder)? == Refreshed::Current {
                    return Ok(None);
                }
                waiting.try_again()
            });
            waiting = match tried.await? {
                Some(Tried::Held(held)) => return Ok(Some(held)),
                Some(Tried::NoFolder) | None => return Ok(None),
                Some(Tried::Busy(waiting)) => waiting,
            };
        }
        Err(waiting.busy())
    }

    /// `None`: the log was deleted in the meantime.
    async fn wait_for_lock(self: &Arc<Self>, mut waiting: Waiting) -> Result<Option<JobLock>, LogError> {
        while !waiting.was_long_enough() {
            tokio::time::sleep(waiting.next_pause()).await;
            let this = Arc::clone(self);
            let tried = run_blocking(move || match waiting.try_again()? {
                Some(tried) => Ok(tried),
                None => JobLock::try_if_there(&this.folder),
            });
            waiting = match tried.await? {
                Tried::Held(held) => return Ok(Some(held)),
                Tried::NoFolder => return Ok(None),
                Tried::Busy(waiting) => waiting,
            };
        }
        Err(waiting.busy())
    }

    pub(super) async fn delete(self: &Arc<Self>) -> Result<(), LogError> {
        let this = Arc::clone(self);
        let held = match run_blocking(move || JobLock::try_if_there(&this.folder)).await? {
            Tried::Held(held) => Some(held),
            Tried::NoFolder => None,
            Tried::Busy(waiting) => self.wait_for_lock(waiting).await?,
        };
        let this = Arc::clone(self);
        run_blocking(move || {
            *lock(&this.view) = None;
            if held.is_some() {
                this.folder.remove()?;
            }
            this.folder.sweep_removed()
        })
        .await
    }

    fn notify(&self, view: &LogState) {
        log_cache::notify_watchers(&self.position, view.summary.reader_last_position());
    }
}

impl CachedLog for JobLog {
    fn is_watched(&self) -> bool {
        self.position.receiver_count() > 0
    }

    fn has_ended(&self) -> bool {
        lock(&self.view).as_ref().is_none_or(|view| view.summary.is_closed || view.committed.is_none())
    }

    fn used(&self) -> &AtomicU64 {
        &self.used
    }
}
