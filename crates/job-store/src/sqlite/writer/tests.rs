//! With a real file, which another connection locks while writes queue up.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinHandle;

use super::*;

struct World {
    writer: Arc<Writer>,
    other: Connection,
    /// Number of times that the writer found the file locked.
    waits: Arc<AtomicUsize>,
    commits: Arc<AtomicUsize>,
    _dir: tempfile::TempDir,
}

/// Longer than any test.
const MINUTE: Duration = Duration::from_secs(60);

async fn world() -> World {
    world_with(MINUTE).await
}

/// With a table of words.
async fn world_with(turn_timeout: Duration) -> World {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let open = {
        let path = path.clone();
        move || {
            let mut connection = Connection::open(&path)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.busy_handler(Some(note_wait))?;
            Ok(connection)
        }
    };
    let mut connection = open().unwrap();
    connection.execute_batch("CREATE TABLE words (word TEXT)").unwrap();
    let commits = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&commits);
    let counts = move || {
        count.fetch_add(1, Ordering::SeqCst);
        false
    };
    connection.commit_hook(Some(counts)).unwrap();
    let other = Connection::open(&path).unwrap();
    other.busy_timeout(MINUTE).unwrap();
    let writer = Writer::begin(connection, Box::new(open), path, turn_timeout).unwrap();
    let waits = Arc::new(AtomicUsize::new(0));
    let noted = Arc::clone(&waits);
    let note = move |_: &Connection| -> Result<(), StoreError> {
        WAITS.set(Some(noted));
        Ok(())
    };
    writer.write(Turn::InOrder, note).await.unwrap();
    commits.store(0, Ordering::SeqCst);
    World { writer: Arc::new(writer), other, waits, commits, _dir: dir }
}

thread_local! {
    static WAITS: RefCell<Option<Arc<AtomicUsize>>> = const { RefCell::new(None) };
}

/// Records on the writer's thread that it waits, and lets it retry.
fn note_wait(_tries: i32) -> bool {
    WAITS.with_borrow(|waits| {
        if let Some(waits) = waits {
            waits.fetch_add(1, Ordering::SeqCst);
        }
    });
    std::thread::sleep(Duration::from_millis(1));
    true
}

type Written = JoinHandle<Result<(), StoreError>>;

impl World {
    fn begin_other(&self) {
        self.other.execute_batch("BEGIN IMMEDIATE").unwrap();
    }

    fn end_other(&self) {
        self.other.execute_batch("ROLLBACK").unwrap();
    }

    /// Returns when the writer waits for the lock with the writes so far.
    async fn until_it_waits(&self) {
        let before = self.waits.load(Ordering::SeqCst);
        while self.waits.load(Ordering::SeqCst) == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Returns when the write is in the queue.
    async fn write(&self, turn: Turn, word: &'static str, then: fn() -> Result<(), StoreError>) -> Written {
        let writer = Arc::clone(&self.writer);
        let written = tokio::spawn(async move { writer.write(turn, move |tx| insert(tx, word, then)).await });
        // Tasks run on one thread: this one is polled before the caller continues.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        written
    }

    fn words(&self) -> Vec<String> {
        let mut words = self.other.prepare("SELECT word FROM words ORDER BY rowid").unwrap();
        let words = words.query_map([], |row| row.get(0)).unwrap();
        words.collect::<rusqlite::Result<_>>().unwrap()
    }

    fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }
}

fn insert(tx: &Connection, word: &str, then: fn() -> Result<(), StoreError>) -> Result<(), StoreError> {
    tx.execute("INSERT INTO words VALUES (?)", [word])?;
    then()
}

fn stays() -> Result<(), StoreError> {
    Ok(())
}

fn fails() -> Result<(), StoreError> {
    Err(StoreError::Full)
}

fn panics() -> Result<(), StoreError> {
    panic!("a bug")
}

#[tokio::test]
async fn writes_share_a_commit_and_failed_one_is_undone() {
    let world = world().await;
    world.begin_other();
    // The writer takes the first one out of the queue, and waits for the lock with it.
    let first = world.write(Turn::InOrder, "first", stays).await;
    let kept = world.write(Turn::InOrder, "kept", stays).await;
    let failed = world.write(Turn::InOrder, "failed", fails).await;
    let panicked = world.write(Turn::InOrder, "panicked", panics).await;
    let last = world.write(Turn::InOrder, "last", stays).await;
    world.end_other();
    for written in [first, kept, last] {
        written.await.unwrap().unwrap();
    }
    assert!(matches!(failed.await.unwrap(), Err(StoreError::Full)));
    assert!(panicked.await.unwrap().is_err());
    assert_eq!((world.words(), world.commits()), (["first", "kept", "last"].map(str::to_owned).into(), 1));
}

#[tokio::test]
async fn failed_first_write_is_undone() {
    let world = world().await;
    for then in [fails, panics] {
        assert!(world.write(Turn::InOrder, "undone", then).await.await.unwrap().is_err());
    }
    world.write(Turn::InOrder, "kept", stays).await.await.unwrap().unwrap();
    assert_eq!(world.words(), ["kept"]);
}

#[tokio::test]
async fn heartbeat_goes_before_queued_writes() {
    let world = world().await;
    world.begin_other();
    let mut all = Vec::new();
    for word in ["one", "two"] {
        all.push(world.write(Turn::InOrder, word, stays).await);
    }
    all.push(world.write(Turn::First, "heartbeat", stays).await);
    world.end_other();
    for written in all {
        written.await.unwrap().unwrap();
    }
    assert_eq!(world.words(), ["heartbeat", "one", "two"]);
}

