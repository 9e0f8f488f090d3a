//! Where jobs are kept. The trait is the only way to the state: servers keep nothing that another could not read
//! here, so that any of them may die or take over at any moment. The result log has an interface of its own (`log`).

mod hub;
mod sqlite;
#[cfg(test)]
mod tests;
mod types;

pub use sqlite::SqliteStore;
pub use types::{Claim, JobFilter, JobRecord, Lease, NewJob, Secret, ServerId, StoreError, UpdateError};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::job::{Change, Event, Job, JobId, TokenHash};

/// The state of all jobs. Every method is one transaction; it either happened or it did not, also when the caller
/// is dropped. All times are milliseconds since the Unix epoch.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Records a new job with its steps and secrets, under a lease of the server that took it.
    async fn create(&self, job: NewJob) -> Result<(), StoreError>;

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

    /// Takes up to `limit` jobs that have not ended and have no live lease. `dead` are servers known to be gone,
    /// whose leases count for nothing.
    async fn claim(&self, claim: Claim) -> Result<Vec<(JobId, Lease)>, StoreError>;

    /// Servers other than `me` that hold an unexpired lease.
    async fn lease_owners(&self, me: &ServerId, now_ms: i64) -> Result<Vec<ServerId>, StoreError>;

    /// Prolongs all leases of this server, and says that a server is there. Time in which none was there is added
    /// to every live job's fetch deadline, when it is longer than `tolerance_ms`.
    async fn heartbeat(
        &self,
        me: &ServerId,
        now_ms: i64,
        lease_until_ms: i64,
        tolerance_ms: i64,
    ) -> Result<(), StoreError>;

    /// Somebody reads the job's log.
    async fn fetched(&self, id: &JobId, now_ms: i64) -> Result<(), StoreError>;

    /// Live jobs that nobody fetched in time, with the time allowed in milliseconds.
    async fn unfetched(&self, now_ms: i64) -> Result<Vec<(JobId, i64)>, StoreError>;

    /// Moves the plain token's cursor from `from` to `to`; nothing happens if it is elsewhere.
    async fn advance_plain_cursor(&self, id: &JobId, from: u64, to: u64) -> Result<(), StoreError>;

    /// Up to `limit` jobs that ended before this time, oldest first.
    async fn ended_before(&self, ended_ms: i64, limit: u32) -> Result<Vec<JobId>, StoreError>;

    /// How many jobs there are, by the names of their states.
    async fn counts(&self) -> Result<Vec<(String, i64)>, StoreError>;

    /// Forgets a job that has ended.
    async fn remove(&self, id: &JobId) -> Result<(), StoreError>;

    /// Changes whenever this process changed the job. Changes by other processes are not seen here: poll as well.
    fn watch(&self, id: &JobId) -> watch::Receiver<u64>;
}
