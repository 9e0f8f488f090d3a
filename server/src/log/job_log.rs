//! One job's log in this process: appends are gathered into groups, readers follow the mark.
//!
//! Locks are taken in this order: the log's lock (between processes), then `view` (short, within this process).

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use super::folder::Folder;
use super::lock::JobLock;
use super::plan::plan_append;
use super::read::ReadPlan;
use super::retention::Retention;
use super::summary::SealedAttempt;
use super::view::View;
use super::write::Batch;
use super::{Appended, Entry, LogError, LogOptions, Page};

/// Bytes of records that one write takes at the most, unless a single append has more.
const GROUP_BYTES: usize = 16 * 1024 * 1024;
/// How often a page is planned anew because retention replaced a file.
const READ_TRIES: u32 = 10;

/// What to add.
pub(super) enum Addition {
    Entries(Vec<Entry>),
    Seal(SealedAttempt),
}

type Reply = oneshot::Sender<Result<Appended, LogError>>;

struct Request {
    addition: Addition,
    bytes: usize,
    reply: Reply,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Request>,
    /// Somebody works on the queue.
    is_served: bool,
}

/// One job's log. Its state is a cache: it may be dropped whenever nobody uses it.
pub(super) struct JobLog {
    folder: Folder,
    options: Arc<LogOptions>,
    view: Mutex<Option<View>>,
    queue: Mutex<Queue>,
    position: watch::Sender<u64>,
    /// When it was last asked for, by the clock of `SegmentLog`.
    pub(super) used: AtomicU64,
}

impl JobLog {
    pub(super) fn new(folder: Folder, options: Arc<LogOptions>) -> Self {
        Self {
            folder,
            options,
            view: Mutex::default(),
            queue: Mutex::default(),
            position: watch::Sender::new(0),
            used: AtomicU64::new(0),
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.position.subscribe()
    }

    pub(super) fn is_watched(&self) -> bool {
        self.position.receiver_count() > 0
    }

    /// Adds to the log, together with what others add at the same time.
    pub(super) async fn add(self: &Arc<Self>, addition: Addition) -> Result<Appended, LogError> {
        let bytes = match &addition {
            Addition::Entries(entries) => {
                entries.iter().map(|entry| prost::Message::encoded_len(&entry.record)).sum()
            }
            Addition::Seal(_) => 0,
        };
        let (reply, answer) = oneshot::channel();
        let must_serve = {
            let mut queue = lock(&self.queue);
            queue.waiting.push_back(Request { addition, bytes, reply });
            !std::mem::replace(&mut queue.is_served, true)
        };
        if must_serve {
            let this = Arc::clone(self);
            tokio::task::spawn_blocking(move || this.serve_queue());
        }
        answer.await.unwrap_or_else(|_| {
            let gone = std::io::Error::other("the writer of the log ended unexpectedly");
            Err(LogError::io("append to", &self.folder.path)(gone))
        })
    }

    /// Writes groups until nothing waits.
    fn serve_queue(&self) {
        /// Lets others serve the queue, should this panic.
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
        loop {
            let mut group = Vec::new();
            {
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
                    return;
                }
            }
            self.write_group(group);
        }
    }

