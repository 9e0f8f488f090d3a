//! The writing connection of this process, and its thread. Writes that arrive during a commit share the next one (group
//! commit): one transaction and one sync for all. A failed write is undone alone. All callers are answered after the
//! transaction, even refused ones, because a refusal may depend on another write of the group.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sqlflow_sync::lock;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::lock_holder;
use crate::types::{StoreError, UpdateError};

/// Capacity of the queue. Callers beyond it wait for room, at most for the turn timeout.
const QUEUE: usize = 1024;
/// Maximum number of writes in a transaction, and time after which it takes no more: the writes wait for its commit,
/// and other processes for its end.
const GROUP: usize = 256;
const GROUP_TIME: Duration = Duration::from_millis(20);
/// Duration beyond which a transaction is logged: another process writes, or the disk is slow.
const SLOW: Duration = Duration::from_secs(1);

/// Order and durability of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Before all queued writes, and in its own transaction, so that no other write makes it fail. For heartbeats:
    /// while one is late, other servers may take this one for dead.
    First,
    /// In order of arrival.
    InOrder,
    /// In order of arrival, but the commit is not synced: a power failure may undo it, the death of the server does
    /// not. The next synced commit makes it durable too. `First` is not synced either.
    Unsynced,
}

/// Opens a connection to the state file.
pub(super) type Open = Box<dyn Fn() -> rusqlite::Result<Connection> + Send>;

/// Sends writes to the thread with the connection.
pub(super) struct Writer {
    first: mpsc::Sender<Box<dyn Write>>,
    in_order: mpsc::Sender<Box<dyn Write>>,
    closing: CancellationToken,
    /// Ends with the thread.
    thread: Mutex<Option<oneshot::Receiver<()>>>,
    /// Turn timeout: the time for which a write waits until it begins.
    turn_timeout: Duration,
    path: PathBuf,
}

impl Writer {
    /// A writer with an open connection to the database at `path`. A failed connection is replaced. A write that has
    /// not begun within `turn_timeout` is refused.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn begin(
        connection: Connection,
        open: Open,
        path: PathBuf,
        turn_timeout: Duration,
    ) -> io::Result<Self> {
        let (first, firsts) = mpsc::channel(QUEUE);
        let (in_order, in_orders) = mpsc::channel(QUEUE);
        let closing = CancellationToken::new();
        let queue = Queue { firsts, in_orders, closing: closing.clone(), waiting: VecDeque::new() };
        let groups =
            Groups { queue, connection: Some(connection), is_synced: None, open, path: path.clone() };
        let (ended, thread) = oneshot::channel();
        std::thread::Builder::new().name("state-writer".to_owned()).spawn(move || {
            groups.run();
            drop(ended);
        })?;
        Ok(Self { first, in_order, closing, thread: Mutex::new(Some(thread)), turn_timeout, path })
    }

    /// Does the work in a transaction, even if the caller is dropped, and returns once it is durable.
    pub(super) async fn write<T, E, F>(&self, turn: Turn, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: WriteError + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let queue = match turn {
            Turn::First => &self.first,
            Turn::InOrder | Turn::Unsynced => &self.in_order,
        };
        let (told, mut result) = oneshot::channel();
        let start = Start::within(self.turn_timeout);
        let write = Work { work: Some(work), done: None, told, start: start.clone(), turn };
        let begin_in_time = async {
            queue.send(Box::new(write)).await.map_err(|_| StoreError::Closing)?;
            Ok::<_, StoreError>((&mut result).await)
        };
        let told = match tokio::time::timeout(self.turn_timeout, begin_in_time).await {
            Ok(told) => told?,
            // It has not begun, and will not.
            Err(_) if start.take() => return Err(lock_holder::refusal(&self.path).into()),
            Err(_) => result.await,
        };
        told.unwrap_or_else(|_| {
            // Its turn came too late, or not at all.
            let is_closing = self.closing.is_cancelled();
            Err(if is_closing { StoreError::Closing } else { lock_holder::refusal(&self.path) }.into())
        })
    }

    /// Closes the queue, and returns when the accepted writes have ended.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            let _ = thread.await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The thread ends, and with it the connection.
        self.closing.cancel();
    }
}

