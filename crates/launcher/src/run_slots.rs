//! Run slots of this machine: a limit of the agents that run at a time. Attempts wait for a slot in the order of their
//! jobs, oldest first.
//!
//! A slot is a lock (flock) on its own file. The agent inherits the open file as its stdin, so the kernel frees the
//! slot when the agent ends, whatever happens to the server. Agents of earlier servers, and of other servers on the
//! same state folder, are thus counted too. Each server has its own queue: two servers share slots, not a queue.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlflow_os::exhaustion::with_remedy;
use sqlflow_sync::lock;
use tokio::sync::watch;

use sqlflow_job::AttemptId;

/// Interval at which the first in the queue checks whether agents of other servers have freed a slot. Exits of this
/// process's agents wake it at once.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// The slots, and this process's queue for them.
#[derive(Clone)]
pub(super) struct RunSlots(Arc<Inner>);

struct Inner {
    /// Folder of the files.
    dir: PathBuf,
    /// Number of slots; `None`: no limit.
    limit: Option<NonZeroUsize>,
    queue: Mutex<BTreeSet<AttemptId>>,
    /// Changes when the queue does, and when an agent of this process has exited.
    changes: watch::Sender<()>,
    /// Last logged error of an unusable slot.
    logged: Mutex<Option<String>>,
}

/// Response to the request for a slot.
#[derive(Debug)]
pub(super) enum SlotRequest {
    /// A slot, which is freed when all copies of its file are closed.
    Taken(RunSlot),
    /// No slot is free, or other attempts come first.
    Wait {
        /// Number of attempts of this server's queue that come first.
        before: usize,
    },
}

/// The right to run one agent.
#[derive(Debug)]
pub(super) struct RunSlot(Option<File>);

impl RunSlot {
    /// A slot that does not count.
    pub(super) const fn uncounted() -> Self {
        Self(None)
    }

    /// The stdin for the agent, which reads nothing from it.
    pub(super) fn into_stdin(self) -> Stdio {
        self.0.map_or_else(Stdio::null, Stdio::from)
    }
}

impl RunSlots {
    pub(super) fn new(dir: PathBuf, limit: Option<NonZeroUsize>) -> Self {
        let queue = Mutex::default();
        let changes = watch::Sender::new(());
        Self(Arc::new(Inner { dir, limit, queue, changes, logged: Mutex::default() }))
    }

    /// Adds the attempt to the queue; `None` if there is no limit.
    pub(super) fn queue(&self, attempt: &AttemptId) -> Option<Ticket> {
        self.0.limit?;
        lock(&self.0.queue).insert(attempt.clone());
        let changes = self.0.changes.subscribe();
        Some(Ticket { slots: self.clone(), attempt: attempt.clone(), changes })
    }

    /// Takes a free slot if the attempt is first. It stays in the queue until it leaves it.
    ///
    /// # Errors
    /// No slot is held by an agent, and none can be used: the files cannot be created, opened or locked.
    pub(super) async fn take(&self, attempt: &AttemptId) -> io::Result<SlotRequest> {
        let Some(limit) = self.0.limit else { return Ok(SlotRequest::Taken(RunSlot::uncounted())) };
        let before = self.before(attempt);
        if before > 0 {
            return Ok(SlotRequest::Wait { before });
        }
        let slots = Arc::clone(&self.0);
        let found = tokio::task::spawn_blocking(move || look(&slots.dir, limit.get())).await;
        let found = found.map_err(io::Error::other)??;
        self.log(found.broken.as_ref());
        match found {
            SlotScan { free: Some(file), .. } => Ok(SlotRequest::Taken(RunSlot(Some(file)))),
            // Its agent will free it at some time.
            SlotScan { free: None, is_held: true, .. } | SlotScan { broken: None, .. } => {
                Ok(SlotRequest::Wait { before })
            }
            SlotScan { broken: Some(error), .. } => Err(error),
        }
    }

    /// Logs a changed error of an unusable slot. Slots are checked several times a second.
    fn log(&self, broken: Option<&io::Error>) {
        let error = broken.map(ToString::to_string);
        let mut logged = lock(&self.0.logged);
        if *logged != error {
            if let Some(error) = &error {
                tracing::warn!(error, "a slot for an agent cannot be used and counts as held");
            }
            *logged = error;
        }
    }

