//! A job's log in this process: appends are combined into groups, readers follow the committed offset.
//!
//! Locks are taken in this order: the log's lock (between processes), then `log_state` (short, within this process).

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sqlflow_sync::mutex::lock;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::blocking::run_blocking;
use super::folder::Folder;
use super::known::{self, KnownLog};
use super::lock::{JobLock, LOCK_WAIT, Tried, Waiting};
use super::log_state::{LogState, Refreshed};
use super::read::PagePlan;
use super::repair::{fill_holes, repair_end, repair_file};
use super::retention::Retention;
use super::shift;
use super::write::{Addition, Batch};
use super::{Appended, LogError, LogOptions, Page, Producer};

/// Maximum size of the records of one write, unless a single append is larger.
const GROUP_BYTES: usize = 16 * 1024 * 1024;
/// Maximum number of times that a page is planned again, because retention replaced a file or damage was repaired.
const READ_TRIES: u32 = 32;

type Reply = oneshot::Sender<Result<Appended, LogError>>;

struct Request {
    addition: Addition,
    bytes: usize,
    asked: Instant,
    reply: Reply,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Request>,
    /// Whether a task processes the queue.
    is_served: bool,
}

/// A group that could not be written, because another process holds the log's lock.
struct Stuck {
    group: Vec<Request>,
    waiting: Waiting,
}

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

    /// Adds to the log, in one group with concurrent additions.
    pub(super) async fn add(self: &Arc<Self>, addition: Addition) -> Result<Appended, LogError> {
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
                if view.summary.shown_last() < *self.position.borrow() {
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
            (Ok(mark), Some(view)) => {
                batch.apply(mark, view);
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
                tracing::warn!(log = %self.folder.path.display(), error = describe(&error), "could not drop old output");
            }
        }
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

    /// The position after which the last `count` positions are, as far as it is known without waiting for another
    /// process.
    pub(super) async fn position_before(self: &Arc<Self>, count: u64) -> Result<u64, LogError> {
        let before = move |view: &LogState| {
            let summary = &view.summary;
            shift::shown(&summary.shifts, summary.last_position.saturating_sub(count))
        };
        let this = Arc::clone(self);
        let known = run_blocking(move || {
            Ok(match this.look_if_free(before)? {
                Looked::Answer(position) => Some(position),
                Looked::Busy(_) => LogState::of_old_offset(&this.folder)?.map(|view| before(&view)),
            })
        });
        match known.await? {
            Some(position) => Ok(position),
            None => self.look(before).await,
        }
    }

    /// A page. While another process holds the log's lock, only records up to the committed offset are read, which may
    /// be no new ones.
    pub(super) async fn read(self: &Arc<Self>, after: u64, max_bytes: usize) -> Result<Page, LogError> {
        let begun = Instant::now();
        loop {
            let this = Arc::clone(self);
            let waiting = match run_blocking(move || this.read_if_free(after, max_bytes)).await? {
                Looked::Answer(page) => return Ok(page),
                Looked::Busy(waiting) => waiting,
            };
            let held = if begun.elapsed() < LOCK_WAIT {
                self.wait_for_view(waiting).await
            } else {
                Err(waiting.busy())
            };
            let this = Arc::clone(self);
            match held {
                Ok(Some(held)) => run_blocking(move || this.catch_up(Some(&held), |_| ())).await?,
                Ok(None) => {}
                // It is stopped, or its disk does not respond. What it was about to add is not acknowledged.
                Err(busy @ LogError::Busy { .. }) => {
                    let known = run_blocking(move || this.read_to_old_mark(after, max_bytes)).await?;
                    return known.ok_or(busy);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn read_if_free(&self, after: u64, max_bytes: usize) -> Result<Looked<Page>, LogError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let planned = match self.look_if_free(|view| PagePlan::new(view, after))? {
                Looked::Answer(planned) => planned,
                Looked::Busy(waiting) => {
                    let known = self.read_to_old_mark(after, max_bytes)?;
                    return Ok(match known.filter(|page| !page.records.is_empty()) {
                        Some(page) => Looked::Answer(page),
                        None => Looked::Busy(waiting),
                    });
                }
            };
            let Some(plan) = &planned.plan else {
                return Ok(Looked::Answer(planned.wanted.page(Vec::new(), true)));
            };
            match plan.read(&self.folder, max_bytes as u64) {
                Ok(found) => {
                    if let (Some((name, index)), Some(view)) = (found.index, lock(&self.view).as_mut()) {
                        view.cache_index(name, index);
                    }
                    return Ok(Looked::Answer(planned.wanted.page(found.records, true)));
                }
                // Retention replaced a file, or the log was deleted: plan again.
                Err(error) if error.is_not_found() && tries < READ_TRIES => *lock(&self.view) = None,
                Err(LogError::Corrupt { file, .. }) if tries < READ_TRIES => {
                    match JobLock::try_if_there(&self.folder)? {
                        Tried::Held(held) => self.repair(&held, &file)?,
                        Tried::Busy(waiting) => return Ok(Looked::Busy(waiting)),
                        Tried::NoFolder => *lock(&self.view) = None,
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Repairs this file, whose read failed, if it is damaged: without the lock it may only have been replaced.
    fn repair(&self, held: &JobLock, file: &Path) -> Result<(), LogError> {
        let mut slot = lock(&self.view);
        *slot = None;
        if let Some(mark) = held.mark()? {
            repair_end(&self.folder, held, mark)?;
            fill_holes(&self.folder, held)?;
        }
        repair_file(&self.folder, held, file)
    }

    /// The next records up to the committed offset, which may be none; `None`: the lock is needed.
    fn read_to_old_mark(&self, after: u64, max_bytes: usize) -> Result<Option<Page>, LogError> {
        let Some(view) = LogState::of_old_offset(&self.folder)? else { return Ok(None) };
        let planned = PagePlan::new(&view, after);
        if planned.wanted.is_beyond_end() {
            return Ok(None);
        }
        let Some(plan) = &planned.plan else { return Ok(Some(planned.wanted.page(Vec::new(), false))) };
        match plan.read(&self.folder, max_bytes as u64) {
            Ok(found) => Ok(Some(planned.wanted.page(found.records, false))),
            // It was replaced, or is damaged; the holder of the lock can find out, or repairs it.
            Err(error) if error.is_not_found() => Ok(None),
            Err(LogError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
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
        known::raise(&self.position, view.summary.shown_last());
    }
}

impl KnownLog for JobLog {
    fn is_watched(&self) -> bool {
        self.position.receiver_count() > 0
    }

    fn has_ended(&self) -> bool {
        lock(&self.view).as_ref().is_none_or(|view| view.summary.is_closed || view.mark.is_none())
    }

    fn used(&self) -> &AtomicU64 {
        &self.used
    }
}

fn describe(error: &LogError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
