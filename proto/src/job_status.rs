//! What the state of a job means for its readers.

use crate::v1::{JobStatus, job_status::Code};

impl JobStatus {
    /// Whether the job has ended, and its log with it. A cancelled job has FAILED, with a cause.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        match self.code() {
            Code::Succeeded | Code::Failed => true,
            // A code of a later version may be followed by another one.
            Code::Pending | Code::Running | Code::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_succeeded_and_failed_are_terminal() {
        let terminal = |code: i32| JobStatus { code, ..JobStatus::default() }.is_terminal();
        assert!(terminal(Code::Succeeded.into()) && terminal(Code::Failed.into()));
        for code in [Code::Pending, Code::Running, Code::Unknown] {
            assert!(!terminal(code.into()), "{code:?}");
        }
        assert!(!terminal(1000), "a code of a later version");
    }
}
