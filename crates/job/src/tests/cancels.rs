//! Cancelled jobs, and cleaning up behind them.

use super::*;

#[test]
fn cancelled_job_starts_and_grants_nothing() {
    let mut job = attached(true);
    let attempt = id(&job, 0, 1);
    let why = Failure::new(Cause::Cancelled, "cancelled");
    job.apply(Event::CancelRequested(why.clone()), 4).unwrap();
    assert_eq!(
        job.apply(Event::CancelRequested(Failure::new(Cause::NotFetched, "late")), 5),
        Ok(Change::Unchanged)
    );
    assert_eq!(job.next(Evidence::default()), Next::End(attempt.clone()));
    assert_eq!(job.apply(commit(attempt.clone(), KEY), 5), Err(Rejection::Cancelled));
    job.apply(report(attempt, KEY, Reason::Cancelled), 6).unwrap();
    assert_eq!(job.next(Evidence::default()), Next::Finish(JobState::Failed(why)));
}

#[test]
fn grant_before_cancel_stands() {
    let mut job = attached(true);
    let attempt = id(&job, 0, 1);
    job.apply(commit(attempt.clone(), KEY), 4).unwrap();
    job.apply(Event::CancelRequested(Failure::new(Cause::Cancelled, "cancelled")), 5).unwrap();
    assert_eq!(
        job.apply(commit(attempt.clone(), KEY), 6),
        Ok(Change::Unchanged),
        "asked again, granted again"
    );
    job.apply(report(attempt, KEY, Reason::Succeeded), 7).unwrap();
    assert_eq!(job.next(Evidence::default()), Next::Finish(JobState::Succeeded), "everything did happen");
}

#[test]
fn lost_result_fails_the_job_even_after_success() {
    let mut job = attached(true);
    let attempt = id(&job, 0, 1);
    job.apply(Event::CancelRequested(Failure::over_limit()), 3).unwrap();
    job.apply(report(attempt, KEY, Reason::Succeeded), 4).unwrap();
    assert_eq!(job.next(Evidence::default()), Next::Finish(JobState::Failed(Failure::over_limit())));
}

/// The first cause stands for a job that fails; that a result is missing is a fact of its own.
#[test]
fn limit_after_cancel_is_kept() {
    let mut job = attached(true);
    let attempt = id(&job, 0, 1);
    let cancelled = Failure::new(Cause::Cancelled, "cancelled");
    job.apply(Event::CancelRequested(cancelled.clone()), 3).unwrap();
    assert_eq!(job.apply(Event::CancelRequested(Failure::over_limit()), 4), Ok(Change::Changed));
    assert_eq!(job.apply(Event::CancelRequested(Failure::over_limit()), 5), Ok(Change::Unchanged));
    let mut fast = job.clone();
    fast.apply(report(attempt.clone(), KEY, Reason::Succeeded), 6).unwrap();
    assert_eq!(fast.next(Evidence::default()), Next::Finish(JobState::Failed(Failure::over_limit())));
    job.apply(report(attempt, KEY, Reason::Cancelled), 6).unwrap();
    assert_eq!(job.next(Evidence::default()), Next::Finish(JobState::Failed(cancelled)));
}

#[test]
fn running_job_cannot_be_finished() {
    let mut job = attached(true);
    assert_eq!(job.apply(Event::Finished(JobState::Succeeded), 4), Err(Rejection::OutOfOrder));
}

/// A job of one step that writes a table, cancelled while its only attempt runs.
fn cancelled_while_it_writes() -> Job {
    let mut job = attached(true);
    job.steps[0].writes_table = true;
    job.apply(Event::CancelRequested(Failure::new(Cause::Cancelled, "cancelled")), 4).unwrap();
    job
}

const STARTED: Evidence = Evidence { started: true, rows: false };

fn ended_as_cancelled() -> Next {
    Next::Finish(JobState::Failed(Failure::new(Cause::Cancelled, "cancelled")))
}

#[test]
fn table_of_killed_attempt_is_cleaned_up_first() {
    let mut job = cancelled_while_it_writes();
    job.apply(report(id(&job, 0, 1), KEY, Reason::Cancelled), 5).unwrap();
    assert_eq!(job.next(STARTED), Next::Cleanup { step: 0, tried: 0 });
    job.apply(cleanup(0), 6).unwrap();
    let attempt = id(&job, 0, 2);
    // The cancel is for what runs the step.
    assert_eq!(job.next(STARTED), Next::Launch(attempt.clone()));
    job.apply(attach(attempt.clone(), KEY), 7).unwrap();
    assert_eq!(job.next(STARTED), Next::Watch(attempt.clone()));
    job.apply(report(attempt, KEY, Reason::Succeeded), 8).unwrap();
    assert_eq!(job.next(STARTED), ended_as_cancelled(), "cleaning up is no success of the step");
}

/// The database went away, so the submitter could not drop its table.
#[test]
fn table_is_cleaned_up_after_database_outage() {
    for (retryable, unexplained) in [(true, false), (false, true)] {
        let mut job = attached(true);
        job.steps[0].writes_table = true;
        for number in 1..=MAX_ATTEMPTS {
            let mut reported = report(id(&job, 0, number), KEY, Reason::Exited);
            let Event::OutcomeReported { outcome, .. } = &mut reported else { panic!("it is a report") };
            (outcome.retryable, outcome.unexplained) = (retryable, unexplained);
            job.apply(reported, 5).unwrap();
            match job.next(STARTED) {
                Next::Create { step: 0, .. } if retryable && number < MAX_ATTEMPTS => {
                    job.apply(create(0), 6).unwrap();
                    job.apply(attach(id(&job, 0, number + 1), KEY), 7).unwrap();
                }
                next => {
                    assert_eq!(next, Next::Cleanup { step: 0, tried: 0 });
                    break;
                }
            }
        }
    }
}

