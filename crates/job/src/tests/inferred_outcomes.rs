//! What the end of an attempt means for its job.

use super::*;

#[test]
fn only_repeatable_statements_are_retried() {
    let nothing = Evidence::default();
    let started = Evidence { started: true, rows: false };
    let rows = Evidence { started: true, rows: true };
    for (repeatable, evidence, again) in [
        (true, nothing, true),
        (true, started, true),
        (true, rows, false),
        (false, nothing, true),
        (false, started, false),
        (false, rows, false),
    ] {
        let mut job = attached(repeatable);
        job.apply(found(id(&job, 0, 1), Reason::Lost, true), 4).unwrap();
        let next = job.next(evidence);
        assert_eq!(
            matches!(next, Next::Create { .. }),
            again,
            "repeatable {repeatable}, {evidence:?}: {next:?}"
        );
    }
}

#[test]
fn kept_output_is_published_without_rerun() {
    let mut job = attached(false);
    let kept = Outcome {
        output_kept: true,
        ..Outcome::by_server(Reason::PublishFailed, "the storage is away", false)
    };
    let rows = Evidence { started: true, rows: true };
    let attempt = id(&job, 0, 1);
    job.apply(Event::AttemptFoundEnded { attempt, outcome: kept, basis: Basis::Attached }, 4).unwrap();
    for number in 2..=1 + MAX_PUBLISH_ATTEMPTS {
        let again = Again {
            why: job.attempt(&id(&job, 0, number - 1)).unwrap().outcome().unwrap().message.clone(),
            publishes: Some(1),
        };
        assert_eq!(job.next(rows), Next::Create { step: 0, after: Some(again) });
        job.apply(create(0), 5).unwrap();
        job.apply(found(id(&job, 0, number), Reason::Lost, true), 6).unwrap();
    }
    let Next::Finish(JobState::Failed(failure)) = job.next(rows) else { panic!("it goes on for ever") };
    assert_eq!(failure.cause, Cause::Storage);
}

/// The Pod that was to publish it may have found no server, or a storage that was away, for all of its time.
#[test]
fn kept_output_is_published_after_a_deadline() {
    let mut job = attached(false);
    let kept = Outcome { output_kept: true, ..Outcome::by_server(Reason::Deadline, "too long", false) };
    let attempt = id(&job, 0, 1);
    job.apply(Event::AttemptFoundEnded { attempt, outcome: kept, basis: Basis::Attached }, 4).unwrap();
    for number in 2..=1 + MAX_PUBLISH_ATTEMPTS {
        let next = job.next(Evidence::default());
        assert!(matches!(next, Next::Create { .. }), "attempt {number}: {next:?}");
        job.apply(create(0), 5).unwrap();
        job.apply(found(id(&job, 0, number), Reason::Deadline, false), 6).unwrap();
    }
    assert!(matches!(job.next(Evidence::default()), Next::Finish(JobState::Failed(_))));
}

/// The failure of a job whose only attempt ended like this.
fn failure_after(mut job: Job, outcome: Outcome, evidence: Evidence) -> Failure {
    let attempt = id(&job, 0, 1);
    let instance = InstanceHash::of(KEY);
    job.apply(Event::OutcomeReported { attempt, instance, outcome }, 4).unwrap();
    match job.next(evidence) {
        Next::Finish(JobState::Failed(failure)) => failure,
        other => panic!("the job should fail, but next is {other:?}"),
    }
}

/// Every reason but success, with the cause of a job whose statements may be repeated.
const REASONS: [(Reason, Cause); 13] = [
    (Reason::Exited, Cause::StatementFailed),
    (Reason::Signaled, Cause::Killed),
    (Reason::OutOfMemory, Cause::OutOfMemory),
    (Reason::Cancelled, Cause::Killed),
    (Reason::StartFailed, Cause::LaunchFailed),
    (Reason::InputFailed, Cause::Storage),
    (Reason::PublishFailed, Cause::Storage),
    (Reason::Refused, Cause::Lost),
    (Reason::AgentFailed, Cause::LaunchFailed),
    (Reason::Lost, Cause::Lost),
    (Reason::LaunchFailed, Cause::LaunchFailed),
    (Reason::Deadline, Cause::Deadline),
    (Reason::Terminated, Cause::Lost),
];

