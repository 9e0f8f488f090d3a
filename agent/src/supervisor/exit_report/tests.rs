//! Reports of ends.

use super::*;

fn exited(status: ExitStatus, oom_kills: u32) -> Option<Exit> {
    Some(Exit { status, oom_kills, memory_limit: 0, memory_peak: 0 })
}

fn report(exit: Option<Exit>, failure: Option<&Failure>) -> ExitReport {
    let leaves_open = failure.is_none_or(|failure| failure.unclear);
    exit_report(None, Evidence { program: COMMAND, exit, is_by_agent: false, failure, leaves_open })
}

#[test]
fn failure_of_the_submitter_is_the_message() {
    let failure = Failure {
        message: "no such column: `clas`; did you mean `class`?".into(),
        detail: "Traceback …".into(),
        user_error: true,
        transient: false,
        ..Default::default()
    };
    let report = report(exited(ExitStatus::Code(1), 0), Some(&failure));
    assert_eq!(report.reason, Reason::Exited);
    assert_eq!(report.message, failure.message);
    assert_eq!(report.detail, "Traceback …");
    assert!(report.user_error && !report.retryable && !report.unexplained);
}

#[test]
fn stderr_tail_explains_only_unexplained_exits() {
    let mut silent = report(exited(ExitStatus::Code(1), 0), None);
    silent.explain("No module named 'x'");
    assert_eq!(silent.message, "the command exited with code 1: No module named 'x'");
    assert!(silent.unexplained, "stderr is not a report of the submitter");
    let unclear = Failure { message: "too large to be shown".into(), unclear: true, ..Default::default() };
    assert!(report(exited(ExitStatus::Code(1), 0), Some(&unclear)).unexplained);
    let busy = Failure { transient: true, not_executed: true, ..Default::default() };
    let refused = report(exited(ExitStatus::Code(1), 0), Some(&busy));
    assert!(refused.retryable && refused.not_executed && !refused.unexplained);
    let failure = Failure { message: "no such table: t".into(), ..Default::default() };
    let mut explained = report(exited(ExitStatus::Code(1), 0), Some(&failure));
    explained.explain("some warning");
    assert_eq!(explained.message, "no such table: t");
}

#[test]
fn transient_failure_is_retryable() {
    let failure = Failure { message: "connection refused".into(), transient: true, ..Default::default() };
    assert!(report(exited(ExitStatus::Code(1), 0), Some(&failure)).retryable);
}

#[test]
fn oom_kill_is_reported_for_any_exit_status() {
    for status in [ExitStatus::Signal(9), ExitStatus::Code(1)] {
        let report = report(exited(status, 1), None);
        assert_eq!((report.reason, report.retryable), (Reason::OutOfMemory, false));
    }
}

/// In a shared cgroup, the killed process may belong to another job.
#[test]
fn oom_kill_does_not_hide_a_user_error() {
    let report_of = |status, user_error| {
        let failure = Failure { message: "no such table: t".into(), user_error, ..Default::default() };
        report(exited(status, 1), Some(&failure))
    };
    let mistaken = report_of(ExitStatus::Code(1), true);
    assert_eq!((mistaken.reason, mistaken.user_error), (Reason::Exited, true));
    let failed = report_of(ExitStatus::Code(1), false);
    assert_eq!((failed.reason, failed.user_error), (Reason::OutOfMemory, false));
    let killed = report_of(ExitStatus::Signal(9), true);
    assert_eq!((killed.reason, killed.user_error), (Reason::OutOfMemory, false));
    for ExitReport { message, .. } in [mistaken, failed, killed] {
        assert!(message.contains("no such table: t") && message.contains("killed 1 process"), "{message}");
    }
}

#[test]
fn oom_message_has_limit_and_peak() {
    let status = ExitStatus::Signal(9);
    let exit = Exit { status, oom_kills: 2, memory_limit: 64 << 20, memory_peak: 63 << 20 };
    let message = report(Some(exit), None).message;
    assert!(
        message.contains("killed 2 processes") && message.contains("limit 64 MiB, peak 63 MiB"),
        "{message}"
    );
}

#[test]
fn external_kill_is_retryable() {
    let killed = report(exited(ExitStatus::Signal(9), 0), None);
    assert_eq!((killed.reason, killed.retryable), (Reason::Signaled, true));
    let crashed = report(exited(ExitStatus::Signal(11), 0), None);
    assert_eq!((crashed.message.contains("SIGSEGV"), crashed.retryable), (true, false));
}

#[test]
fn exit_code_is_the_commands_and_never_zero_after_a_failure() {
    assert_eq!(exit_code(None, exited(ExitStatus::Code(0), 0)), 0);
    assert_eq!(exit_code(None, exited(ExitStatus::Code(3), 0)), 3);
    assert_eq!(exit_code(None, exited(ExitStatus::Signal(9), 0)), 137);
    let publish = End::PublishFailed { message: "no space left".into(), fault: PublishFault::Retryable };
    assert_eq!(exit_code(Some(&publish), exited(ExitStatus::Code(0), 0)), 65);
    for (fault, code) in [
        (StartFault::NotFound, 127),
        (StartFault::NotExecutable, 126),
        (StartFault::Exhausted, 65),
        (StartFault::Other, 65),
    ] {
        let end = End::StartFailed { message: "cannot start python".into(), fault };
        assert_eq!(exit_code(Some(&end), None), code);
    }
    let cancelled = End::Cancelled("by the user".into());
    assert_eq!(exit_code(Some(&cancelled), None), 143);
    assert_eq!(exit_code(Some(&cancelled), exited(ExitStatus::Signal(15), 0)), 143);
}

#[test]
fn long_messages_are_cut_at_a_character() {
    let failure =
        Failure { message: "ü".repeat(10_000), detail: "é".repeat(1 << 20), ..Default::default() };
    let report = report(exited(ExitStatus::Code(1), 0), Some(&failure));
    assert!(report.message.len() <= MESSAGE_LIMIT && report.detail.len() <= DETAIL_LIMIT);
}