#[tokio::test]
async fn closed_writer_completes_accepted_writes() {
    let world = world().await;
    world.begin_other();
    let taken = world.write(Turn::InOrder, "taken", stays).await;
    let writer = Arc::clone(&world.writer);
    let closed = tokio::spawn(async move { writer.close().await });
    world.end_other();
    closed.await.unwrap();
    taken.await.unwrap().unwrap();
    let late = world.write(Turn::InOrder, "late", stays).await;
    assert!(matches!(late.await.unwrap(), Err(StoreError::Closing)));
    assert_eq!(world.words(), ["taken"]);
}

#[tokio::test]
async fn late_write_is_refused() {
    let world = world_with(Duration::from_secs(1)).await;
    world.begin_other();
    // One waits for the lock, and the other one in the queue.
    for written in
        [world.write(Turn::InOrder, "one", stays).await, world.write(Turn::InOrder, "two", stays).await]
    {
        let refused = written.await.unwrap().unwrap_err().to_string();
        assert!(refused.contains("is in the middle of a write"), "it names who writes: {refused}");
    }
    world.end_other();
    world.write(Turn::InOrder, "three", stays).await.await.unwrap().unwrap();
    assert_eq!(world.words(), ["three"]);
}

fn refuse(tx: &Connection) -> Result<(), UpdateError> {
    tx.execute("DELETE FROM words", []).map_err(StoreError::from)?;
    Err(UpdateError::Fenced)
}

/// A refusal may depend on a write that is undone.
#[tokio::test]
async fn refusal_waits_for_durable_transaction() {
    let world = world().await;
    for (then, is_durable) in [(None, true), (Some(end_transaction), false)] {
        world.begin_other();
        let kept = world.write(Turn::InOrder, "kept", stays).await;
        let writer = Arc::clone(&world.writer);
        let refused = tokio::spawn(async move { writer.write(Turn::InOrder, refuse).await });
        tokio::task::yield_now().await;
        let writer = Arc::clone(&world.writer);
        let last = tokio::spawn(async move {
            match then {
                Some(then) => writer.write(Turn::InOrder, then).await,
                None => Ok(()),
            }
        });
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        world.end_other();
        assert_eq!(kept.await.unwrap().is_ok(), is_durable);
        let refused = refused.await.unwrap();
        assert_eq!(matches!(refused, Err(UpdateError::Fenced)), is_durable, "{refused:?}");
        let _ = last.await.unwrap();
        assert_eq!(world.words(), ["kept"], "a refusal changes nothing");
    }
}

#[tokio::test]
async fn heartbeat_has_its_own_transaction() {
    let world = world().await;
    world.begin_other();
    let one = world.write(Turn::InOrder, "one", stays).await;
    let writer = Arc::clone(&world.writer);
    let broken = tokio::spawn(async move { writer.write(Turn::InOrder, end_transaction).await });
    let heartbeat = world.write(Turn::First, "heartbeat", stays).await;
    world.end_other();
    heartbeat.await.unwrap().unwrap();
    assert!(one.await.unwrap().is_err() && broken.await.unwrap().is_err());
    assert_eq!(world.words(), ["heartbeat"]);
}

fn end_transaction(tx: &Connection) -> Result<(), StoreError> {
    Ok(execute(tx, "ROLLBACK")?)
}

/// As on a full disk: SQLite has ended the transaction, and the connection is unusable.
#[tokio::test]
async fn failed_connection_is_replaced() {
    let world = world().await;
    let failed = world.writer.write(Turn::InOrder, end_transaction).await;
    assert!(matches!(failed, Err(StoreError::Database(_))), "{failed:?}");
    world.write(Turn::InOrder, "kept", stays).await.await.unwrap().unwrap();
    assert_eq!(world.words(), ["kept"]);
}

/// SQLite's `synchronous` setting: 1 is NORMAL, which does not wait for the disk, and 2 is FULL.
async fn synchronous(writer: &Writer, turn: Turn) -> i64 {
    writer.write(turn, ask_synchronous).await.unwrap()
}

fn ask_synchronous(tx: &Connection) -> Result<i64, StoreError> {
    Ok(tx.query_one("PRAGMA synchronous", [], |row| row.get(0))?)
}

#[tokio::test]
async fn unsynced_writes_skip_fsync() {
    let world = world().await;
    let turns = [Turn::Unsynced, Turn::InOrder, Turn::Unsynced, Turn::First, Turn::InOrder, Turn::First];
    let mut alone = Vec::new();
    for turn in turns {
        alone.push(synchronous(&world.writer, turn).await);
    }
    assert_eq!(alone, [1, 2, 1, 1, 2, 1]);

    world.begin_other();
    let before = world.commits();
    let mut written = Vec::new();
    // The writer waits for the lock with a group that needs no sync. The second write joins the next group.
    for turn in [Turn::Unsynced, Turn::InOrder, Turn::Unsynced] {
        let writer = Arc::clone(&world.writer);
        written.push(tokio::spawn(async move { synchronous(&writer, turn).await }));
        world.until_it_waits().await;
    }
    world.end_other();
    let mut together = Vec::new();
    for one in written {
        together.push(one.await.unwrap());
    }
    assert_eq!((together, world.commits() - before), (vec![1, 2, 2], 2));
}

#[tokio::test]
async fn dropped_writer_ends_its_thread() {
    let World { writer, waits, .. } = world().await;
    drop(writer);
    // The thread holds the other one.
    let ended = async {
        while Arc::strong_count(&waits) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(MINUTE, ended).await.expect("the thread ends");
}
