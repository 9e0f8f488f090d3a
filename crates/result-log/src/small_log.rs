//! Small logs. They are stored with the state of the jobs, so that they need no file and share the commits of the
//! state. Their bytes are those of the first segment of a log in a folder.

mod log_state;
mod pages;

use super::durability::Durability;
use async_trait::async_trait;
use bytes::Bytes;

use sqlflow_job::{Change, Event, Job, JobId};

pub(super) use log_state::{Planned, SmallLogState};
pub(super) use pages::page;

/// Result of a conditional write of a small log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmallWrite {
    /// It was written.
    Done,
    /// The condition does not hold, so nothing was written.
    Conflict,
}

/// Storage of small logs. Each method is one transaction.
#[async_trait]
pub trait SmallLogs: Send + Sync + 'static {
    /// The log after its first `known` bytes.
    async fn read(&self, job: &JobId, known: u64) -> Result<SmallLog, SmallLogError>;

    /// Appends the bytes, if the log has exactly `length` bytes and is not frozen.
    async fn append(
        &self,
        job: &JobId,
        length: u64,
        bytes: Vec<u8>,
        durability: Durability,
    ) -> Result<SmallWrite, SmallLogError>;

    /// Appends the bytes as `append` does, and applies the event to the job: both or neither. `None`: neither.
    async fn append_and_apply(
        &self,
        job: &JobId,
        length: u64,
        bytes: Vec<u8>,
        event: Event,
        now_ms: i64,
    ) -> Result<Option<(Job, Change)>, SmallLogError>;

    /// Freezes the log, so that nothing more is appended, if it has exactly `length` bytes and is not frozen.
    async fn freeze(&self, job: &JobId, length: u64) -> Result<SmallWrite, SmallLogError>;

    /// Removes the bytes of a frozen log, which stays frozen, if there is one.
    async fn empty(&self, job: &JobId) -> Result<SmallWrite, SmallLogError>;

    /// Removes the log. The removal of its job does so too.
    async fn delete(&self, job: &JobId) -> Result<(), SmallLogError>;

    /// The jobs whose logs have bytes here, unordered.
    async fn jobs(&self) -> Result<Vec<JobId>, SmallLogError>;

    /// Bytes of the logs of these jobs.
    async fn bytes(&self, jobs: &[JobId]) -> Result<u64, SmallLogError>;
}

/// The content of a small log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SmallLog {
    /// All its bytes.
    pub length: u64,
    /// The bytes after the known ones; none if there are fewer.
    pub bytes: Bytes,
    /// Whether nothing is appended here any more, because the log is in a folder or about to be.
    pub is_frozen: bool,
}

impl SmallLog {
    /// The damage of the log with these bytes.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        SmallLogState::default().follow(self).err()
    }
}

/// An error of small logs.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub struct SmallLogError {
    /// The error, in one sentence.
    pub why: String,
    /// Whether the disk is full.
    pub is_full: bool,
}
