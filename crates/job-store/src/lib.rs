//! Where jobs are kept. The trait is the only way to the state: servers keep nothing that another could not read
//! here, so that any of them may die or take over at any moment. The result log has an interface of its own (`log`).

#[cfg(any(test, feature = "test-support"))]
pub mod fixture;
mod hub;
pub mod known_job;
mod membership;
mod sqlite;
#[cfg(test)]
mod tests;
mod types;

pub use known_job::KnownJob;
pub use membership::Membership;
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

/// The state of all jobs. Every method is one transaction; it either happened or it did not, also when the caller
/// is dropped. What was written is there after the death of any process. After a power failure of the machine this may be
/// missing: heartbeats, when a job was fetched last, the places of plain tokens, and events that
/// [are found again](Event::is_found_again). All times are milliseconds since the Unix epoch. Leases and fetch timeouts are
/// judged by one clock, the store's; the times that callers give are only recorded.
///
/// A server has one lease, which its heartbeat prolongs. A job is held by the server that took it last, and that
/// counts as long as the server's lease lasts.
///
/// A damaged document fails its own job and nothing else: the job reads as FAILED, ends as that when it is next
/// loaded or written, and can be removed.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Records a new job with its steps and secrets, held by the server that took it. With [`NewJob::request`], only
    /// if no job has the token yet.
    async fn create(&self, job: NewJob) -> Result<Created, StoreError>;

    /// The job that has this token.
    async fn resolve(&self, token: TokenHash) -> Result<Option<JobId>, StoreError>;

    /// A job as it stands.
    async fn load(&self, id: &JobId) -> Result<Option<JobRecord>, StoreError>;

    /// The text of the job's program.
    async fn program(&self, id: &JobId) -> Result<Option<String>, StoreError>;

    /// The first characters of each statement of the program.
    async fn headings(&self, id: &JobId) -> Result<Vec<String>, StoreError>;

    /// What the submitter of a step is to do, as it was given to `create`.
    async fn step_spec(&self, id: &JobId, step: u32) -> Result<Option<String>, StoreError>;

    /// A secret of a job that has not ended.
    async fn secret(&self, id: &JobId, name: &str) -> Result<Option<Secret>, StoreError>;

    /// Applies an event. With a lease, only if that lease is still the job's. A job that ends loses its secrets in
    /// the same transaction.
    async fn update(
        &self,
        id: &JobId,
        lease: Option<&Lease>,
        event: Event,
        now_ms: i64,
    ) -> Result<(Job, Change), UpdateError>;

    /// Jobs, newest first.
    async fn list(&self, filter: JobFilter) -> Result<Vec<JobRecord>, StoreError>;

    /// Takes up to `limit` jobs that have not ended and whose owner's lease has run out, other than the claimer's own.
    /// `dead` are servers known to be gone, whose leases count for nothing. Jobs whose documents are newer than this
    /// server knows are left alone.
    async fn claim(&self, claim: Claim) -> Result<Vec<(JobId, Lease)>, StoreError>;

    /// Gives a job back, so that any server may claim it at once. Nothing happens if the lease is no longer the job's.
    async fn release(&self, id: &JobId, lease: &Lease) -> Result<(), StoreError>;

    /// The live jobs that this server holds: up to `limit`, after this one, by their ids.
    async fn held(
        &self,
        me: &ServerId,
        after: Option<&JobId>,
        limit: u32,
    ) -> Result<Vec<(JobId, Lease)>, StoreError>;

    /// Those of these jobs that have not ended.
    async fn live(&self, ids: &[JobId]) -> Result<HashSet<JobId>, StoreError>;

    /// Servers other than `me` that hold live jobs and whose lease has not run out.
    async fn lease_owners(&self, me: &ServerId) -> Result<Vec<ServerId>, StoreError>;

    /// Whether this server's lease has not run out. One row is read.
    async fn lease_lasts(&self, server: &ServerId) -> Result<bool, StoreError>;

    /// Prolongs this server's lease, and says that a server is there. Time in which none was there is added to every
    /// live job's fetch deadline, when it is longer than `tolerance`.
    async fn heartbeat(&self, me: &ServerId, lease: Duration, tolerance: Duration) -> Result<(), StoreError>;

    /// Somebody reads the job's log.
    async fn fetched(&self, id: &JobId) -> Result<(), StoreError>;

    /// Up to `limit` live jobs that nobody fetched in time, as of the last heartbeat, and that come after this one, those first that are due
    /// for longest.
    async fn unfetched(&self, after: Option<&Unfetched>, limit: u32) -> Result<Vec<Unfetched>, StoreError>;

    /// Moves the plain token's cursor from `from` to `to`; nothing happens if it is elsewhere.
    async fn advance_plain_cursor(&self, id: &JobId, from: u64, to: u64) -> Result<(), StoreError>;

    /// Up to `limit` jobs that ended before this time and come after this one, oldest first.
    async fn ended_before(
        &self,
        ended_ms: i64,
        after: Option<&EndedJob>,
        limit: u32,
    ) -> Result<Vec<EndedJob>, StoreError>;

    /// How many jobs there are, by the names of their states.
    async fn counts(&self) -> Result<Vec<(String, i64)>, StoreError>;

    /// Whether new jobs can be recorded. Nothing is written for that: the heartbeats of this process tell.
    ///
    /// # Errors
    /// Why not, in one sentence.
    async fn can_record(&self) -> Result<(), String>;

    /// Forgets a job that has ended.
    async fn remove(&self, id: &JobId) -> Result<(), StoreError>;

    /// Up to `limit` jobs whose state was written after this revision, by any process. A job that was removed is not told
    /// of.
    async fn changes(&self, since: Revision, limit: u32) -> Result<Changes, StoreError>;

    /// Changes after each write of the job's state: at once if this process wrote it, within about a second if another
    /// did. A watcher that subscribes first and loads then misses nothing. The value is what this process knows of the
    /// job; see [`known_job`].
    fn watch(&self, id: &JobId) -> watch::Receiver<KnownJob>;
}
