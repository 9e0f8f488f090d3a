//! Result tables in SQLite files that other connections and threads use.

use super::writer_tests::{Predict, SELECT, file_with_source, fill, spec, write};
use crate::test_servers::{computed, texts};
use crate::{Batch, Column, ComputedKind, Database, Discard, Error, ErrorKind, Limits, ResultTable, Results};

#[test]
fn reader_of_another_process_lets_the_old_table_stay() {
    let file = file_with_source();
    let mut database = file.open();
    write(&mut *database, &spec("result"), SELECT).unwrap();
    let mut table = fill(&mut *database, &spec("result"), "SELECT 7 AS a", 10).unwrap();
    let mut other = file.open();
    other.execute("BEGIN", &mut Discard).unwrap();
    texts(&mut *other, "SELECT * FROM source");
    let error = table.publish().unwrap_err();
    assert_eq!((error.kind, error.is_unclear), (ErrorKind::Busy, false), "{error}");
    other.execute("COMMIT", &mut Discard).unwrap();
    assert_eq!(file.texts("SELECT count(*) FROM result"), ["4"]);
    // The transaction was rolled back.
    table.publish().unwrap();
    assert_eq!(file.texts("SELECT a FROM result"), ["7"]);
}

/// Runs an action at the first batch, and writes all batches.
struct At<'a, A>(Predict<'a>, Option<A>);

impl<A: FnOnce()> Results for At<'_, A> {
    fn limits(&self) -> Limits {
        self.0.limits
    }

    fn result_set(&mut self, _: &[Column]) -> Result<(), Error> {
        Ok(())
    }

    fn batch(&mut self, batch: Batch) -> Result<(), Error> {
        if let Some(action) = self.1.take() {
            action();
        }
        self.0.batch(batch)
    }

    fn changed(&mut self, _: Option<u64>) {}
}

/// Copies the source row by row. Another connection does something at the first one.
fn copy_beside(database: &mut dyn Database, action: impl FnOnce()) -> Result<ResultTable, Error> {
    let mut table = ResultTable::open(database, &spec("result"))?;
    table.create(None, &computed(&[("a", ComputedKind::Float), ("p", ComputedKind::Float)]))?;
    let limits = Limits { first_rows: 1, rows: 1, bytes: 1 << 20, timed_rows: 1 };
    database.read("SELECT b FROM source", &mut At(Predict { table: &mut table, limits }, Some(action)))?;
    Ok(table)
}

#[test]
fn another_connection_may_write_while_the_select_is_read() {
    let file = file_with_source();
    // With a log, it changes what is read.
    file.run(&["PRAGMA journal_mode = wal"]);
    let mut database = file.open();
    let insert = || file.run(&["INSERT INTO source VALUES (5, 5, 5)"]);
    let mut table = copy_beside(&mut *database, insert).unwrap();
    table.publish().unwrap();
    assert_eq!(file.texts("SELECT count(*) FROM result"), ["4"]);
    drop((table, database));
    // Without one, it has begun, and gives up.
    file.run(&["PRAGMA journal_mode = delete"]);
    let mut database = file.open_with("", &["PRAGMA busy_timeout = 60000"]);
    let other = || {
        let (begun, begins) = std::sync::mpsc::channel();
        let path = file.path();
        std::thread::spawn(move || {
            let other = rusqlite::Connection::open(path).unwrap();
            other.execute_batch("BEGIN IMMEDIATE").unwrap();
            begun.send(()).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(100));
            other.execute_batch("ROLLBACK").unwrap();
        });
        begins.recv().unwrap();
    };
    let mut table = copy_beside(&mut *database, other).unwrap();
    assert_eq!(table.rows(), 5);
    table.publish().unwrap();
}

#[test]
fn canceller_of_the_reader_ends_the_writer() {
    let file = file_with_source();
    let mut database = file.open();
    let mut table = fill(&mut *database, &spec("result"), SELECT, 10).unwrap();
    let cancel = database.canceller();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let own = table.canceller();
    for cancel in [cancel, own] {
        std::thread::scope(|scope| {
            let (started, starts) = std::sync::mpsc::channel();
            let (ended, ends) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                starts.recv().unwrap();
                // Until it has begun.
                while ends.recv_timeout(std::time::Duration::from_millis(10)).is_err() {
                    cancel();
                }
            });
            started.send(()).unwrap();
            let error = crate::texts(table.writer_database(), endless).unwrap_err();
            assert_eq!(error.message, "interrupted");
            ended.send(()).unwrap();
        });
    }
}
