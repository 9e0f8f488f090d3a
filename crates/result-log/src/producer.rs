//! Producers of records.

use std::fmt;

use sqlflow_proto::record::StoredRecord;

use sqlflow_job::AttemptId;

/// The producer of a record. An agent numbers its records from 1 without gaps, so that the log stores each record once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Producer {
    /// Index of the step.
    pub step: u32,
    /// Number of the attempt; 0: a server.
    pub attempt: u32,
    /// Rank of the agent. Rank 0 reports the outcome of a distributed attempt.
    pub rank: u32,
}

impl Producer {
    /// The agent with this rank.
    #[must_use]
    pub fn agent(attempt: &AttemptId, rank: u32) -> Self {
        Self { step: attempt.step, attempt: attempt.number, rank }
    }

    /// A server, for a record about a step. A record about the whole job has step 0.
    #[must_use]
    pub fn server(step: u32) -> Self {
        Self { step, attempt: 0, rank: 0 }
    }

    /// The producer of a stored record.
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
