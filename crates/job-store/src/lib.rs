//! The state store: the state of all jobs. The trait [`Store`] is the only way to it, and servers hold nothing that
//! another server could not read here. The result log has an interface of its own (`sqlflow-result-log`).

#[cfg(any(test, feature = "test-support"))]
pub mod fixture;
mod job_watchers;
pub mod known_job;
mod membership;
pub mod secret_keys;
mod sqlite;
#[cfg(test)]
mod tests;
mod types;

pub use known_job::KnownJob;
pub use membership::Membership;
pub use secret_keys::SecretKeys;
pub use sqlite::{ServerLease, SqliteStore, Survey, SurveyError, Surveyed, SurveyedDocument};
pub use types::{
    Changed, Changes, Claim, Created, EndedJob, JobFilter, JobRecord, Lease, NewJob, RequestHash, Revision,
    Secret, ServerId, StoreError, Unfetched, UpdateError,
};

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use sqlflow_job::{Change, Event, Job, JobId, TokenHash};

/// The state of all jobs. Each method is one transaction, which is completed even if the caller is dropped. Writes
/// survive the death of any process. A power failure may undo the latest heartbeats, fetch times, plain cursors, and
/// events that [are found again](Event::is_found_again).
///
/// All times are milliseconds since the Unix epoch. Leases and fetch timeouts are judged by the store's clock only;
/// times that callers pass are recorded as they are.
///
/// A server has one lease, which its heartbeats renew. A job is held by the server that claimed it last, while that
/// server's lease is valid.
///
/// A damaged document affects its own job only: the job reads as FAILED, is ended when it is next loaded or written,
/// and can be removed.
///
/// ```
/// use std::time::Duration;
///
/// use sqlflow_job::{Cause, Change, Event, Failure, Job, JobId, Token};
/// use sqlflow_job_store::{Created, NewJob, ServerId, SqliteStore, Store};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// # let dir = tempfile::tempdir()?;
/// let store = SqliteStore::open(&dir.path().join("state.db")).await?;
/// let (id, token, server) = (JobId::generate(), Token::generate(), ServerId::generate());
/// let created = store
///     .create(NewJob {
///         job: Job::new(id.clone(), Vec::new()),
///         token: token.hash(),
///         principal: "unix:ana".to_owned(),
///         user_id: "ana".to_owned(),
///         sql: "SELECT 1".to_owned(),
///         headings: vec!["SELECT 1".to_owned()],
///         step_specs: Vec::new(),
///         secrets: Vec::new(),
///         fetch_timeout_ms: 0,
///         owner: server,
///         lease: Duration::from_secs(10),
///         created_ms: 0,
///         request: None,
///     })
///     .await?;
/// assert_eq!(created, Created::New);
/// assert_eq!(store.resolve(token.hash()).await?, Some(id.clone()));
///
/// let cancel = Event::CancelRequested(Failure::new(Cause::Cancelled, "cancelled by a user"));
/// let (job, change) = store.update(&id, None, cancel, 1).await?;
/// assert_eq!(change, Change::Changed);
/// assert_eq!(store.load(&id).await?.map(|record| record.job), Some(job));
/// # store.close().await;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Records a new job with its steps and secrets, held by the server in `owner`. With [`NewJob::request`] it is
    /// recorded only if no job has the token.
    async fn create(&self, job: NewJob) -> Result<Created, StoreError>;

    /// The id of the job with this token.
    async fn resolve(&self, token: TokenHash) -> Result<Option<JobId>, StoreError>;

    /// The job's record.
    async fn load(&self, id: &JobId) -> Result<Option<JobRecord>, StoreError>;

    /// The text of the program.
    async fn program(&self, id: &JobId) -> Result<Option<String>, StoreError>;

    /// The first characters of each statement of the program.
    async fn headings(&self, id: &JobId) -> Result<Vec<String>, StoreError>;

    /// The document for the submitter of a step, as passed to `create`.
    async fn step_spec(&self, id: &JobId, step: u32) -> Result<Option<String>, StoreError>;

    /// A secret of a live job.
    async fn secret(&self, id: &JobId, name: &str) -> Result<Option<Secret>, StoreError>;

    /// Applies an event; with a lease, only if the job is still held under it. A job that ends loses its secrets in the
    /// same transaction.
    async fn update(
        &self,
        id: &JobId,
        lease: Option<&Lease>,
        event: Event,
        now_ms: i64,
    ) -> Result<(Job, Change), UpdateError>;

    /// Jobs, newest first.
    async fn list(&self, filter: JobFilter) -> Result<Vec<JobRecord>, StoreError>;

    /// Claims up to `limit` live jobs of other servers whose lease has expired. Leases of servers in `dead` do not
    /// count. Jobs whose documents are newer than this server's version are not claimed.
    async fn claim(&self, claim: Claim) -> Result<Vec<(JobId, Lease)>, StoreError>;

    /// Releases a job, so that any server may claim it at once. No effect if it is not held under the lease.
    async fn release(&self, id: &JobId, lease: &Lease) -> Result<(), StoreError>;

    /// Up to `limit` live jobs that this server holds, with ids greater than `after`, by id.
    async fn held(
        &self,
        me: &ServerId,
        after: Option<&JobId>,
        limit: u32,
    ) -> Result<Vec<(JobId, Lease)>, StoreError>;

    /// The live ones of these jobs.
    async fn live(&self, ids: &[JobId]) -> Result<HashSet<JobId>, StoreError>;

    /// Servers other than `me` that hold live jobs and whose lease is valid.
    async fn lease_owners(&self, me: &ServerId) -> Result<Vec<ServerId>, StoreError>;

    /// Whether this server's lease is valid. Reads one row.
    async fn lease_lasts(&self, server: &ServerId) -> Result<bool, StoreError>;

    /// Renews this server's lease. Time in which no server ran is added to the fetch deadline of all live jobs, if it
    /// is longer than `tolerance`.
    async fn heartbeat(&self, me: &ServerId, lease: Duration, tolerance: Duration) -> Result<(), StoreError>;

    /// Records that a client fetches from the job.
    async fn fetched(&self, id: &JobId) -> Result<(), StoreError>;

    /// Up to `limit` live jobs whose fetch timeout has passed, as of the last heartbeat, after this one, in order of
    /// the deadline.
    async fn unfetched(&self, after: Option<&Unfetched>, limit: u32) -> Result<Vec<Unfetched>, StoreError>;

    /// Moves the plain token's cursor from `from` to `to`; no effect if it is not at `from`.
    async fn advance_plain_cursor(&self, id: &JobId, from: u64, to: u64) -> Result<(), StoreError>;

    /// Up to `limit` jobs that ended before this time, after this one, oldest first.
    async fn ended_before(
        &self,
        ended_ms: i64,
        after: Option<&EndedJob>,
        limit: u32,
    ) -> Result<Vec<EndedJob>, StoreError>;

    /// Number of jobs, by the names of their states.
    async fn counts(&self) -> Result<Vec<(String, i64)>, StoreError>;

    /// Number of a principal's jobs that have not ended.
    async fn live_jobs_of(&self, principal: &str) -> Result<u64, StoreError>;

    /// Bytes of the programs of all jobs of a principal.
    async fn program_bytes_of(&self, principal: &str) -> Result<u64, StoreError>;

    /// All jobs of a principal.
    async fn jobs_of(&self, principal: &str) -> Result<Vec<JobId>, StoreError>;

    /// Checks whether new jobs can be recorded. It writes nothing: this process's heartbeats show it.
    ///
    /// # Errors
    /// The reason, in one sentence.
    async fn can_record(&self) -> Result<(), String>;

    /// Removes a job that has ended; a live one stays.
    async fn remove(&self, id: &JobId) -> Result<(), StoreError>;

    /// The principal whose model this is; `None`: nobody's, or of a time before servers kept it.
    async fn model_owner(&self, model: &str) -> Result<Option<String>, StoreError>;

    /// Up to `limit` models of a principal, by name.
    async fn models_of(&self, principal: &str, limit: u32) -> Result<Vec<String>, StoreError>;

    /// Makes the principal of a job the owner of a model that has none. Returns the owner. `None`: the job has no
    /// principal.
    async fn own_model(&self, job: &JobId, model: &str) -> Result<Option<String>, StoreError>;

    /// Forgets the owner of a model that was dropped.
    async fn disown_model(&self, model: &str) -> Result<(), StoreError>;

    /// Up to `limit` jobs whose state was written after this revision, by any process. Removals are not reported.
    async fn changes(&self, since: Revision, limit: u32) -> Result<Changes, StoreError>;

    /// A watch that changes after each write of the job's state: at once if this process wrote it, within about a
    /// second otherwise. Subscribe first and load then to miss nothing. The value is what this process knows of the
    /// job; see [`known_job`].
    fn watch(&self, id: &JobId) -> watch::Receiver<KnownJob>;
}
