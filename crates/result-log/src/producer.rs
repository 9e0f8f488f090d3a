//! Who numbers records.

use std::fmt;

use sqlflow_proto::record::StoredRecord;

use sqlflow_job::AttemptId;

/// Who said a record. Each producer that is an agent numbers its records from 1, without gaps, so that the log takes each of
/// them once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Producer {
    /// Index of the step.
    pub step: u32,
    /// Number of the attempt; 0 when a server speaks about the job.
    pub attempt: u32,
    /// Which of the attempt's agents; the one of rank 0 speaks for the attempt where several run it together.
    pub rank: u32,
}

impl Producer {
    /// The agent of this rank.
    #[must_use]
    pub fn agent(attempt: &AttemptId, rank: u32) -> Self {
        Self { step: attempt.step, attempt: attempt.number, rank }
    }

    /// A server that says something about a step; about the whole job, it is step 0.
    #[must_use]
    pub fn server(step: u32) -> Self {
        Self { step, attempt: 0, rank: 0 }
    }

    /// Who said a record of the log.
    #[must_use]
    pub fn of(stored: &StoredRecord) -> Self {
        Self { step: stored.step, attempt: stored.attempt, rank: stored.rank }
    }

    /// Whether it numbers its records.
    #[must_use]
    pub fn is_agent(&self) -> bool {
        self.attempt > 0
    }
}

impl fmt::Display for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}, attempt {}", self.step, self.attempt)?;
        if self.rank > 0 { write!(f, ", rank {}", self.rank) } else { Ok(()) }
    }
}