    /// Removes the attempt from the queue.
    pub(super) fn leave(&self, attempt: &AttemptId) {
        if lock(&self.0.queue).remove(attempt) {
            self.wake();
        }
    }

    /// Wakes waiters, because a slot may be free.
    pub(super) fn wake(&self) {
        self.0.changes.send_replace(());
    }

    fn before(&self, attempt: &AttemptId) -> usize {
        lock(&self.0.queue).range(..attempt).count()
    }
}

/// An attempt's place in the queue, until it is dropped.
pub struct Ticket {
    slots: RunSlots,
    attempt: AttemptId,
    changes: watch::Receiver<()>,
}

impl Ticket {
    /// Waits until the attempt may be first, or the number of those before it may have changed.
    pub async fn changed(&mut self) {
        if self.slots.before(&self.attempt) > 0 {
            // The sender lives as long as this ticket.
            let _ = self.changes.changed().await;
            return;
        }
        tokio::select! {
            _ = self.changes.changed() => {}
            () = tokio::time::sleep(LOOK_PERIOD) => {}
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.slots.leave(&self.attempt);
    }
}

/// State of all slots.
struct SlotScan {
    /// A slot was free, and is now locked.
    free: Option<File>,
    /// All usable slots are held by agents.
    is_held: bool,
    /// The error of a slot that cannot be opened or locked.
    broken: Option<io::Error>,
}

/// State of a slot.
enum SlotState {
    /// It was free, and is now locked.
    Free(File),
    Held,
    /// Its file cannot be opened or locked. An agent may hold it.
    Broken(io::Error),
}

/// Locks a free slot. Held slots beyond the limit count too, because the limit may have been higher. An unusable one
/// counts as held, so that the limit is not exceeded.
fn look(dir: &Path, limit: usize) -> io::Result<SlotScan> {
    let cannot = |error| about(dir, &error);
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(cannot)?;
    let mut beyond = BTreeSet::new();
    for entry in fs::read_dir(dir).map_err(cannot)? {
        let number = entry.map_err(cannot)?.file_name().to_str().and_then(|name| name.parse::<usize>().ok());
        beyond.extend(number.filter(|number| *number >= limit));
    }
    let mut found = SlotScan { free: None, is_held: false, broken: None };
    let mut used = 0;
    for number in beyond.into_iter().chain(0..limit) {
        match lock_slot(dir, number) {
            // It is only checked.
            SlotState::Free(_) if number >= limit => continue,
            SlotState::Free(file) => {
                found.free = found.free.or(Some(file));
                if used == 0 {
                    return Ok(found);
                }
                continue;
            }
            SlotState::Held => found.is_held = true,
            SlotState::Broken(error) => found.broken = Some(error),
        }
        used += 1;
    }
    found.free = found.free.filter(|_| used < limit);
    Ok(found)
}

/// Locks the slot's file.
fn lock_slot(dir: &Path, number: usize) -> SlotState {
    let path = dir.join(number.to_string());
    // Created if missing, and read-only, because it becomes the stdin of a process.
    let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_CREAT).mode(0o600).open(&path);
    let file = match opened {
        Ok(file) => file,
        Err(error) => return SlotState::Broken(about(&path, &error)),
    };
    match file.try_lock() {
        Ok(()) => SlotState::Free(file),
        Err(TryLockError::WouldBlock) => SlotState::Held,
        Err(TryLockError::Error(error)) => SlotState::Broken(about(&path, &error)),
    }
}