/// An error of a write.
pub(crate) trait WriteError: From<StoreError> {
    /// The store's error; `None`: the write was refused.
    fn of_store(&self) -> Option<&StoreError>;
}

impl WriteError for StoreError {
    fn of_store(&self) -> Option<&StoreError> {
        Some(self)
    }
}

impl WriteError for UpdateError {
    fn of_store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            Self::NotFound | Self::Fenced | Self::Rejected(_) => None,
        }
    }
}

/// Whether a write has begun or its caller has given up, whichever comes first.
#[derive(Clone)]
struct Start {
    taken: Arc<AtomicBool>,
    until: Instant,
}

impl Start {
    fn within(timeout: Duration) -> Self {
        Self { taken: Arc::default(), until: Instant::now() + timeout }
    }

    /// Takes it; returns whether it was not taken before.
    fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::AcqRel)
    }

    /// Whether the write may begin now. Even if its caller is gone, it must not begin late.
    fn begin(&self) -> bool {
        Instant::now() < self.until && self.take()
    }
}

/// A write and its caller.
trait Write: Send {
    /// Whether it may begin now.
    fn begin(&self) -> bool;
    fn turn(&self) -> Turn;
    /// Does the write within a transaction; returns whether it is kept.
    fn run(&mut self, connection: &Connection) -> bool;
    /// The store's error of the write.
    fn failure(&self) -> Option<&StoreError>;
    /// Answers the caller. `end` is the result of the transaction, or the reason for which it was not begun.
    fn settle(self: Box<Self>, end: Result<(), StoreError>);
}

struct Work<T, E, F> {
    work: Option<F>,
    done: Option<Result<T, E>>,
    told: oneshot::Sender<Result<T, E>>,
    start: Start,
    turn: Turn,
}

impl<T, E, F> Write for Work<T, E, F>
where
    T: Send,
    E: WriteError + Send,
    F: FnOnce(&Connection) -> Result<T, E> + Send,
{
    fn begin(&self) -> bool {
        self.start.begin()
    }

    fn turn(&self) -> Turn {
        self.turn
    }

    fn run(&mut self, connection: &Connection) -> bool {
        let Some(work) = self.work.take() else { return false };
        self.done = catch_unwind(AssertUnwindSafe(|| work(connection))).ok();
        self.done.as_ref().is_some_and(Result::is_ok)
    }

    fn failure(&self) -> Option<&StoreError> {
        self.done.as_ref()?.as_ref().err()?.of_store()
    }

    fn settle(self: Box<Self>, end: Result<(), StoreError>) {
        let has_failed = self.failure().is_some();
        let result = match (self.done, end) {
            (Some(Err(error)), _) if has_failed => Err(error),
            (_, Err(error)) => Err(error.into()),
            (Some(done), Ok(())) => done,
            // It panicked.
            (None, Ok(())) => Err(StoreError::Closing.into()),
        };
        // The caller may be gone.
        let _ = self.told.send(result);
    }
}

/// Queued writes.
struct Queue {
    firsts: mpsc::Receiver<Box<dyn Write>>,
    in_orders: mpsc::Receiver<Box<dyn Write>>,
    /// Whether the queue is closed.
    closing: CancellationToken,
    /// Taken out of the channels, in the order in which they are written.
    waiting: VecDeque<Box<dyn Write>>,
}

impl Queue {
    /// Waits for a write; `None`: the queue is closed and empty.
    async fn wait(&mut self) -> Option<()> {
        while self.waiting.is_empty() {
            tokio::select! {
                biased;
                Some(write) = self.firsts.recv() => self.waiting.push_back(write),
                Some(write) = self.in_orders.recv() => self.waiting.push_back(write),
                () = self.closing.cancelled(), if !(self.firsts.is_closed() && self.in_orders.is_closed()) => {
                    self.firsts.close();
                    self.in_orders.close();
                }
                else => return None,
            }
        }
        Some(())
    }

    /// Whether there is a write with priority.
    fn has_first(&self) -> bool {
        !self.firsts.is_empty()
    }

    /// Whether the next group has a write that must be durable when it is answered.
    fn asks_for_sync(&mut self) -> bool {
        self.fill();
        let is_first = self.waiting.front().is_some_and(|write| write.turn() == Turn::First);
        !is_first && self.waiting.iter().any(|write| write.turn() == Turn::InOrder)
    }

