//! Conversion of the outcome that an agent reports to the job's type.

use sqlflow_proto::agent::{self, outcome::Reason as WireReason};

use sqlflow_job::{Outcome, Reason};

/// Converts an agent's outcome to the part that decides how the job continues.
#[must_use]
pub fn from_wire(wire: &agent::Outcome) -> Outcome {
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
        // An unknown reason of a newer agent counts as a failure.
        WireReason::AgentFailed | WireReason::Unspecified => Reason::AgentFailed,
    };
    // The last lines of a traceback are the most useful ones.
    let start = wire.detail.len().saturating_sub(Outcome::MAX_DETAIL_BYTES);
    let detail = wire.detail[wire.detail.ceil_char_boundary(start)..].to_owned();
    Outcome {
        reason,
        message: cut(&wire.message).to_owned(),
        detail,
        retryable: wire.retryable,
        user_error: wire.user_error,
        evidence: evidence(wire),
        output_kept: wire.output_kept,
        unexplained: wire.unexplained,
        not_executed: wire.not_executed,
    }
}

/// The text, or its beginning: it becomes a part of the job's state.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(Outcome::MAX_MESSAGE_BYTES)]
}

/// `exit code 1; memory peak 63 MiB of 64 MiB; CPU time 3.2 s; largest process python3 (pid 7), 60 MiB`
fn evidence(wire: &agent::Outcome) -> String {
    let usage = wire.usage.clone().unwrap_or_default();
    let mib = |bytes: u64| format!("{} MiB", bytes.div_ceil(1 << 20));
    let mut all = Vec::new();
    all.extend(wire.exit_code.map(|code| format!("exit code {code}")));
    all.extend(wire.signal.map(|signal| format!("signal {signal}")));
    if usage.oom_kills > 0 {
        all.push(format!("{} processes killed for lack of memory", usage.oom_kills));
    }
    if usage.memory_peak_bytes > 0 {
        let limit = Some(usage.memory_limit_bytes).filter(|it| *it > 0);
        let limit = limit.map(|it| format!(" of {}", mib(it))).unwrap_or_default();
        all.push(format!("memory peak {}{limit}", mib(usage.memory_peak_bytes)));
    }
    if usage.cpu_micros > 0 {
        all.push(format!("CPU time {:.1} s", usage.cpu_micros as f64 / 1e6));
    }
    if let Some(largest) = usage.largest {
        let size = mib(largest.memory_bytes);
        all.push(format!("largest process {} (pid {}), {size}", largest.name, largest.pid));
    }
    if !wire.ended_by.is_empty() {
        all.push(format!("terminated by {}", wire.ended_by));
    }
    cut(&all.join("; ")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded() {
        let message = "é".repeat(1 << 19);
        let wire = agent::Outcome { ended_by: message.clone(), message, ..Default::default() };
        let outcome = from_wire(&wire);
        assert_eq!(outcome.message.len(), Outcome::MAX_MESSAGE_BYTES);
        assert!(outcome.evidence.len() <= Outcome::MAX_MESSAGE_BYTES, "{}", outcome.evidence.len());
    }

    #[test]
    fn long_detail_keeps_its_end() {
        let detail = "é".repeat(Outcome::MAX_DETAIL_BYTES) + "KeyError: x";
        let kept = from_wire(&agent::Outcome { detail, ..Default::default() }).detail;
        assert!(kept.ends_with("éKeyError: x") && kept.len() <= Outcome::MAX_DETAIL_BYTES, "{}", kept.len());
    }
}