#[test]
fn nothing_is_cleaned_up_where_nothing_can_be_left() {
    let mut ended_by_itself = cancelled_while_it_writes();
    ended_by_itself.apply(report(id(&ended_by_itself, 0, 1), KEY, Reason::Exited), 5).unwrap();
    assert_eq!(ended_by_itself.next(STARTED), ended_as_cancelled());

    let mut never_started = cancelled_while_it_writes();
    never_started.apply(report(id(&never_started, 0, 1), KEY, Reason::Cancelled), 5).unwrap();
    assert_eq!(never_started.next(Evidence::default()), ended_as_cancelled());

    let mut no_table = cancelled_while_it_writes();
    no_table.steps[0].writes_table = false;
    no_table.apply(report(id(&no_table, 0, 1), KEY, Reason::Cancelled), 5).unwrap();
    assert_eq!(no_table.next(STARTED), ended_as_cancelled());
}

#[test]
fn failing_cleanup_is_limited_and_reported() {
    let mut job = cancelled_while_it_writes();
    job.apply(report(id(&job, 0, 1), KEY, Reason::Cancelled), 5).unwrap();
    for tried in 0..MAX_CLEANUPS {
        assert_eq!(job.next(STARTED), Next::Cleanup { step: 0, tried });
        job.apply(cleanup(0), 6).unwrap();
        job.apply(found(id(&job, 0, tried + 2), Reason::Lost, true), 7).unwrap();
    }
    let Next::Finish(JobState::Failed(failure)) = job.next(STARTED) else { panic!("it must end") };
    assert_eq!(failure.cause, Cause::Cancelled);
    assert!(failure.message.contains("still in the database"), "{}", failure.message);
}

#[test]
fn grant_of_killed_attempt_is_explained() {
    let mut job = attached(true);
    job.steps[0].writes_table = true;
    job.apply(commit(id(&job, 0, 1), KEY), 4).unwrap();
    assert_eq!(unclear_grant(&job.steps[0]), Some(1));
    job.apply(found(id(&job, 0, 1), Reason::Lost, true), 5).unwrap();
    assert_eq!(unclear_grant(&job.steps[0]), Some(1));
    // The database refused to put the new table in place.
    let mut refused = attached(true);
    refused.apply(commit(id(&refused, 0, 1), KEY), 4).unwrap();
    let mut report_of_it = report(id(&refused, 0, 1), KEY, Reason::Exited);
    let Event::OutcomeReported { outcome, .. } = &mut report_of_it else { panic!("it is a report") };
    (outcome.retryable, outcome.not_executed) = (true, true);
    refused.apply(report_of_it, 5).unwrap();
    assert_eq!(unclear_grant(&refused.steps[0]), None);

    let mut reported = attached(true);
    reported.apply(commit(id(&reported, 0, 1), KEY), 4).unwrap();
    reported.apply(report(id(&reported, 0, 1), KEY, Reason::Succeeded), 5).unwrap();
    assert_eq!(unclear_grant(&reported.steps[0]), None);
    // A later attempt has dropped the table, so nothing tells.
    let mut later = attached(true);
    later.apply(commit(id(&later, 0, 1), KEY), 4).unwrap();
    later.apply(found(id(&later, 0, 1), Reason::Lost, true), 5).unwrap();
    later.apply(create(0), 6).unwrap();
    assert_eq!(unclear_grant(&later.steps[0]), None, "it may drop it at any moment");
    later.apply(found(id(&later, 0, 2), Reason::LaunchFailed, true), 7).unwrap();
    assert_eq!(unclear_grant(&later.steps[0]), Some(1), "it never came to that");
    // The connection was lost while the tables were swapped.
    let mut cut_off = attached(true);
    cut_off.apply(commit(id(&cut_off, 0, 1), KEY), 4).unwrap();
    let mut report = report(id(&cut_off, 0, 1), KEY, Reason::Exited);
    let Event::OutcomeReported { outcome, .. } = &mut report else { panic!("it is a report") };
    outcome.retryable = true;
    cut_off.apply(report, 5).unwrap();
    assert_eq!(unclear_grant(&cut_off.steps[0]), Some(1));
}

/// Its submitter had said that it starts, and no server had heard it.
#[test]
fn table_of_silent_agent_is_cleaned_up() {
    let mut job = attached(true);
    job.steps[0].writes_table = true;
    job.apply(found(id(&job, 0, 1), Reason::OutOfMemory, false), 5).unwrap();
    assert_eq!(job.next(Evidence::default()), Next::Cleanup { step: 0, tried: 0 });
}

/// It would read its own result.
#[test]
fn granted_step_that_replaces_its_input_is_not_retried() {
    for (overwrites_input, is_granted) in [(true, true), (true, false), (false, true)] {
        let mut job = attached(true);
        job.steps[0].overwrites_input = overwrites_input;
        if is_granted {
            job.apply(commit(id(&job, 0, 1), KEY), 4).unwrap();
        }
        job.apply(found(id(&job, 0, 1), Reason::Lost, true), 5).unwrap();
        for evidence in [STARTED, Evidence::default()] {
            match job.next(evidence) {
                Next::Create { .. } => assert!(!(overwrites_input && is_granted)),
                Next::Finish(JobState::Failed(failure)) => {
                    assert!(overwrites_input && is_granted);
                    assert_eq!(failure.cause, Cause::MayHaveExecuted);
                    assert!(failure.message.contains("may have executed"), "{}", failure.message);
                }
                next => panic!("{next:?}"),
            }
        }
    }
}
