//! Against a real file, whose lock another connection takes while writes queue up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

struct World {
    writer: Arc<Writer>,
    other: SqliteConnection,
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
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        .busy_timeout(MINUTE);
    let mut connection = options.connect().await.unwrap();
    sqlx::query("CREATE TABLE words (word TEXT)").execute(&mut connection).await.unwrap();
    let commits = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&commits);
    connection.lock_handle().await.unwrap().set_commit_hook(move || {
        count.fetch_add(1, Ordering::SeqCst);
        true
    });
    let other = options.connect().await.unwrap();
    let writer = Writer::begin(connection, options, path, turn_timeout);
    World { writer: Arc::new(writer), other, commits, _dir: dir }
}

type Written = JoinHandle<Result<(), StoreError>>;

impl World {
    async fn begin_other(&mut self) {
        execute(&mut self.other, "BEGIN IMMEDIATE").await.unwrap();
    }

    async fn end_other(&mut self) {
        execute(&mut self.other, "ROLLBACK").await.unwrap();
    }

    /// Returns once it waits for its turn.
    async fn write(&self, turn: Turn, word: &'static str, then: fn() -> Result<(), StoreError>) -> Written {
        let writer = Arc::clone(&self.writer);
        let written =
            tokio::spawn(async move { writer.write(turn, move |tx| insert(tx, word, then).boxed()).await });
        // There is one thread: the task is polled before this one goes on.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        written
    }

    async fn words(&mut self) -> Vec<String> {
        sqlx::query_scalar("SELECT word FROM words ORDER BY rowid").fetch_all(&mut self.other).await.unwrap()
    }

    fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }
}

async fn insert(
    tx: &mut SqliteConnection,
    word: &str,
    then: fn() -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO words VALUES (?)").bind(word).execute(tx).await?;
    then()
}

fn stays() -> Result<(), StoreError> {
    Ok(())
}

fn fails() -> Result<(), StoreError> {
    Err(StoreError::Full)
}

fn panics() -> Result<(), StoreError> {
    panic!("a fault of ours")
}

#[tokio::test]
async fn writes_that_come_together_share_a_commit_and_one_that_fails_is_undone_alone() {
    let mut world = world().await;
    world.begin_other().await;
    // The writer takes the first one out of the queue, and waits for the lock with it.
    let first = world.write(Turn::InOrder, "first", stays).await;
    let kept = world.write(Turn::InOrder, "kept", stays).await;
    let failed = world.write(Turn::InOrder, "failed", fails).await;
    let panicked = world.write(Turn::InOrder, "panicked", panics).await;
    let last = world.write(Turn::InOrder, "last", stays).await;
    world.end_other().await;
    for written in [first, kept, last] {
        written.await.unwrap().unwrap();
    }
    assert!(matches!(failed.await.unwrap(), Err(StoreError::Full)));
    assert!(panicked.await.unwrap().is_err());
    assert_eq!(
        (world.words().await, world.commits()),
        (["first", "kept", "last"].map(str::to_owned).into(), 1)
    );
}

#[tokio::test]
async fn the_first_write_of_a_transaction_is_undone_as_well() {
    let mut world = world().await;
    for then in [fails, panics] {
        assert!(world.write(Turn::InOrder, "undone", then).await.await.unwrap().is_err());
    }
    world.write(Turn::InOrder, "kept", stays).await.await.unwrap().unwrap();
    assert_eq!(world.words().await, ["kept"]);
}

#[tokio::test]
async fn a_heartbeat_goes_before_what_waits() {
    let mut world = world().await;
    world.begin_other().await;
    let mut all = Vec::new();
    for word in ["one", "two"] {
        all.push(world.write(Turn::InOrder, word, stays).await);
    }
    all.push(world.write(Turn::First, "heartbeat", stays).await);
    world.end_other().await;
    for written in all {
        written.await.unwrap().unwrap();
    }
    assert_eq!(world.words().await, ["heartbeat", "one", "two"]);
}

#[tokio::test]
async fn a_writer_that_is_closed_ends_what_it_took_and_takes_no_more() {
    let mut world = world().await;
    world.begin_other().await;
    let taken = world.write(Turn::InOrder, "taken", stays).await;
    let writer = Arc::clone(&world.writer);
    let closed = tokio::spawn(async move { writer.close().await });
    world.end_other().await;
    closed.await.unwrap();
    taken.await.unwrap().unwrap();
    let late = world.write(Turn::InOrder, "late", stays).await;
    assert!(matches!(late.await.unwrap(), Err(StoreError::Closing)));
    assert_eq!(world.words().await, ["taken"]);
}

