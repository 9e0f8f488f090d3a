//! Fetch: one page of a job's result log.

mod cached_jobs;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message as _;
use sqlflow_identity::Caller;
use sqlflow_job::{CursorToken, JobId};
use sqlflow_job_store::{JobRecord, KnownJob, Store, known_job};
use sqlflow_os::clock;
use sqlflow_proto::v1;
use sqlflow_result_log::{Page, ResultLog};
use sqlflow_sync::lock;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Response, Status};

use self::cached_jobs::{CachedJob, CachedJobs};
use super::answer_budget::{AnswerBudget, Room, in_room};
use super::delivery::{Call, Deliveries, RESET_LAG, Reading, WriteCompletion, waiting_time};
use super::{render, status};
use crate::access::{Action, Right, Via, audit};

/// Time that a Fetch waits for a new record.
const LONG_POLL: Duration = Duration::from_secs(1);
/// Time that a page with the log's end waits for the end of the job's state.
const END_LAG: Duration = Duration::from_millis(100);
/// Period of checking the log for records of other processes meanwhile; the store signals changes.
const POLL_PERIOD: Duration = Duration::from_millis(250);
/// Maximum bytes of results in a page, unless a single one is longer. Clients decode [`DEFAULT_LARGEST`] by default.
const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// Upper bound of the bytes of a page's status, token and job id.
const ENVELOPE_BYTES: usize = 1024;
/// Default message limit of gRPC clients.
pub(super) const DEFAULT_LARGEST: usize = 4 * 1024 * 1024;
/// Maximum time that a Fetch waits until its plain token's cursor is stored.
const RECORD_TIME: Duration = Duration::from_millis(250);

/// Serves Fetch.
pub(super) struct Fetcher {
    store: Arc<dyn Store>,
    log: Arc<dyn ResultLog>,
    answers: AnswerBudget,
    deliveries: Deliveries,
    jobs: Mutex<CachedJobs>,
}

/// A job that a caller may read.
pub(super) struct Opened {
    pub(super) id: JobId,
    /// The key that named it, and the cursor.
    pub(super) token: CursorToken,
    pub(super) caller: Caller,
    /// What gives access.
    pub(super) right: Right,
}

/// A page.
pub(super) struct Fetched {
    /// State of the job; final only on the page that ends the log.
    pub(super) status: v1::JobStatus,
    pub(super) results: Vec<v1::Response>,
    /// Position after the page.
    pub(super) next: u64,
    /// Position of the last record in the log.
    pub(super) last: u64,
    /// Notes for a plain token that the page was written.
    sent: Option<WriteCompletion>,
}

#[cfg(test)]
impl Fetched {
    /// The last page of a log.
    pub(super) fn of(status: v1::JobStatus, results: Vec<v1::Response>, last: u64) -> Self {
        Self { status, results, next: last, last, sent: None }
    }
}

impl Fetcher {
    pub(super) fn new(store: Arc<dyn Store>, log: Arc<dyn ResultLog>, answers: AnswerBudget) -> Self {
        Self { store, log, answers, deliveries: Deliveries::default(), jobs: Mutex::default() }
    }

    /// The page as a message. `largest` is the client's message limit, in bytes.
    pub(super) async fn fetch(
        &self,
        opened: Opened,
        call: Call,
        largest: usize,
    ) -> Result<Response<v1::Result>, Status> {
        let (id, key) = (opened.id.clone(), opened.token.key.clone());
        // A page over the client's limit is refused only if it is a single record.
        let most = PAGE_BYTES.min(largest.saturating_sub(ENVELOPE_BYTES));
        let (Fetched { status, results, next, last: _, sent }, room) = self.read(opened, call, most).await?;
        let next_token = CursorToken { key, cursor: Some(next) };
        let result = v1::Result {
            job_status: Some(status),
            results,
            next: Some(v1::Token {
                token: next_token.expose(),
                job_id: id.to_string(),
                job_tracer_url: String::new(),
            }),
        };
        let bytes = result.encoded_len();
        if bytes > largest {
            return Err(status::too_large(next, bytes, largest));
        }
        let mut response = in_room(Response::new(result), room, bytes);
        if let Some(sent) = sent {
            response.extensions_mut().insert(sent);
        }
        Ok(response)
    }

    /// The page, whatever its client decodes, and the room for it.
    pub(super) async fn page(&self, opened: Opened, call: Call) -> Result<(Fetched, Room), Status> {
        self.read(opened, call, PAGE_BYTES).await
    }