/// The error with its file.
fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {}", path.display(), with_remedy(error)))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use sqlflow_job::JobId;

    use super::*;

    fn slots(dir: &Path, limit: usize) -> RunSlots {
        RunSlots::new(dir.join("places"), NonZeroUsize::new(limit))
    }

    /// Attempts of three jobs, the oldest first.
    fn attempts() -> [AttemptId; 3] {
        let mut jobs = [JobId::generate(), JobId::generate(), JobId::generate()];
        jobs.sort();
        jobs.map(|job| AttemptId { job, step: 0, number: 1 })
    }

    /// `Err`: so many come first.
    async fn take(slots: &RunSlots, attempt: &AttemptId) -> Result<RunSlot, usize> {
        match slots.take(attempt).await.unwrap() {
            SlotRequest::Taken(slot) => Ok(slot),
            SlotRequest::Wait { before } => Err(before),
        }
    }

    #[tokio::test]
    async fn oldest_job_is_first_in_any_arrival_order() {
        let dir = tempfile::tempdir().unwrap();
        let slots = slots(dir.path(), 1);
        let [old, young, youngest] = attempts();
        let taken = take(&slots, &youngest).await.unwrap();
        let mut young_ticket = slots.queue(&young).unwrap();
        let old_ticket = slots.queue(&old).unwrap();
        assert_eq!(take(&slots, &young).await.unwrap_err(), 1);
        assert_eq!(take(&slots, &old).await.unwrap_err(), 0);
        drop(taken);
        assert_eq!(take(&slots, &young).await.unwrap_err(), 1, "it is the other's");
        assert!(young_ticket.changed().now_or_never().is_none(), "nothing has changed for it");
        let taken = take(&slots, &old).await.unwrap();
        drop(old_ticket);
        young_ticket.changed().await;
        assert_eq!(take(&slots, &young).await.unwrap_err(), 0);
        drop(taken);
        take(&slots, &young).await.unwrap();
    }

    /// As of an agent that an earlier server started.
    #[tokio::test]
    async fn slot_is_held_by_inheriting_process() {
        let dir = tempfile::tempdir().unwrap();
        let [attempt, ..] = attempts();
        let slot = take(&slots(dir.path(), 1), &attempt).await.unwrap();
        let mut command = tokio::process::Command::new("sleep");
        let mut agent = command.arg("1000").kill_on_drop(true).stdin(slot.into_stdin()).spawn().unwrap();
        // It has the file open as well.
        drop(command);
        let later = slots(dir.path(), 1);
        assert_eq!(take(&later, &attempt).await.unwrap_err(), 0);
        agent.kill().await.unwrap();
        take(&later, &attempt).await.unwrap();
    }

    #[tokio::test]
    async fn slots_beyond_a_lower_limit_count_while_they_are_held() {
        let dir = tempfile::tempdir().unwrap();
        let [attempt, ..] = attempts();
        let (many, few) = (slots(dir.path(), 3), slots(dir.path(), 2));
        let first = take(&many, &attempt).await.unwrap();
        let second = take(&many, &attempt).await.unwrap();
        let third = take(&many, &attempt).await.unwrap();
        drop(first);
        assert_eq!(take(&few, &attempt).await.unwrap_err(), 0);
        drop(third);
        let _taken = take(&few, &attempt).await.unwrap();
        assert_eq!(take(&few, &attempt).await.unwrap_err(), 0);
        drop(second);
        take(&few, &attempt).await.unwrap();
    }

    /// A folder cannot be opened as a slot is, not even by root.
    fn break_slot(dir: &Path, number: usize) -> PathBuf {
        let path = dir.join("places").join(number.to_string());
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[tokio::test]
    async fn unusable_slot_counts_as_held() {
        let dir = tempfile::tempdir().unwrap();
        let [attempt, ..] = attempts();
        let slots = slots(dir.path(), 2);
        break_slot(dir.path(), 0);
        let taken = take(&slots, &attempt).await.unwrap();
        assert_eq!(take(&slots, &attempt).await.unwrap_err(), 0, "an agent holds the other");
        drop(taken);
        take(&slots, &attempt).await.unwrap();
    }

    #[tokio::test]
    async fn unusable_slot_is_named_when_none_is_free() {
        for number in [0, 7] {
            let dir = tempfile::tempdir().unwrap();
            let [attempt, ..] = attempts();
            let path = break_slot(dir.path(), number);
            let error = slots(dir.path(), 1).take(&attempt).await.unwrap_err();
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            fs::remove_dir(path).unwrap();
            take(&slots(dir.path(), 1), &attempt).await.unwrap();
        }
    }

    #[tokio::test]
    async fn without_a_limit_there_is_no_queue_and_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let slots = slots(dir.path(), 0);
        let [attempt, ..] = attempts();
        assert!(slots.queue(&attempt).is_none());
        take(&slots, &attempt).await.unwrap();
        assert!(!dir.path().join("places").exists());
    }
}
