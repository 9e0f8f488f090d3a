//! Small logs and their move to folders: two servers with one state, and crashes between the steps of a move.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use sqlflow_job::{Change, Event, Failure, JobId};
use sqlflow_proto::record::{Notice, record::Payload};
use sqlflow_result_log::fixture::{
    agent, attempt, ended_logs, entry, move_to_folder, notice, open, output, positions, read_all, rows, seqs,
    started,
};
use sqlflow_result_log::{
    Entry, LogError, ResultLog as _, SegmentLog, SmallLogs as _, SmallWrite, TieredLog,
};

use crate::fixture;
use crate::{ServerId, SqliteStore, Store as _};

/// Above the size of two or three records of these tests, and below that of many.
const SMALL: u64 = 600;

struct State {
    dir: tempfile::TempDir,
    store: SqliteStore,
    job: JobId,
}

impl State {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("state.db")).await.unwrap();
        let job = fixture::job(true);
        let id = job.id.clone();
        store.create(fixture::new_job(job, &ServerId("a".to_owned()))).await.unwrap();
        Self { dir, store, job: id }
    }

    fn folders(&self) -> SegmentLog {
        open(&self.dir.path().join("log"))
    }

    /// The log of a server that starts now.
    fn log(&self) -> TieredLog {
        TieredLog::new(Arc::new(self.store.clone()), self.folders(), SMALL)
    }

    fn is_in_folder(&self) -> bool {
        self.folders().folder_of(&self.job).exists()
    }

    fn tamper(&self, sql: &str) {
        fixture::tamper(&self.dir.path().join("state.db"), sql);
    }
}

fn end() -> Entry {
    let end = Notice { kind: sqlflow_proto::record::notice::Kind::End.into(), text: "it ended".to_owned() };
    entry(0, 0, 0, Payload::Notice(end))
}

#[tokio::test]
async fn short_log_stays_small() {
    let state = State::new().await;
    let (log, other) = (state.log(), state.log());
    let appended = log.append(&state.job, vec![started(0, 1, 1), rows(0, 1, 2)]).await.unwrap();
    assert_eq!((appended.last_position, appended.last_seqs[&agent(0, 1)]), (2, 2));
    other.append(&state.job, vec![rows(0, 1, 2), rows(0, 1, 3), end()]).await.unwrap();
    let all = read_all(&log, &state.job, 100).await;
    assert_eq!(seqs(&all), [(1, 1), (2, 2), (3, 3), (4, 0)]);
    assert_eq!(log.last_seq(&attempt(&state.job, 0, 1), 0).await.unwrap(), 3);
    assert_eq!(log.tail(&state.job, 1).await.unwrap(), 3);
    let evidence = log.evidence(&state.job, 0).await.unwrap();
    assert!(evidence.started && evidence.rows);
    assert!(!state.is_in_folder());
    assert_eq!(log.jobs().await.unwrap(), std::slice::from_ref(&state.job));
    // After the end nothing is added.
    assert_eq!(log.append(&state.job, vec![notice("late")]).await.unwrap().last_position, 4);
    let refused = log.append(&state.job, vec![rows(0, 1, 4)]).await;
    assert!(matches!(refused, Err(LogError::Sealed { .. })));
}

/// A server with old knowledge must not reject a valid append.
#[tokio::test]
async fn appends_of_other_server_are_seen() {
    let state = State::new().await;
    let (one, other) = (state.log(), state.log());
    one.append(&state.job, vec![rows(0, 1, 1)]).await.unwrap();
    other.append(&state.job, vec![rows(0, 1, 2)]).await.unwrap();
    let appended = one.append(&state.job, vec![rows(0, 1, 3)]).await.unwrap();
    assert_eq!(appended.last_position, 3);
    // It must not accept a duplicate as the whole append either.
    other.append(&state.job, vec![rows(0, 1, 4)]).await.unwrap();
    assert_eq!(one.append(&state.job, Vec::new()).await.unwrap().last_position, 4);
    other.seal(&attempt(&state.job, 0, 1), None).await.unwrap();
    assert!(matches!(one.append(&state.job, vec![rows(0, 1, 5)]).await, Err(LogError::Sealed { .. })));
}