    /// A page of at most `most` bytes, or of one record.
    async fn read(&self, opened: Opened, call: Call, most: usize) -> Result<(Fetched, Room), Status> {
        let Opened { id, token, caller, right } = opened;
        // Watched first, so that no change after this state is missed.
        let changes = self.store.watch(&id);
        let record = self.load(&id).await?;
        let cached = self.cached(&id).await?;
        lock(&cached.reads).record(&self.store, &record);
        if cached.is_new_reader(caller.name()) {
            audit(&caller, Action::Read, &id, right, Via::Api);
        }

        let time_limit = call.time_limit;
        let (mut cursor, reading) = match token.cursor {
            Some(cursor) => (cursor, None),
            None => {
                let reading = self.deliveries.begin(&id, call);
                (self.plain_cursor(&record, &reading).await, Some(reading))
            }
        };
        let (record, page, room) =
            self.wait_for_page(record, changes, &mut cursor, reading.as_ref(), time_limit).await?;
        lock(&cached.reads).record(&self.store, &record);

        let results = render::page(page.records, &cached.headings, most);
        let next = results.last().map_or(cursor, |shown| shown.position);
        let at_end = page.is_current && next >= page.last_position;
        let status =
            if record.job.state.is_final() && !at_end { running() } else { render::status(&record.job) };
        if at_end && record.job.state.is_final() {
            // Most clients do not return.
            self.deliveries.end(&id, reading.is_some());
            lock(&self.jobs).remove(&id);
        }
        let sent = reading.filter(|_| next > cursor).and_then(|it| it.note(cursor, next));
        Ok((Fetched { status, results, next, last: page.last_position, sent }, room))
    }

    /// Cursor of a plain token: the end of the last page that is known to be delivered.
    async fn plain_cursor(&self, record: &JobRecord, reading: &Reading<'_>) -> u64 {
        let stored = record.plain_cursor;
        let from = reading.place(stored);
        let has_proof = reading.has_proof(from);
        if has_proof {
            tokio::time::sleep(RESET_LAG).await;
        }
        let place = reading.delivered(from, has_proof).unwrap_or(from);
        if place != stored {
            self.record_place(&record.job.id, stored, place, reading).await;
        }
        place
    }

    /// Stores the cursor of a plain token. A store that cannot be written delays a page only shortly, and reading
    /// continues: the cursor is kept in memory too. Each job has one such write at a time.
    async fn record_place(&self, id: &JobId, stored: u64, place: u64, reading: &Reading<'_>) {
        let is_recording = reading.is_recording();
        if is_recording.swap(true, Ordering::Relaxed) {
            return;
        }
        let (store, id) = (Arc::clone(&self.store), id.clone());
        let writing = tokio::spawn(async move {
            // Without it the page is repeated after this server's end, which is allowed.
            if let Err(error) = store.advance_plain_cursor(&id, stored, place).await {
                tracing::warn!(job = %id, %error, "cannot store the cursor of a plain token");
            }
            is_recording.store(false, Ordering::Relaxed);
        });
        let _ = tokio::time::timeout(RECORD_TIME, writing).await;
    }