#[tokio::test]
async fn a_write_that_does_not_begin_in_time_is_refused_and_never_done() {
    let mut world = world_with(Duration::from_secs(1)).await;
    world.begin_other().await;
    // One waits for the lock, the other in the queue.
    for written in
        [world.write(Turn::InOrder, "one", stays).await, world.write(Turn::InOrder, "two", stays).await]
    {
        let refused = written.await.unwrap().unwrap_err().to_string();
        assert!(refused.contains("is in the middle of a write"), "it names who writes: {refused}");
    }
    world.end_other().await;
    world.write(Turn::InOrder, "three", stays).await.await.unwrap().unwrap();
    assert_eq!(world.words().await, ["three"]);
}

fn refuse(tx: &mut SqliteConnection) -> BoxFuture<'_, Result<(), UpdateError>> {
    async {
        sqlx::query("DELETE FROM words").execute(tx).await.map_err(StoreError::from)?;
        Err(UpdateError::Fenced)
    }
    .boxed()
}

/// What it read may never have happened.
#[tokio::test]
async fn a_refusal_is_no_answer_before_its_transaction_is_durable() {
    let mut world = world().await;
    for (then, is_durable) in [(None, true), (Some(end_transaction), false)] {
        world.begin_other().await;
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
        world.end_other().await;
        assert_eq!(kept.await.unwrap().is_ok(), is_durable);
        let refused = refused.await.unwrap();
        assert_eq!(matches!(refused, Err(UpdateError::Fenced)), is_durable, "{refused:?}");
        let _ = last.await.unwrap();
        assert_eq!(world.words().await, ["kept"], "a refusal changes nothing");
    }
}

#[tokio::test]
async fn a_heartbeat_has_a_transaction_of_its_own() {
    let mut world = world().await;
    world.begin_other().await;
    let one = world.write(Turn::InOrder, "one", stays).await;
    let writer = Arc::clone(&world.writer);
    let broken = tokio::spawn(async move { writer.write(Turn::InOrder, end_transaction).await });
    let heartbeat = world.write(Turn::First, "heartbeat", stays).await;
    world.end_other().await;
    heartbeat.await.unwrap().unwrap();
    assert!(one.await.unwrap().is_err() && broken.await.unwrap().is_err());
    assert_eq!(world.words().await, ["heartbeat"]);
}

fn end_transaction(tx: &mut SqliteConnection) -> BoxFuture<'_, Result<(), StoreError>> {
    async { Ok(execute(tx, "ROLLBACK").await?) }.boxed()
}

/// As after the disk was full: SQLite has ended the transaction, and the connection cannot be used any more.
#[tokio::test]
async fn a_connection_that_fails_is_replaced() {
    let mut world = world().await;
    let failed = world.writer.write(Turn::InOrder, end_transaction).await;
    assert!(matches!(failed, Err(StoreError::Database(_))), "{failed:?}");
    world.write(Turn::InOrder, "kept", stays).await.await.unwrap().unwrap();
    assert_eq!(world.words().await, ["kept"]);
}

/// What SQLite says of how commits are synced: 1 is NORMAL, which does not wait for the disk, and 2 is FULL.
async fn synchronous(writer: &Writer, turn: Turn) -> i64 {
    writer.write(turn, |tx| ask_synchronous(tx).boxed()).await.unwrap()
}

async fn ask_synchronous(tx: &mut SqliteConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("PRAGMA synchronous").fetch_one(tx).await?)
}

#[tokio::test]
async fn only_what_must_be_durable_waits_for_the_disk_and_takes_the_others_along() {
    let mut world = world().await;
    let turns = [Turn::Unsynced, Turn::InOrder, Turn::Unsynced, Turn::First, Turn::InOrder, Turn::First];
    let mut alone = Vec::new();
    for turn in turns {
        alone.push(synchronous(&world.writer, turn).await);
    }
    assert_eq!(alone, [1, 2, 1, 1, 2, 1]);

    world.begin_other().await;
    let before = world.commits();
    let mut written = Vec::new();
    // The writer waits for the lock with a group that needs no sync: the second one comes to the next group.
    for turn in [Turn::Unsynced, Turn::InOrder, Turn::Unsynced] {
        let writer = Arc::clone(&world.writer);
        written.push(tokio::spawn(async move { synchronous(&writer, turn).await }));
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }
    world.end_other().await;
    let mut together = Vec::new();
    for one in written {
        together.push(one.await.unwrap());
    }
    assert_eq!((together, world.commits() - before), (vec![1, 2, 2], 2));
}
