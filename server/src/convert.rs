//! Between the wire's types and the job's.

use sqlflow_proto::agent::{self, outcome::Reason as WireReason};

use crate::job::{Outcome, Reason};

/// The part of an agent's outcome that a job's course depends on.
#[must_use]
pub fn outcome(wire: &agent::Outcome) -> Outcome {
    let reason = match wire.reason() {
        WireReason::Succeeded => Reason::Succeeded,
        WireReason::Exited => Reason::Exited,
        WireReason::Signaled => Reason::Signaled,
        WireReason::OutOfMemory => Reason::OutOfMemory,
        WireReason::Cancelled => Reason::Cancelled,
        WireReason::Terminated => Reason::Terminated,
        WireReason::StartFailed => Reason::StartFailed,
        WireReason::InputFailed => Reason::InputFailed,
        WireReason::PublishFailed => Reason::PublishFailed,
        WireReason::Refused => Reason::Refused,
        WireReason::Lost => Reason::Lost,
        WireReason::LaunchFailed => Reason::LaunchFailed,
        WireReason::Deadline => Reason::Deadline,
        // A reason of a newer agent is at least a failure.
        WireReason::AgentFailed | WireReason::Unspecified => Reason::AgentFailed,
    };
    // A traceback's last lines say most.
    let start = wire.detail.len().saturating_sub(Outcome::MAX_DETAIL_BYTES);
    let detail = wire.detail[wire.detail.ceil_char_boundary(start)..].to_owned();
    Outcome {
        reason,
        message: wire.message.clone(),
        detail,
        retryable: wire.retryable,
        output_kept: wire.output_kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_traceback_keeps_its_end() {
        let detail = "é".repeat(Outcome::MAX_DETAIL_BYTES) + "KeyError: x";
        let kept = outcome(&agent::Outcome { detail, ..Default::default() }).detail;
        assert!(kept.ends_with("éKeyError: x") && kept.len() <= Outcome::MAX_DETAIL_BYTES, "{}", kept.len());
    }
}