    /// The next page after `cursor`, or an empty one after a while without new records. `record` was loaded after
    /// `changes` was created. `reading` belongs to a plain token.
    async fn wait_for_page(
        &self,
        mut record: JobRecord,
        mut changes: watch::Receiver<KnownJob>,
        cursor: &mut u64,
        reading: Option<&Reading<'_>>,
        time_limit: Option<Duration>,
    ) -> Result<(JobRecord, Page, Room), Status> {
        let id = record.job.id.clone();
        let owner = record.principal.clone().unwrap_or_default();
        let deadline = Instant::now() + waiting_time(time_limit, LONG_POLL);
        let mut end_seen = None;
        let mut most = PAGE_BYTES;
        loop {
            if changes.has_changed().unwrap_or(false) {
                match known_job::seen(&mut changes) {
                    // A page needs no other part of the record that changes with the job's state.
                    Some(job) => record.job = Arc::unwrap_or_clone(job),
                    None => record = self.load(&id).await?,
                }
            }
            let mut appended = self.log.watch(&id);
            // Before the page is in memory. It also bounds how many are read at a time.
            let room = self.answers.room(&owner, most, time_limit).await?;
            // After the state: once that is final the log is complete, so this page can be known to be the last.
            let page = self.log.read(&id, *cursor, PAGE_BYTES).await.map_err(status::of_log)?;
            if let [only] = &page.records[..]
                && only.encoded_len() > most
            {
                // A record may be longer than a page: it is read again when there is room for it.
                most = only.encoded_len();
                continue;
            }
            if page.last_position < *cursor {
                // The log was restored from a copy that ends before the cursor: all records of it are new.
                *cursor = page.last_position;
                if let Some(reading) = reading {
                    reading.restored();
                    self.record_place(&id, record.plain_cursor, *cursor, reading).await;
                }
            }
            let now = Instant::now();
            // The state follows the log's end within a moment. Then this page is the last.
            let is_ending = page.has_end() && now < *end_seen.get_or_insert(now) + END_LAG;
            let has_news = !page.records.is_empty() && !is_ending;
            if has_news || record.job.state.is_final() || now >= deadline {
                return Ok((record, page, room));
            }
            drop((page, room));
            tokio::select! {
                () = tokio::time::sleep(END_LAG), if is_ending => {}
                _ = changes.changed() => changes.mark_changed(),
                _ = appended.changed() => {}
                () = tokio::time::sleep(POLL_PERIOD) => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    async fn load(&self, id: &JobId) -> Result<JobRecord, Status> {
        self.store.load(id).await.map_err(status::of_store)?.ok_or_else(status::unknown_job)
    }

    async fn cached(&self, id: &JobId) -> Result<Arc<CachedJob>, Status> {
        let now = clock::now_ms();
        if let Some(cached) = lock(&self.jobs).get(id, now) {
            return Ok(cached);
        }
        let headings = self.store.headings(id).await.map_err(status::of_store)?;
        Ok(lock(&self.jobs).add(id.clone(), headings, now))
    }
}

/// Status of a page that does not end the log of a finished job.
fn running() -> v1::JobStatus {
    v1::JobStatus { code: v1::job_status::Code::Running.into(), ..v1::JobStatus::default() }
}

#[cfg(test)]
mod tests {
    use sqlflow_identity::Policy;
    use sqlflow_job::{
        AttemptId, Cause, Event, Failure, JobKey, JobState, LauncherId, LauncherKind, Role, Token,
    };
    use sqlflow_job_store::{NewJob, ServerId, SqliteStore};
    use sqlflow_proto::record::{Notice, Record, notice, record::Payload};
    use sqlflow_result_log::{Entry, Producer};

    use super::*;
    use crate::fixture;

    /// By its token, from the beginning.
    fn opened(id: &JobId, token: Token) -> Opened {
        let token = CursorToken { key: JobKey::Token(token), cursor: Some(0) };
        Opened { id: id.clone(), token, caller: Policy::default().caller(None), right: Right::Token }
    }
    use crate::metrics::{MeasuredStore, Metrics};

    #[tokio::test]
    async fn waiting_fetch_returns_a_new_record_with_one_load() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&dir.path().join("state.db")).await.unwrap());
        let metrics = Metrics::default();
        let measured = Arc::new(MeasuredStore::new(store.clone(), metrics.clone()));
        let fetcher =
            Fetcher::new(measured, Arc::new(fixture::log(&dir.path().join("log"))), AnswerBudget::default());
        let job = fixture::job(true);
        let attempt = AttemptId { job: job.id.clone(), step: 0, number: 1 };
        let token = Token::generate();
        let new = NewJob { token: token.hash(), ..fixture::new_job(job, &ServerId("test".to_owned())) };
        store.create(new).await.unwrap();
        let updates = async {
            tokio::time::sleep(LONG_POLL / 4).await;
            let created = Event::AttemptCreated {
                step: 0,
                role: Role::Run,
                launcher_id: LauncherId::of(LauncherKind::Local),
            };
            let launched =
                Event::AttemptLaunched { attempt: attempt.clone(), tracker_url: None, executor_uid: None };
            for event in [created, launched] {
                store.update(&attempt.job, None, event, 0).await.unwrap();
                tokio::time::sleep(LONG_POLL / 10).await;
            }
        };
        let fetched =
            fetcher.fetch(opened(&attempt.job, token), Call::new(Arc::default(), None), DEFAULT_LARGEST);
        let (fetched, ()) = tokio::join!(fetched, updates);
        let status = fetched.unwrap().into_inner().job_status.unwrap();
        assert_eq!((status.code(), fixture::loads(&metrics)), (v1::job_status::Code::Running, 1));
    }

    /// Otherwise each reader of a short job would need another call.
    #[tokio::test]
    async fn page_with_the_logs_end_waits_for_the_final_state() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&dir.path().join("state.db")).await.unwrap());
        let log = Arc::new(fixture::tiered_log(&store, &dir.path().join("log")));
        let fetcher = Fetcher::new(store.clone(), log.clone(), AnswerBudget::default());
        let (job, token) = (fixture::job(true), Token::generate());
        let id = job.id.clone();
        let new = NewJob { token: token.hash(), ..fixture::new_job(job, &ServerId("test".to_owned())) };
        store.create(new).await.unwrap();
        let cancel = Failure::new(Cause::Cancelled, "by a user");
        store.update(&id, None, Event::CancelRequested(cancel.clone()), 0).await.unwrap();
        let ends = async {
            let end = Notice { kind: notice::Kind::End.into(), text: "by a user".to_owned() };
            let record = Record { payload: Some(Payload::Notice(end)), ..Record::default() };
            let entry = Entry { producer: Producer::server(0), record };
            log.append(&id, vec![entry]).await.unwrap();
            tokio::time::sleep(END_LAG / 4).await;
            store.update(&id, None, Event::Finished(JobState::Failed(cancel)), 0).await.unwrap();
        };
        let fetched = fetcher.fetch(opened(&id, token), Call::new(Arc::default(), None), DEFAULT_LARGEST);
        let (fetched, ()) = tokio::join!(fetched, ends);
        let status = fetched.unwrap().into_inner().job_status.unwrap();
        assert_eq!(status.code(), v1::job_status::Code::Failed);
    }
}