    fn write_group(&self, group: Vec<Request>) {
        let locked = JobLock::acquire(&self.folder).and_then(|held| {
            let mut slot = lock(&self.view);
            let view = View::catch_up(&mut slot, &self.folder, &held)?;
            self.notify(view);
            Ok((Batch::new(view, self.options.segment_bytes), held))
        });
        let (mut batch, held) = match locked {
            Ok(locked) => locked,
            Err(error) => {
                for request in group {
                    let _ = request.reply.send(Err(error.duplicate()));
                }
                return;
            }
        };
        let mut accepted: Vec<(Reply, Vec<(u32, u32)>)> = Vec::new();
        for Request { addition, reply, .. } in group {
            match self.take(&mut batch, addition) {
                Ok(attempts) => accepted.push((reply, attempts)),
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
        for (reply, attempts) in accepted {
            let last_seqs: BTreeMap<_, _> =
                attempts.into_iter().map(|key| (key, summary.last_seq(key.0, key.1))).collect();
            // The caller may have gone.
            let _ = reply.send(Ok(Appended {
                last_position: summary.last_position,
                last_seqs,
                is_full: summary.is_full,
            }));
        }
        if begins_segment {
            self.retain(summary.removable_bytes);
        }
    }

    /// Plans an addition; returns the attempts that it is about.
    fn take(&self, batch: &mut Batch, addition: Addition) -> Result<Vec<(u32, u32)>, LogError> {
        match addition {
            Addition::Entries(entries) => {
                let mut attempts: Vec<_> =
                    entries.iter().filter(|it| it.attempt > 0).map(|it| (it.step, it.attempt)).collect();
                attempts.dedup();
                let records = plan_append(&batch.summary, entries, self.options.max_bytes_per_job)?;
                batch.add(&records);
                Ok(attempts)
            }
            Addition::Seal(seal) => {
                if !batch.summary.is_sealed(seal.step, seal.attempt) {
                    batch.seal(seal);
                }
                Ok(vec![(seal.step, seal.attempt)])
            }
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
                // What is on disk now is for the next look to find out.
                *slot = None;
                Err(error)
            }
        }
    }

    /// The lock must be held. A failure is no reason to refuse records; the next segment tries again.
    fn retain(&self, removable_bytes: u64) {
        let retention = Retention {
            limit: self.options.retain_output_bytes_per_job,
            segment_bytes: self.options.segment_bytes,
        };
        let retained = retention.apply(&self.folder, removable_bytes).and_then(|()| self.folder.list());
        match (retained, lock(&self.view).as_mut()) {
            (Ok(listing), Some(view)) => view.segments = listing.segments,
            (Ok(_), None) => {}
            (Err(error), _) => {
                tracing::warn!(log = %self.folder.path.display(), error = describe(&error), "could not drop old output");
            }
        }
    }

    /// Asks the current view.
    pub(super) fn look<T>(&self, ask: impl FnOnce(&mut View) -> T) -> Result<T, LogError> {
        {
            let mut slot = lock(&self.view);
            if View::refresh(&mut slot, &self.folder)?
                && let Some(view) = slot.as_mut()
            {
                self.notify(view);
                return Ok(ask(view));
            }
        }
        let held = JobLock::acquire_if_there(&self.folder)?;
        let mut slot = lock(&self.view);
        let view = match &held {
            Some(held) => View::catch_up(&mut slot, &self.folder, held)?,
            None => slot.insert(View::default()),
        };
        self.notify(view);
        Ok(ask(view))
    }

    pub(super) fn read(&self, after: u64, max_bytes: usize) -> Result<Page, LogError> {
        let max_bytes = max_bytes as u64;
        let mut tries = 0;
        loop {
            tries += 1;
            let (plan, last_position) =
                self.look(|view| (ReadPlan::new(view, after), view.summary.last_position))?;
            let Some(plan) = plan? else { return Ok(Page { records: Vec::new(), last_position }) };
            match plan.read(&self.folder, max_bytes) {
                Ok(found) => {
                    if let (Some((name, index)), Some(view)) = (found.index, lock(&self.view).as_mut()) {
                        view.cache_index(name, index);
                    }
                    return Ok(Page { records: found.records, last_position });
                }
                // Retention replaced a file, or the log was deleted: look again at what there is.
                Err(error) if error.is_not_found() && tries < READ_TRIES => *lock(&self.view) = None,
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn delete(&self) -> Result<(), LogError> {
        let held = JobLock::acquire_if_there(&self.folder)?;
        let mut slot = lock(&self.view);
        *slot = None;
        if held.is_some() {
            self.folder.remove()?;
        }
        self.folder.sweep_removed()
    }

    fn notify(&self, view: &View) {
        let last = view.summary.last_position;
        self.position.send_if_modified(|known| {
            let is_news = *known < last;
            *known = last.max(*known);
            is_news
        });
    }
}

fn describe(error: &LogError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