/// Reasons after which it is known what became of the statements.
const CONCLUSIVE: [Reason; 2] = [Reason::Exited, Reason::PublishFailed];

#[test]
fn started_unrepeatable_statement_may_have_executed() {
    let started = Evidence { started: true, rows: false };
    for (reason, cause) in REASONS {
        let outcome = Outcome::by_server(reason, "what happened", false);
        let failed = |repeatable, evidence| failure_after(attached(repeatable), outcome.clone(), evidence);
        // An agent that fails later was started.
        let later = if reason == Reason::AgentFailed { Cause::Lost } else { cause };
        assert_eq!(failed(true, started), Failure::new(later, "what happened"), "{reason:?}, repeatable");
        let nothing = Evidence::default();
        assert_eq!(failed(false, nothing), Failure::new(cause, "what happened"), "{reason:?}, not started");
        let failure = failed(false, started);
        if CONCLUSIVE.contains(&reason) {
            assert_eq!(failure, Failure::new(cause, "what happened"), "{reason:?}");
        } else {
            assert_eq!(failure.cause, Cause::MayHaveExecuted, "{reason:?}");
            let says_both = failure.message.starts_with("what happened; ")
                && failure.message.contains("may have executed");
            assert!(says_both, "{reason:?}: {}", failure.message);
        }
    }
}

/// A misspelt model is no failure of its storage.
#[test]
fn user_error_fails_the_statement() {
    for (reason, cause) in REASONS {
        let mut outcome = Outcome::by_server(reason, "model m does not exist", false);
        outcome.user_error = true;
        let is_fixed_by_user = matches!(reason, Reason::InputFailed | Reason::PublishFailed);
        let expected = if is_fixed_by_user { Cause::StatementFailed } else { cause };
        let failure = failure_after(attached(true), outcome, Evidence::default());
        assert_eq!(failure.cause, expected, "{reason:?}");
    }
}

/// A database that went away, or a submitter that said nothing, leaves open what became of the statement.
#[test]
fn exit_is_conclusive_only_with_known_statement_result() {
    let started = Evidence { started: true, rows: false };
    for (retryable, unexplained, not_executed, cause) in [
        (false, false, false, Cause::StatementFailed),
        (true, false, false, Cause::MayHaveExecuted),
        (true, false, true, Cause::StatementFailed),
        (false, true, false, Cause::MayHaveExecuted),
        (true, true, true, Cause::MayHaveExecuted),
    ] {
        let exited = Outcome::by_server(Reason::Exited, "it exited", retryable);
        let outcome = Outcome { unexplained, not_executed, ..exited };
        let failure = failure_after(attached(false), outcome, started);
        let told = format!("retryable {retryable}, unexplained {unexplained}, not executed {not_executed}");
        assert_eq!(failure.cause, cause, "{told}");
    }
}

#[test]
fn cancelled_job_reports_may_have_executed() {
    let started = Evidence { started: true, rows: false };
    for (evidence, says_so) in [(Evidence::default(), false), (started, true)] {
        let mut job = attached(false);
        job.apply(Event::CancelRequested(Failure::new(Cause::Cancelled, "cancelled by a user")), 3).unwrap();
        let outcome = Outcome::by_server(Reason::Cancelled, "cancelled by a user", false);
        let failure = failure_after(job, outcome, evidence);
        assert_eq!(failure.cause, Cause::Cancelled, "the cause is what was asked for");
        assert_eq!(failure.message.contains("may have executed"), says_so, "{}", failure.message);
    }
}

#[test]
fn inferred_outcome_without_agent_does_not_apply_to_attached() {
    let mut job = attached(false);
    let attempt = id(&job, 0, 1);
    let outcome = Outcome::by_server(Reason::LaunchFailed, "the agent ended before it attached", true);
    let inferred =
        |basis| Event::AttemptFoundEnded { attempt: attempt.clone(), outcome: outcome.clone(), basis };
    let before = job.clone();
    assert_eq!(job.apply(inferred(Basis::NeverAttached), 4), Err(Rejection::OutOfOrder));
    assert_eq!(job, before);
    assert_eq!(job.apply(inferred(Basis::Attached), 4), Ok(Change::Changed));
    assert_eq!(job.apply(inferred(Basis::NeverAttached), 5), Ok(Change::Unchanged), "it has ended already");
}
