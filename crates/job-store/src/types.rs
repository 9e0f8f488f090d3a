//! What goes into the store and comes out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::ErrorCode;

use sqlflow_job::{Job, JobId, Rejection, TokenHash};

/// One process of the server: a new one at every start.
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

/// The right to reconcile a job. The epoch rises with every claim; writes under an older one are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Who holds it.
    pub owner: ServerId,
    /// Which claim it is.
    pub epoch: i64,
}

impl Lease {
    /// The epoch of the lease that a job is recorded with.
    pub const FIRST_EPOCH: i64 = 1;
}

/// A job to be recorded.
#[derive(Debug)]
pub struct NewJob {
    /// The job in its first state.
    pub job: Job,
    /// Hash of its token.
    pub token: TokenHash,
    /// Who runs it.
    pub user_id: String,
    /// Text of the program.
    pub sql: String,
    /// The first characters of each statement.
    pub headings: Vec<String>,
    /// For each step, what its submitter is to do.
    pub step_specs: Vec<String>,
    /// Secrets by name.
    pub secrets: Vec<(String, Secret)>,
    /// 0: the job may go unfetched for ever.
    pub fetch_timeout_ms: i64,
    /// The server that reconciles it at first.
    pub owner: ServerId,
    /// How long that server's lease lasts without a heartbeat.
    pub lease: Duration,
    /// When Run took it.
    pub created_ms: i64,
    /// What Run was asked, if the client named the request; such a job's token follows from that name.
    pub request: Option<RequestHash>,
}

/// Keyed hash of all that decides what a Run does: of two requests with one id it shows whether they are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHash(pub [u8; 32]);

/// What recording a job came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It was recorded.
    New,
    /// The same request was recorded before, as this job.
    Before(JobId),
    /// Another request has this token.
    Conflict,
}

/// A job that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedJob {
    /// Which.
    pub id: JobId,
    /// When it ended.
    pub ended_ms: i64,
}

/// A live job that nobody fetched in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfetched {
    /// Which.
    pub id: JobId,
    /// The time that was allowed.
    pub timeout_ms: i64,
    /// When that was over.
    pub due_ms: i64,
}

/// A secret. `Debug` does not show it.
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

/// A job with what the store knows around it.
#[derive(Debug, Clone)]
pub struct JobRecord {
    /// The state.
    pub job: Job,
    /// Epoch of the lease that counts: a reconciler with an older one has lost the job.
    pub lease_epoch: i64,
    /// Who runs it.
    pub user_id: String,
    /// When it was recorded.
    pub created_ms: i64,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// Where Fetch with a plain token goes on.
    pub plain_cursor: u64,
    /// 0: never times out.
    pub fetch_timeout_ms: i64,
}

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only jobs of this user.
    pub user_id: Option<String>,
    /// Only jobs in these states (`JobState::name`); empty: all.
    pub states: Vec<&'static str>,
    /// Only jobs older than this one.
    pub before: Option<JobId>,
    /// At most so many.
    pub limit: u32,
}

/// Which jobs to claim.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Who claims.
    pub owner: ServerId,
    /// Servers known to be gone.
    pub dead: Vec<ServerId>,
    /// Jobs that the claimer leaves to others.
    pub except: Vec<JobId>,
    /// How long the lease lasts without a heartbeat.
    pub lease: Duration,
    /// At most so many.
    pub limit: u32,
}

/// Which write of a job's state it was, counted over all jobs of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub i64);

/// A job whose state was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Which.
    pub id: JobId,
    /// Its last write.
    pub revision: Revision,
}

/// What was written after a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Each job once, in the order of its last write.
    pub jobs: Vec<Changed>,
    /// What to ask with next.
    pub upto: Revision,
    /// There are more, to be asked for at once.
    pub has_more: bool,
    /// The store is older than the revision, for it is a restored copy: any job may be another than it was.
    pub is_older: bool,
}

/// The store could not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk that holds the state is full.
    #[error("no space is left for the server's state")]
    Full,
    /// Somebody else writes, and that takes too long.
    #[error("cannot change the server's state now: {why}")]
    Busy {
        /// Who, and what to do about it.
        why: String,
    },
    /// Reading takes too long.
    #[error("the server's state could not be read in time; see whether the disk of the state folder answers")]
    Slow,
    /// Anything else: the database is locked, damaged, not there.
    #[error("the server's state could not be read or written{}", code(.0))]
    Database(#[source] Arc<rusqlite::Error>),
    /// What is stored does not have the form it should.
    #[error("the stored state of job {0} is damaged")]
    Damaged(String, #[source] Arc<serde_json::Error>),
    /// A newer server wrote the job's document. This one would drop what it does not know of it.
    #[error(
        "cannot change job {job}: its document has version {version}, and this server knows up to {known}; \
         upgrade this server"
    )]
    Newer {
        /// The job.
        job: String,
        /// Version of the document.
        version: i64,
        /// The newest version that this server knows.
        known: i64,
    },
    /// The work was abandoned because the process is ending.
    #[error("the server is shutting down")]
    Closing,
}

/// SQLite's own words leave out which of its errors it was.
fn code(error: &rusqlite::Error) -> String {
    error.sqlite_extended_error_code().map(|code| format!(" (SQLite's code {code})")).unwrap_or_default()
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        /// There is no room for the memory that processes share (`SQLITE_IOERR_SHMSIZE`).
        const SHARED_MEMORY: i32 = 4874;
        let code = error.sqlite_error();
        let is_full =
            |it: &rusqlite::ffi::Error| it.code == ErrorCode::DiskFull || it.extended_code == SHARED_MEMORY;
        if code.is_some_and(is_full) { Self::Full } else { Self::Database(Arc::new(error)) }
    }
}

/// An event was not applied.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// There is no such job.
    #[error("there is no such job")]
    NotFound,
    /// Another reconciler has the lease.
    #[error("another server reconciles this job now")]
    Fenced,
    /// The job's state does not allow it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The store failed; the event may be tried again.
    #[error(transparent)]
    Store(#[from] StoreError),
}