#[tokio::test]
async fn growing_log_moves_and_wakes_watchers() {
    let state = State::new().await;
    let (log, other) = (state.log(), state.log());
    other.append(&state.job, vec![output(0, 1, 1, 10)]).await.unwrap();
    let mut news = log.watch(&state.job);
    for seq in 2..20 {
        log.append(&state.job, vec![output(0, 1, seq, 60)]).await.unwrap();
        assert_eq!(*news.borrow_and_update(), seq);
    }
    assert!(state.is_in_folder());
    assert_eq!(state.store.jobs().await.unwrap(), [], "its bytes are there once");
    for log in [&log, &other, &state.log()] {
        assert_eq!(positions(&read_all(log, &state.job, 200).await), (1..20).collect::<Vec<_>>());
    }
    let appended = other.append(&state.job, vec![output(0, 1, 20, 60)]).await.unwrap();
    assert_eq!(appended.last_position, 20);
}

#[tokio::test]
async fn large_first_append_goes_to_folder() {
    let state = State::new().await;
    let log = state.log();
    log.append(&state.job, vec![output(0, 1, 1, 5000)]).await.unwrap();
    assert!(state.is_in_folder());
    let small = state.log();
    assert_eq!(small.append(&state.job, vec![rows(0, 1, 2)]).await.unwrap().last_position, 2);
}

/// A power failure may undo the freeze. The folder has all records.
#[tokio::test]
async fn folder_wins_over_small_log() {
    let state = State::new().await;
    state.log().append(&state.job, vec![rows(0, 1, 1)]).await.unwrap();
    let before = state.store.read(&state.job, 0).await.unwrap();
    state.log().append(&state.job, vec![output(0, 1, 2, 5000)]).await.unwrap();
    state.store.delete(&state.job).await.unwrap();
    state
        .store
        .append(&state.job, 0, before.bytes.to_vec(), sqlflow_result_log::Durability::Synced)
        .await
        .unwrap();
    assert_eq!(seqs(&read_all(&state.log(), &state.job, 100).await), [(1, 1), (2, 2)]);
    assert_eq!(state.log().append(&state.job, vec![rows(0, 1, 3)]).await.unwrap().last_position, 3);
}

#[tokio::test]
async fn damage_in_small_log_becomes_gap() {
    let state = State::new().await;
    let log = state.log();
    for seq in 1..4 {
        log.append(&state.job, vec![rows(0, 1, seq)]).await.unwrap();
    }
    // A byte of the second record.
    state.tamper(
        "UPDATE small_logs SET bytes = CAST(substr(bytes, 1, 12) || X'FF' || substr(bytes, 14) AS BLOB)
         WHERE first_byte = (SELECT MIN(first_byte) FROM small_logs WHERE first_byte > 0)",
    );
    for log in [&log, &state.log()] {
        let all = read_all(log, &state.job, 1000).await;
        let payloads = all.iter().map(|stored| stored.record.as_ref().unwrap().payload.as_ref().unwrap());
        let is_gap: Vec<bool> = payloads.map(|payload| matches!(payload, Payload::Gap(_))).collect();
        assert_eq!(is_gap.iter().filter(|is_gap| **is_gap).count(), 1, "{all:?}");
        assert_eq!(all.last().unwrap().record.as_ref().unwrap().seq, 3);
    }
    log.append(&state.job, vec![rows(0, 1, 4)]).await.unwrap();
}

/// Readers have seen its position, which must not be used again.
#[tokio::test]
async fn damaged_last_record_becomes_gap() {
    let state = State::new().await;
    let log = state.log();
    for seq in 1..4 {
        log.append(&state.job, vec![rows(0, 1, seq)]).await.unwrap();
    }
    let seen = log.last_position(&state.job).await.unwrap();
    state.tamper(
        "UPDATE small_logs SET bytes = CAST(substr(bytes, 1, 12) || X'FF' || substr(bytes, 14) AS BLOB)
         WHERE first_byte = (SELECT MAX(first_byte) FROM small_logs)",
    );
    let log = state.log();
    let all = read_all(&log, &state.job, 1000).await;
    assert!(matches!(all[2].record.as_ref().unwrap().payload, Some(Payload::Gap(_))), "{all:?}");
    log.append(&state.job, vec![notice("later")]).await.unwrap();
    let new = log.read(&state.job, seen, 1000).await.unwrap().records;
    assert!(!new.is_empty() && new.iter().all(|stored| stored.position > seen), "{new:?}");
}

