//! Logs of jobs that say little. They are kept with the state of the jobs, so that they cost no file of their own and share
//! the commits of the state. Their bytes are those of the first segment of a log in a folder.

mod log_state;
mod pages;

use super::durability::Durability;
use async_trait::async_trait;
use bytes::Bytes;

use sqlflow_job::{Change, Event, Job, JobId};

pub(super) use log_state::{Planned, SmallLogState};
pub(super) use pages::page;

/// Where small logs are kept. Every method is one transaction.
#[async_trait]
pub trait SmallLogs: Send + Sync + 'static {
    /// The log behind its first `known` bytes.
    async fn read(&self, job: &JobId, known: u64) -> Result<SmallLog, SmallLogError>;

    /// Appends the bytes, if the log has exactly `length` bytes and is not frozen. False: it is otherwise.
    async fn append(
        &self,
        job: &JobId,
        length: u64,
        bytes: Vec<u8>,
        durability: Durability,
    ) -> Result<bool, SmallLogError>;

    /// Appends the bytes as `append` does, and applies the event to the job: both or neither. `None`: neither.
    async fn append_and_apply(
        &self,
        job: &JobId,
        length: u64,
        bytes: Vec<u8>,
        event: Event,
        now_ms: i64,
    ) -> Result<Option<(Job, Change)>, SmallLogError>;

    /// Lets nothing more be appended, if the log has exactly `length` bytes. False: it has not, or is frozen already.
    async fn freeze(&self, job: &JobId, length: u64) -> Result<bool, SmallLogError>;

    /// Drops the bytes of a frozen log. It stays frozen. False: there is none.
    async fn empty(&self, job: &JobId) -> Result<bool, SmallLogError>;

    /// Removes the log. It also goes with its job.
    async fn delete(&self, job: &JobId) -> Result<(), SmallLogError>;

    /// The jobs whose logs have bytes here, in no order.
    async fn jobs(&self) -> Result<Vec<JobId>, SmallLogError>;
}

/// What there is of a small log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SmallLog {
    /// All its bytes.
    pub length: u64,
    /// Those behind the known ones; none if there are fewer.
    pub bytes: Bytes,
    /// Nothing is appended here any more: the log is in a folder, or about to be.
    pub is_frozen: bool,
}

impl SmallLog {
    /// What is wrong with the log, all of whose bytes these are.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        SmallLogState::default().follow(self).err()
    }
}

/// Why small logs could not be read or changed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub struct SmallLogError {
    /// One sentence.
    pub why: String,
    /// The disk is full.
    pub is_full: bool,
}
