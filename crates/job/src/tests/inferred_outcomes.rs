//! The next action of a job after the end of an attempt.

use super::*;

#[test]
fn step_is_retried_only_if_repeatable_without_rows_or_not_started() {
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
fn kept_output_is_published_by_later_attempts_without_a_rerun() {
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
    let Next::Finish(JobState::Failed(failure)) = job.next(rows) else { panic!("the job does not end") };
    assert_eq!(failure.cause, Cause::Storage);
}

/// The publishing Pod may have had no server or no storage until its deadline.
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

/// Reasons after which the effect of the statements is known.
const CONCLUSIVE: [Reason; 2] = [Reason::Exited, Reason::PublishFailed];

#[test]
fn started_non_repeatable_statement_may_have_executed_unless_the_reason_is_conclusive() {
    let started = Evidence { started: true, rows: false };
    for (reason, cause) in REASONS {
        let outcome = Outcome::by_server(reason, "what happened", false);
        let failed = |repeatable, evidence| failure_after(attached(repeatable), outcome.clone(), evidence);
        // After a start, a failed agent is lost.
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

/// Nobody knows what its agent did. It may have executed even if the log has no start.
#[test]
fn success_without_proof_may_have_executed() {
    let succeeded = Outcome::by_server(Reason::Succeeded, "", true);
    let outcome = succeeded.unproved_success(1);
    assert!(!outcome.succeeded() && outcome.message.contains("the end of statement 2"), "{outcome:?}");
    let nothing = Evidence::default();
    let failure = failure_after(attached(false), outcome.clone(), nothing);
    assert_eq!(failure.cause, Cause::MayHaveExecuted, "{failure:?}");
    let failure = failure_after(attached(true), outcome.clone(), nothing);
    assert_eq!(failure, Failure::new(Cause::Lost, outcome.message), "it is not retried");
}

/// For example, a misspelt model is no failure of the storage.
#[test]
fn user_error_is_a_failure_of_the_statement() {
    for (reason, cause) in REASONS {
        let mut outcome = Outcome::by_server(reason, "model m does not exist", false);
        outcome.user_error = true;
        let is_fixed_by_user = matches!(reason, Reason::InputFailed | Reason::PublishFailed);
        let expected = if is_fixed_by_user { Cause::StatementFailed } else { cause };
        let failure = failure_after(attached(true), outcome, Evidence::default());
        assert_eq!(failure.cause, expected, "{reason:?}");
    }
}

/// After a lost connection, or without a report of the submitter, the effect of the statement is unknown.
#[test]
fn exit_is_conclusive_only_if_the_submitter_knows_the_effect() {
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
        let case = format!("retryable {retryable}, unexplained {unexplained}, not executed {not_executed}");
        assert_eq!(failure.cause, cause, "{case}");
    }
}

#[test]
fn message_of_a_cancelled_job_says_that_a_started_statement_may_have_executed() {
    let started = Evidence { started: true, rows: false };
    for (evidence, says_so) in [(Evidence::default(), false), (started, true)] {
        let mut job = attached(false);
        job.apply(Event::CancelRequested(Failure::new(Cause::Cancelled, "cancelled by a user")), 3).unwrap();
        let outcome = Outcome::by_server(Reason::Cancelled, "cancelled by a user", false);
        let failure = failure_after(job, outcome, evidence);
        assert_eq!(failure.cause, Cause::Cancelled, "the cause is the cancel");
        assert_eq!(failure.message.contains("may have executed"), says_so, "{}", failure.message);
    }
}

#[test]
fn outcome_based_on_no_attach_is_rejected_for_an_attached_attempt() {
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