    /// The next write that may begin, and needs no sync if the group has none.
    fn take(&mut self, is_synced: bool) -> Option<Box<dyn Write>> {
        if let Ok(first) = self.firsts.try_recv() {
            self.waiting.push_front(first);
        }
        self.fill();
        loop {
            let write = self.waiting.pop_front_if(|write| is_synced || write.turn() != Turn::InOrder)?;
            if write.begin() {
                return Some(write);
            }
        }
    }

    fn fill(&mut self) {
        while self.waiting.len() < GROUP
            && let Ok(write) = self.in_orders.try_recv()
        {
            self.waiting.push_back(write);
        }
    }
}

/// The thread that writes.
struct Groups {
    queue: Queue,
    /// `None`: the last one failed.
    connection: Option<Connection>,
    /// Whether commits of the connection wait for the disk; `None`: it was not told.
    is_synced: Option<bool>,
    open: Open,
    path: PathBuf,
}

impl Groups {
    fn run(mut self) {
        while futures::executor::block_on(self.queue.wait()).is_some() {
            let (begun, mut group) = (Instant::now(), Vec::new());
            let end = self.group(&mut group);
            let millis = begun.elapsed().as_millis();
            if millis >= SLOW.as_millis() {
                tracing::warn!(millis, writes = group.len(), "writing the state takes long");
            }
            for write in group {
                write.settle(end.clone());
            }
        }
    }

    /// Writes what is there, in one transaction. `group`: those who are to hear how it ended.
    fn group(&mut self, group: &mut Vec<Box<dyn Write>>) -> Result<(), StoreError> {
        let is_synced = self.queue.asks_for_sync();
        let connection = match self.begin(is_synced) {
            Ok(connection) => connection,
            Err(error) => {
                group.extend(self.queue.take(true));
                return Err(lock_holder::explained(error, &self.path));
            }
        };
        self.transaction(&connection, is_synced, group)?;
        self.connection = Some(connection);
        Ok(())
    }

    fn begin(&mut self, is_synced: bool) -> rusqlite::Result<Connection> {
        let (connection, known) = match self.connection.take() {
            Some(connection) => (connection, self.is_synced),
            None => ((self.open)()?, None),
        };
        if known != Some(is_synced) {
            let pragma = if is_synced { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            execute(&connection, pragma)?;
        }
        self.is_synced = Some(is_synced);
        execute(&connection, "BEGIN IMMEDIATE")?;
        Ok(connection)
    }

    /// After an error the connection may still be in the transaction, and must go: on a full disk SQLite ends the
    /// transaction by itself, and with this connection nothing more could be written.
    fn transaction(
        &mut self,
        connection: &Connection,
        is_synced: bool,
        group: &mut Vec<Box<dyn Write>>,
    ) -> Result<(), StoreError> {
        let path = self.path.clone();
        let explained = |error| lock_holder::explained(error, &path);
        let (begun, mut staying) = (Instant::now(), 0);
        while group.is_empty() || !self.queue.has_first() {
            let Some(mut write) = self.queue.take(is_synced) else { break };
            // What comes first needs no savepoint: until then the transaction holds nothing else.
            let is_alone = staying == 0;
            let saved = if is_alone { Ok(()) } else { execute(connection, "SAVEPOINT one") };
            if let Err(error) = saved {
                group.push(write);
                return Err(explained(error));
            }
            let stays = write.run(connection);
            let (failure, is_first) = (write.failure().cloned(), write.turn() == Turn::First);
            group.push(write);
            if stays {
                staying += 1;
            } else {
                let undo = if is_alone { "ROLLBACK" } else { "ROLLBACK TO one" };
                let undone = execute(connection, undo);
                // Where SQLite has undone everything by itself, the failure says why.
                undone.map_err(|error| failure.unwrap_or_else(|| explained(error)))?;
                if is_alone {
                    return Ok(());
                }
            }
            if !is_alone {
                execute(connection, "RELEASE one").map_err(explained)?;
            }
            if is_first || group.len() >= GROUP || begun.elapsed() >= GROUP_TIME {
                break;
            }
        }
        let end = if staying == 0 { "ROLLBACK" } else { "COMMIT" };
        execute(connection, end).map_err(explained)
    }
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

#[cfg(test)]
mod tests;
