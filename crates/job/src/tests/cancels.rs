//! Cancelled jobs, and the clean-up of their tables.

use super::*;

#[test]
fn cancelled_job_ends_its_attempt_grants_nothing_and_fails() {
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
fn grant_before_the_cancel_stays_valid() {
    let mut job = attached(true);
    let attempt = id(&job, 0, 1);
    job.apply(commit(attempt.clone(), KEY), 4).unwrap();
    job.apply(Event::CancelRequested(Failure::new(Cause::Cancelled, "cancelled")), 5).unwrap();
    assert_eq!(
        job.apply(commit(attempt.clone(), KEY), 6),
        Ok(Change::Unchanged),
        "a repeated request is granted again"
    );
    job.apply(report(attempt, KEY, Reason::Succeeded), 7).unwrap();
    assert_eq!(job.next(Evidence::default()), Next::Finish(JobState::Succeeded), "everything was executed");
}

#[test]
fn job_over_its_limit_fails_although_its_attempt_succeeded() {
    let mut job = attached(true);
    let attempt = id(&job, 0, 1);
    job.apply(Event::CancelRequested(Failure::over_limit()), 3).unwrap();
    job.apply(report(attempt, KEY, Reason::Succeeded), 4).unwrap();
    assert_eq!(job.next(Evidence::default()), Next::Finish(JobState::Failed(Failure::over_limit())));
}

/// The first cause is that of a failed job. A missing result fails the job independently.
#[test]
fn limit_after_a_cancel_fails_a_successful_attempt() {
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
fn table_of_a_killed_attempt_is_cleaned_up_before_the_job_ends() {
    let mut job = cancelled_while_it_writes();
    job.apply(report(id(&job, 0, 1), KEY, Reason::Cancelled), 5).unwrap();
    assert_eq!(job.next(STARTED), Next::Cleanup { step: 0, tried: 0 });
    job.apply(cleanup(0), 6).unwrap();
    let attempt = id(&job, 0, 2);
    // The cancel does not apply to the clean-up.
    assert_eq!(job.next(STARTED), Next::Launch(attempt.clone()));
    job.apply(attach(attempt.clone(), KEY), 7).unwrap();
    assert_eq!(job.next(STARTED), Next::Watch(attempt.clone()));
    job.apply(report(attempt, KEY, Reason::Succeeded), 8).unwrap();
    assert_eq!(job.next(STARTED), ended_as_cancelled(), "a clean-up is no success of the step");
}

/// The connection was lost, so the submitter could not drop its table.
#[test]
fn table_of_an_attempt_that_lost_its_database_is_cleaned_up_before_the_job_fails() {
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
fn attempt_without_leftovers_needs_no_clean_up() {
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
fn clean_up_is_given_up_and_reported_after_the_last_try() {
    let mut job = cancelled_while_it_writes();
    job.apply(report(id(&job, 0, 1), KEY, Reason::Cancelled), 5).unwrap();
    for tried in 0..MAX_CLEANUPS {
        assert_eq!(job.next(STARTED), Next::Cleanup { step: 0, tried });
        job.apply(cleanup(0), 6).unwrap();
        job.apply(found(id(&job, 0, tried + 2), Reason::Lost, true), 7).unwrap();
    }
    let Next::Finish(JobState::Failed(failure)) = job.next(STARTED) else { panic!("the job does not end") };
    assert_eq!(failure.cause, Cause::Cancelled);
    assert!(failure.message.contains("still in the database"), "{}", failure.message);
}

#[test]
fn grant_of_a_killed_attempt_is_unclear() {
    let mut job = attached(true);
    job.steps[0].writes_table = true;
    job.apply(commit(id(&job, 0, 1), KEY), 4).unwrap();
    assert_eq!(unclear_grant(&job.steps[0]), Some(1));
    job.apply(found(id(&job, 0, 1), Reason::Lost, true), 5).unwrap();
    assert_eq!(unclear_grant(&job.steps[0]), Some(1));
    // The database rejected the rename of the table.
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
    // A later attempt has dropped the table, which was the evidence.
    let mut later = attached(true);
    later.apply(commit(id(&later, 0, 1), KEY), 4).unwrap();
    later.apply(found(id(&later, 0, 1), Reason::Lost, true), 5).unwrap();
    later.apply(create(0), 6).unwrap();
    assert_eq!(unclear_grant(&later.steps[0]), None, "a running attempt may drop the table at any time");
    later.apply(found(id(&later, 0, 2), Reason::LaunchFailed, true), 7).unwrap();
    assert_eq!(unclear_grant(&later.steps[0]), Some(1), "the attempt did not start");
    // The connection was lost while the tables were swapped.
    let mut cut_off = attached(true);
    cut_off.apply(commit(id(&cut_off, 0, 1), KEY), 4).unwrap();
    let mut report = report(id(&cut_off, 0, 1), KEY, Reason::Exited);
    let Event::OutcomeReported { outcome, .. } = &mut report else { panic!("it is a report") };
    outcome.retryable = true;
    cut_off.apply(report, 5).unwrap();
    assert_eq!(unclear_grant(&cut_off.steps[0]), Some(1));
}

/// Its submitter may have started the statement, although no server knows.
#[test]
fn table_is_cleaned_up_although_no_start_was_recorded() {
    let mut job = attached(true);
    job.steps[0].writes_table = true;
    job.apply(found(id(&job, 0, 1), Reason::OutOfMemory, false), 5).unwrap();
    assert_eq!(job.next(Evidence::default()), Next::Cleanup { step: 0, tried: 0 });
}

/// A retry would read its own result.
#[test]
fn granted_step_that_overwrites_its_input_is_not_retried() {
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