/// One server has read the whole log and does not read it again; the other finds the damage.
#[tokio::test]
async fn servers_agree_on_a_damaged_log() {
    let state = State::new().await;
    let (knows, other) = (state.log(), state.log());
    for seq in 1..4 {
        knows.append(&state.job, vec![rows(0, 1, seq)]).await.unwrap();
    }
    state.tamper("UPDATE small_logs SET bytes = CAST(substr(bytes, 1, 12) || X'FF' || substr(bytes, 14) AS BLOB) WHERE first_byte > 0");
    for (log, seq) in [(&knows, 4), (&other, 5), (&knows, 6)] {
        log.append(&state.job, vec![rows(0, 1, seq)]).await.unwrap();
    }
    for log in [&knows, &other, &state.log()] {
        assert_eq!(log.last_seq(&attempt(&state.job, 0, 1), 0).await.unwrap(), 6);
        assert_eq!(read_all(log, &state.job, 1000).await.last().unwrap().record.as_ref().unwrap().seq, 6);
    }
}

/// Servers that reach the limit together wait for each other.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_moves_of_one_log_succeed() {
    let state = State::new().await;
    state.log().append(&state.job, vec![rows(0, 1, 1)]).await.unwrap();
    let appends = (2..10).map(|attempt| {
        let (log, job) = (state.log(), state.job.clone());
        tokio::spawn(async move { log.append(&job, vec![output(0, attempt, 1, 500)]).await })
    });
    for appended in futures::future::join_all(appends).await {
        appended.unwrap().unwrap();
    }
    assert_eq!(positions(&read_all(&state.log(), &state.job, 1000).await), (1..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn log_is_deleted_with_its_job() {
    let state = State::new().await;
    let log = state.log();
    log.append(&state.job, vec![rows(0, 1, 1)]).await.unwrap();
    state.tamper("PRAGMA foreign_keys = ON; DELETE FROM jobs");
    assert_eq!(state.log().last_position(&state.job).await.unwrap(), 0);
    assert!(log.append(&state.job, vec![rows(0, 1, 2)]).await.is_err());
}

/// It would begin a log in a folder, which would hide the small log.
#[tokio::test]
async fn older_server_leaves_jobs_with_small_logs() {
    let state = State::new().await;
    state.tamper("UPDATE jobs SET doc_version = 5");
    state.log().append(&state.job, vec![rows(0, 1, 1)]).await.unwrap();
    let path = state.dir.path().join("state.db");
    let connection = rusqlite::Connection::open(path).unwrap();
    let version: i64 = connection.query_one("SELECT doc_version FROM jobs", [], |row| row.get(0)).unwrap();
    assert!(version > 5);
}

#[tokio::test]
async fn deleted_log_is_gone_in_both_places() {
    let state = State::new().await;
    for length in [10, 5000] {
        let (log, other) = (state.log(), state.log());
        log.append(&state.job, vec![output(0, 1, 1, length)]).await.unwrap();
        other.last_position(&state.job).await.unwrap();
        log.delete(&state.job).await.unwrap();
        assert_eq!(state.log().read(&state.job, 0, 100).await.unwrap().records, []);
        assert!(!state.is_in_folder());
        assert_eq!(log.jobs().await.unwrap(), []);
    }
}

#[tokio::test]
async fn unused_logs_are_dropped_from_memory() {
    let state = State::new().await;
    let log = state.log();
    for _ in 0..2 * ended_logs() {
        log.last_position(&JobId::generate()).await.unwrap();
    }
    assert!(log.cached_jobs() <= ended_logs());
}

/// The last records of an agent and the end of its attempt become durable together.
#[tokio::test]
async fn append_and_event_are_atomic() {
    let state = State::new().await;
    let (log, other) = (state.log(), state.log());
    let cancelled = || Event::CancelRequested(Failure::over_limit());
    let is_cancelled = async || state.store.load(&state.job).await.unwrap().unwrap().job.cancel.is_some();
    let both = async |log: &TieredLog, entries: &[Entry], event| {
        log.append_and_apply(&state.job, entries, event, 0).await.unwrap()
    };
    assert_eq!(both(&log, &[rows(0, 1, 1)], cancelled()).await, None, "it is not known where the log is");
    log.append(&state.job, vec![rows(0, 1, 1)]).await.unwrap();
    other.append(&state.job, vec![rows(0, 1, 2)]).await.unwrap();
    assert_eq!(both(&log, &[rows(0, 1, 2)], cancelled()).await, None, "another server has appended");
    assert_eq!(both(&other, &[output(0, 1, 3, 5000)], cancelled()).await, None, "it must move");
    let unknown =
        Event::AttemptLaunched { attempt: attempt(&state.job, 0, 7), tracker_url: None, executor_uid: None };
    assert_eq!(both(&other, &[rows(0, 1, 3)], unknown).await, None, "the event is rejected");
    assert!(!is_cancelled().await);
    assert_eq!(log.last_position(&state.job).await.unwrap(), 2);

    let done = both(&log, &[rows(0, 1, 3)], cancelled()).await.unwrap();
    assert_eq!((done.appended.last_position, done.change), (3, Change::Changed));
    assert!(done.job.cancel.is_some() && is_cancelled().await);
    assert_eq!(state.log().last_position(&state.job).await.unwrap(), 3);
}

#[derive(Debug, Clone)]
enum Act {
    Append {
        server: usize,
        attempt: u32,
        repeated: u64,
        lengths: Vec<usize>,
    },
    Notice {
        server: usize,
    },
    Read {
        server: usize,
        after: u64,
    },
    Restart {
        server: usize,
    },
    /// A server is killed after this many steps of a move.
    DieMoving {
        steps: u8,
    },
}

fn any_act() -> impl Strategy<Value = Act> {
    let server = 0_usize..2;
    let lengths = prop::collection::vec(0_usize..60, 1..4);
    prop_oneof![
        6 => (server.clone(), 1_u32..3, 0_u64..3, lengths)
            .prop_map(|(server, attempt, repeated, lengths)| Act::Append { server, attempt, repeated, lengths }),
        2 => server.clone().prop_map(|server| Act::Notice { server }),
        6 => (server.clone(), 0_u64..20).prop_map(|(server, after)| Act::Read { server, after }),
        2 => server.prop_map(|server| Act::Restart { server }),
        1 => (1_u8..4).prop_map(|steps| Act::DieMoving { steps }),
    ]
}

async fn die_moving(state: &State, steps: u8) {
    let found = state.store.read(&state.job, 0).await.unwrap();
    if found.is_frozen
        || state.store.freeze(&state.job, found.length).await.unwrap() == SmallWrite::Conflict
        || steps < 2
    {
        return;
    }
    move_to_folder(&state.folders(), &state.job, &found.bytes);
    if steps > 2 {
        state.store.empty(&state.job).await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn wherever_it_is_the_log_is_the_list(acts in prop::collection::vec(any_act(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let state = State::new().await;
            let mut servers = [state.log(), state.log()];
            let (mut said, mut last_seqs) = (Vec::new(), BTreeMap::new());
            for act in acts {
                match act {
                    Act::Append { server, attempt, repeated, lengths } => {
                        let last: u64 = last_seqs.get(&attempt).copied().unwrap_or(0);
                        let first = last.saturating_sub(repeated) + 1;
                        let entries: Vec<_> =
                            (first..).zip(&lengths).map(|(seq, &length)| output(0, attempt, seq, length)).collect();
                        let end = first + lengths.len() as u64 - 1;
                        said.extend((last + 1..=end).map(|seq| (attempt, seq)));
                        last_seqs.insert(attempt, end.max(last));
                        let appended = servers[server].append(&state.job, entries).await.unwrap();
                        assert_eq!(appended.last_position, said.len() as u64);
                        assert_eq!(appended.last_seqs[&agent(0, attempt)], end.max(last));
                    }
                    Act::Notice { server } => {
                        servers[server].append(&state.job, vec![notice("it waits")]).await.unwrap();
                        said.push((0, 0));
                    }
                    Act::Read { server, after } => {
                        let page = servers[server].read(&state.job, after, 300).await.unwrap();
                        let read = page.records.iter().map(|it| (it.attempt, it.record.as_ref().unwrap().seq));
                        let wanted = said.iter().skip(usize::try_from(after).unwrap()).copied();
                        assert!(read.clone().count() > 0 || wanted.clone().count() == 0);
                        assert!(read.zip(wanted).all(|(read, wanted)| read == wanted), "{page:?}");
                    }
                    Act::Restart { server } => servers[server] = state.log(),
                    Act::DieMoving { steps } => die_moving(&state, steps).await,
                }
            }
            for log in &servers {
                let all = read_all(log, &state.job, 300).await;
                let all: Vec<_> = all.iter().map(|it| (it.attempt, it.record.as_ref().unwrap().seq)).collect();
                assert_eq!(all, said);
            }
        });
    }
}
