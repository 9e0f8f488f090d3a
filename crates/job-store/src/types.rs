//! Parameters, results and errors of the store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::ErrorCode;

use sqlflow_job::{Job, JobId, Rejection, TokenHash};

/// Id of a server process; each start has a new one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerId(pub String);

impl ServerId {
    /// A new id.
    #[must_use]
    pub fn generate() -> Self {
        Self(format!("{:016x}", rand::random::<u64>()))
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The right to reconcile a job. The epoch is a fencing token: it increases with each claim, and writes under an older
/// one are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The server that holds it.
    pub owner: ServerId,
    /// Number of the claim.
    pub epoch: i64,
}

impl Lease {
    /// Epoch of the first lease of a job.
    pub const FIRST_EPOCH: i64 = 1;
}

/// Parameters of [`Store::create`](crate::Store::create).
#[derive(Debug)]
pub struct NewJob {
    /// The job in its initial state.
    pub job: Job,
    /// Hash of its token.
    pub token: TokenHash,
    /// Who runs it, as the server knows them.
    pub principal: String,
    /// User, as given in the session; for listings.
    pub user_id: String,
    /// Text of the program.
    pub sql: String,
    /// First characters of each statement.
    pub headings: Vec<String>,
    /// Document for the submitter of each step.
    pub step_specs: Vec<String>,
    /// Secrets by name.
    pub secrets: Vec<(String, Secret)>,
    /// Fetch timeout in milliseconds; 0: none.
    pub fetch_timeout_ms: i64,
    /// Server that reconciles it first.
    pub owner: ServerId,
    /// Duration of that server's lease without a heartbeat.
    pub lease: Duration,
    /// Time of the Run.
    pub created_ms: i64,
    /// Hash of the request, if the client sent a request id. The token of such a job is derived from the id.
    pub request: Option<RequestHash>,
}

/// Keyed hash of a Run request, by which two requests with one id are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHash(pub [u8; 32]);

/// Result of [`Store::create`](crate::Store::create).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// The job was recorded.
    New,
    /// The same request was recorded before, as this job. Nothing was written.
    Before(JobId),
    /// A different request has this token. Nothing was written.
    Conflict,
}

/// A job that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedJob {
    /// Id.
    pub id: JobId,
    /// Time of its end.
    pub ended_ms: i64,
}

/// A live job whose fetch timeout has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfetched {
    /// Id.
    pub id: JobId,
    /// Fetch timeout.
    pub timeout_ms: i64,
    /// Deadline.
    pub due_ms: i64,
}

/// A secret, which `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// A job with its metadata in the store.
#[derive(Debug, Clone)]
pub struct JobRecord {
    /// State of the job.
    pub job: Job,
    /// Epoch of the current lease. A reconciler with an older one has lost the job.
    pub lease_epoch: i64,
    /// Who runs it, as the server knows them; `None`: an older server recorded it.
    pub principal: Option<String>,
    /// User, as given in the session; for listings.
    pub user_id: String,
    /// Time at which it was recorded.
    pub created_ms: i64,
    /// Time of its end.
    pub ended_ms: Option<i64>,
    /// Cursor of the plain token.
    pub plain_cursor: u64,
    /// Fetch timeout in milliseconds; 0: none.
    pub fetch_timeout_ms: i64,
}

/// Filter of a list of jobs.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Jobs of this principal only.
    pub principal: Option<String>,
    /// Jobs of sessions that name this user only.
    pub user_id: Option<String>,
    /// Jobs in these states only (`JobState::name`); empty: all states.
    pub states: Vec<&'static str>,
    /// Jobs older than this one only.
    pub before: Option<JobId>,
    /// Maximum number of jobs.
    pub limit: u32,
}

/// Parameters of [`Store::claim`](crate::Store::claim).
#[derive(Debug, Clone)]
pub struct Claim {
    /// Server that claims.
    pub owner: ServerId,
    /// Servers that are known to have ended.
    pub dead: Vec<ServerId>,
    /// Jobs that are not claimed.
    pub except: Vec<JobId>,
    /// Duration of the lease without a heartbeat.
    pub lease: Duration,
    /// Maximum number of jobs.
    pub limit: u32,
}

/// Number of a write of a job's state, counted over all jobs of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub i64);

/// A write of a job's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Id.
    pub id: JobId,
    /// Revision of its last write.
    pub revision: Revision,
}

/// Writes after a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The written jobs, each once, in order of their last writes.
    pub jobs: Vec<Changed>,
    /// Revision for the next call.
    pub upto: Revision,
    /// Whether there are more writes now.
    pub has_more: bool,
    /// Whether the store is older than the revision, because a copy was restored: any job may have changed.
    pub is_older: bool,
}

/// An error of the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk that holds the state is full.
    #[error("cannot write the server's state: no space is left on its disk")]
    Full,
    /// Another write takes too long.
    #[error("cannot change the server's state now: {why}")]
    Busy {
        /// The writer, and a fix.
        why: String,
    },
    /// A read takes too long.
    #[error(
        "cannot read the server's state: the disk did not respond in time; check the disk of the state folder"
    )]
    Slow,
    /// Any other error: the database is locked, damaged or missing.
    #[error("cannot read or write the server's state{}", code(.0))]
    Database(#[source] Arc<rusqlite::Error>),
    /// The stored document has the wrong form.
    #[error("the stored state of job {0} is damaged")]
    Damaged(String, #[source] Arc<serde_json::Error>),
    /// The secrets of the job are encrypted with a key that this server lacks.
    #[error(
        "cannot read the data source of job {job}: it is encrypted with the key {key}, which this server does not have; \
         give it that key by --secrets-key-old, and restart it"
    )]
    OtherKey {
        /// The job.
        job: String,
        /// Id of the key.
        key: String,
    },
    /// The secrets of the job were changed since they were encrypted.
    #[error(
        "the stored data source of job {0} is damaged: it was not encrypted for this job with the key that it names"
    )]
    DamagedSecret(String),
    /// A newer server wrote the job's document. A write by this one would drop fields.
    #[error(
        "cannot change job {job}: its document has version {version}, and this server knows up to {known}; \
         upgrade this server"
    )]
    Newer {
        /// The job.
        job: String,
        /// Version of the document.
        version: i64,
        /// Newest version that this server knows.
        known: i64,
    },
    /// The call was abandoned because the process ends.
    #[error("the server is shutting down")]
    Closing,
}

/// SQLite's messages do not contain the error code.
fn code(error: &rusqlite::Error) -> String {
    error.sqlite_extended_error_code().map(|code| format!(" (SQLite's code {code})")).unwrap_or_default()
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        /// There is no space for the shared memory file (`SQLITE_IOERR_SHMSIZE`).
        const SHARED_MEMORY: i32 = 4874;
        let code = error.sqlite_error();
        let is_full =
            |it: &rusqlite::ffi::Error| it.code == ErrorCode::DiskFull || it.extended_code == SHARED_MEMORY;
        if code.is_some_and(is_full) { Self::Full } else { Self::Database(Arc::new(error)) }
    }
}

/// An error of [`Store::update`](crate::Store::update): the event was not applied.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// No such job.
    #[error("there is no such job")]
    NotFound,
    /// Another reconciler holds the lease.
    #[error("another server reconciles this job now")]
    Fenced,
    /// The job's state does not allow the event.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The store failed; the event can be retried.
    #[error(transparent)]
    Store(#[from] StoreError),
}
