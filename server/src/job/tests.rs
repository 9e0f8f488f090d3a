//! The life of a job, as a user relies on it. The property test plays a world of agents, drivers and clients in which
//! everything may happen at any time, and checks what must hold whatever happens.

use proptest::prelude::*;

use super::*;
use crate::fixture::step;

const KEY: &[u8] = b"0123456789abcdef";
const OTHER_KEY: &[u8] = b"fedcba9876543210";

fn job(steps: Vec<Step>) -> Job {
    Job::new(JobId::generate(), steps)
}

fn id(job: &Job, step: u32, number: u32) -> AttemptId {
    AttemptId { job: job.id.clone(), step, number }
}

fn attach(attempt: AttemptId, key: &[u8]) -> Event {
    Event::AgentAttached { attempt, instance: InstanceHash::of(key), server: "s".to_owned() }
}

fn report(attempt: AttemptId, key: &[u8], reason: Reason) -> Event {
    let outcome = Outcome::by_server(reason, "told by its agent", false);
    Event::OutcomeReported { attempt, instance: InstanceHash::of(key), outcome }
}

fn commit(attempt: AttemptId, key: &[u8]) -> Event {
    Event::CommitRequested { attempt, instance: InstanceHash::of(key) }
}

fn found(attempt: AttemptId, reason: Reason, retryable: bool) -> Event {
    let outcome = Outcome::by_server(reason, "found", retryable);
    Event::AttemptFoundEnded { attempt, outcome, basis: Basis::Attached }
}

fn create(step: u32) -> Event {
    Event::AttemptCreated { step, role: Role::Run, place: Place::of("local") }
}

fn clean_up(step: u32) -> Event {
    Event::AttemptCreated { step, role: Role::CleanUp, place: Place::of("local") }
}

/// A job of one step whose attempt is attached.
fn attached(repeatable: bool) -> Job {
    let mut job = job(vec![step(repeatable)]);
    let attempt = id(&job, 0, 1);
    job.apply(create(0), 1).unwrap();
    job.apply(Event::AttemptLaunched { attempt: attempt.clone(), tracker_url: None }, 2).unwrap();
    job.apply(attach(attempt, KEY), 3).unwrap();
    job
}

/// Only a change of server is worth a write: agents attach again whenever their connection is cut.
#[test]
fn the_server_that_an_agent_attached_to_last_is_known() {
    let mut job = attached(true);
    let attempt = id(&job, 0, 1);
    let attach_to = |server: &str| Event::AgentAttached {
        attempt: attempt.clone(),
        instance: InstanceHash::of(KEY),
        server: server.to_owned(),
    };
    assert_eq!(job.apply(attach_to("s"), 4), Ok(Change::Unchanged));
    assert_eq!(job.apply(attach_to("t"), 5), Ok(Change::Changed));
    let known = job.attempt(&attempt).unwrap();
    assert_eq!((known.attached_to.as_deref(), known.attached_ms), (Some("t"), Some(3)));
}

/// A server that returns says nothing about the agent: only an agent that attaches is heard again.
#[test]
fn an_agent_that_no_server_hears_is_attached_to_none_until_it_attaches() {
    let mut job = attached(true);
    let attempt = id(&job, 0, 1);
    let unheard = |server: &str| Event::AgentUnheard { attempt: attempt.clone(), server: server.to_owned() };
    assert_eq!(job.apply(unheard("t"), 4), Err(Rejection::OutOfOrder), "it is attached to another one");
    assert_eq!(job.apply(unheard("s"), 4), Ok(Change::Changed));
    assert_eq!(job.attached_to(&attempt), None);
    assert_eq!(job.apply(unheard("s"), 5), Err(Rejection::OutOfOrder));
    assert_eq!(job.apply(attach(attempt.clone(), KEY), 6), Ok(Change::Changed), "also to the same server");
    assert_eq!(job.attached_to(&attempt), Some("s"));
}

#[test]
fn a_job_of_two_steps_runs_to_success() {
    let mut job = job(vec![step(true), step(true)]);
    for index in 0..2 {
        let attempt = id(&job, index, 1);
        assert_eq!(job.next(Evidence::default()), Next::Create { step: index, after: None });
        job.apply(create(index), 1).unwrap();
        assert_eq!(job.next(Evidence::default()), Next::Launch(attempt.clone()));
        job.apply(Event::AttemptLaunched { attempt: attempt.clone(), tracker_url: None }, 1).unwrap();
        assert_eq!(job.next(Evidence::default()), Next::Watch(attempt.clone()));
        job.apply(attach(attempt.clone(), KEY), 1).unwrap();
        job.apply(report(attempt, KEY, Reason::Succeeded), 1).unwrap();
    }
    assert_eq!(job.next(Evidence::default()), Next::Finish(JobState::Succeeded));
    job.apply(Event::Finished(JobState::Succeeded), 9).unwrap();
    assert_eq!(job.next(Evidence::default()), Next::Nothing);
}

#[test]
fn the_way_to_the_agent_has_no_gap_whatever_the_clocks_say() {
    let mut job = job(vec![step(true)]);
    let attempt = id(&job, 0, 1);
    job.apply(create(0), 1000).unwrap();
    job.apply(Event::AttemptLaunched { attempt: attempt.clone(), tracker_url: None }, 1010).unwrap();
    job.apply(attach(attempt.clone(), KEY), 4000).unwrap();
    let way = |job: &Job| job.attempt(&id(job, 0, 1)).unwrap().way_to_agent(9000);
    assert_eq!(way(&job), [("launch", 1000, 1010), ("start", 1010, 4000)]);
    let seen = |scheduled_ms, container_ms| Event::MilestonesSeen {
        attempt: attempt.clone(),
        milestones: Milestones { scheduled_ms, container_ms },
    };
    // Its clock is behind ours.
    assert_eq!(job.apply(seen(Some(900), None), 2000), Ok(Change::Changed));
    assert_eq!(way(&job), [("launch", 1000, 1010), ("schedule", 1010, 1010), ("start", 1010, 4000)]);
    assert_eq!(job.apply(seen(Some(800), Some(3000)), 2000), Ok(Change::Changed));
    assert_eq!(
        job.apply(seen(Some(1), Some(1)), 2000),
        Ok(Change::Unchanged),
        "the first that was told stands"
    );
    let whole =
        [("launch", 1000, 1010), ("schedule", 1010, 1010), ("pull", 1010, 3000), ("start", 3000, 4000)];
    assert_eq!(way(&job), whole);
}

#[test]
fn only_the_first_agent_speaks_for_an_attempt() {
    let mut job = attached(true);
    let attempt = id(&job, 0, 1);
    assert_eq!(job.apply(attach(attempt.clone(), OTHER_KEY), 4), Err(Rejection::WrongInstance));
    assert_eq!(job.apply(commit(attempt.clone(), OTHER_KEY), 4), Err(Rejection::WrongInstance));
    assert_eq!(
        job.apply(report(attempt.clone(), OTHER_KEY, Reason::Succeeded), 4),
        Err(Rejection::WrongInstance)
    );
    assert_eq!(job.apply(attach(attempt, KEY), 4), Ok(Change::Unchanged), "the same one may come again");
}

#[test]
fn an_outcome_is_taken_once_and_acknowledged_again() {
    let mut job = attached(true);
    let attempt = id(&job, 0, 1);
    assert_eq!(job.apply(report(attempt.clone(), KEY, Reason::Exited), 4), Ok(Change::Changed));
    let before = job.clone();
    assert_eq!(job.apply(report(attempt.clone(), KEY, Reason::Succeeded), 5), Ok(Change::Unchanged));
    assert_eq!(job.apply(found(attempt, Reason::Lost, true), 5), Ok(Change::Unchanged));
    assert_eq!(job, before, "the first verdict stands");
}

/// Whatever the verdict is: it is not the agent's word, and the agent is not heard any more.
#[test]
fn an_agent_whose_attempt_was_ended_by_verdict_has_no_say() {
    for reason in [Reason::Lost, Reason::LaunchFailed, Reason::Cancelled, Reason::OutOfMemory] {
        let mut job = attached(true);
        let attempt = id(&job, 0, 1);
        job.apply(found(attempt.clone(), reason, true), 4).unwrap();
        for event in
            [attach(attempt.clone(), KEY), commit(attempt.clone(), KEY), report(attempt, KEY, Reason::Exited)]
        {
            assert_eq!(job.apply(event.clone(), 5), Err(Rejection::AttemptOver), "{reason:?}, {event:?}");
        }
    }
}

#[test]
fn older_documents_tell_by_the_reason_who_ended_an_attempt() {
    let by = |reason: Reason| {
        let mut job = attached(true);
        let attempt = id(&job, 0, 1);
        job.apply(report(attempt.clone(), KEY, reason), 4).unwrap();
        let mut document = serde_json::to_value(&job).unwrap();
        let phase = &mut document["steps"][0]["attempts"][0]["phase"]["ended"];
        assert_eq!(phase.as_object_mut().unwrap().remove("by").unwrap(), "agent");
        let older: Job = serde_json::from_value(document).unwrap();
        let Phase::Ended { by, .. } = older.attempt(&attempt).unwrap().phase else { panic!("{older:?}") };
        by
    };
    assert_eq!([Reason::Exited, Reason::Lost].map(by), [EndedBy::Agent, EndedBy::Server]);
}

#[test]
fn a_superseded_agent_is_fenced_off() {
    let mut job = attached(true);
    let first = id(&job, 0, 1);
    job.apply(found(first.clone(), Reason::Lost, true), 4).unwrap();
    assert_eq!(
        job.next(Evidence { started: true, rows: false }),
        Next::Create { step: 0, after: Some(Again { why: "found".into(), publishes: None }) }
    );
    job.apply(create(0), 5).unwrap();
    assert_eq!(job.apply(attach(first.clone(), KEY), 6), Err(Rejection::AttemptOver));
    assert_eq!(job.apply(commit(first.clone(), KEY), 6), Err(Rejection::AttemptOver));
    assert_eq!(job.apply(report(first, KEY, Reason::Succeeded), 6), Err(Rejection::AttemptOver));
}

#[test]
fn what_may_be_repeated_is_repeated_and_nothing_else() {
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
fn what_was_made_is_published_by_other_attempts_and_never_made_again() {
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
    (Reason::Refused, Cause::Storage),
    (Reason::AgentFailed, Cause::LaunchFailed),
    (Reason::Lost, Cause::Lost),
    (Reason::LaunchFailed, Cause::LaunchFailed),
    (Reason::Deadline, Cause::Deadline),
    (Reason::Terminated, Cause::Lost),
];

/// Reasons after which it is known what became of the statements.
const CONCLUSIVE: [Reason; 2] = [Reason::Exited, Reason::PublishFailed];

#[test]
fn a_started_statement_that_must_not_be_repeated_may_have_executed_whatever_the_reason() {
    let started = Evidence { started: true, rows: false };
    for (reason, cause) in REASONS {
        let outcome = Outcome::by_server(reason, "what happened", false);
        let failed = |repeatable, evidence| failure_after(attached(repeatable), outcome.clone(), evidence);
        assert_eq!(failed(true, started), Failure::new(cause, "what happened"), "{reason:?}, repeatable");
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

/// A database that went away, or a submitter that said nothing, leaves open what became of the statement.
#[test]
fn an_exit_is_conclusive_only_if_the_submitter_knows_what_became_of_the_statement() {
    let started = Evidence { started: true, rows: false };
    for (retryable, unexplained, cause) in [
        (false, false, Cause::StatementFailed),
        (true, false, Cause::MayHaveExecuted),
        (false, true, Cause::MayHaveExecuted),
    ] {
        let outcome = Outcome { unexplained, ..Outcome::by_server(Reason::Exited, "it exited", retryable) };
        let failure = failure_after(attached(false), outcome, started);
        assert_eq!(failure.cause, cause, "retryable {retryable}, unexplained {unexplained}");
    }
}

#[test]
fn a_cancelled_job_says_that_its_statement_may_have_executed() {
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
fn a_verdict_on_an_attempt_without_an_agent_does_not_apply_to_one_that_has_an_agent() {
    let mut job = attached(false);
    let attempt = id(&job, 0, 1);
    let outcome = Outcome::by_server(Reason::LaunchFailed, "the agent ended before it attached", true);
    let verdict =
        |basis| Event::AttemptFoundEnded { attempt: attempt.clone(), outcome: outcome.clone(), basis };
    let before = job.clone();
    assert_eq!(job.apply(verdict(Basis::NeverAttached), 4), Err(Rejection::OutOfOrder));
    assert_eq!(job, before);
    assert_eq!(job.apply(verdict(Basis::Attached), 4), Ok(Change::Changed));
    assert_eq!(job.apply(verdict(Basis::NeverAttached), 5), Ok(Change::Unchanged), "it has ended already");
}

#[test]
fn a_step_is_not_tried_for_ever() {
    let mut job = job(vec![step(true)]);
    for number in 1..=MAX_ATTEMPTS {
        assert!(matches!(job.next(Evidence::default()), Next::Create { .. }));
        job.apply(create(0), 1).unwrap();
        job.apply(found(id(&job, 0, number), Reason::LaunchFailed, true), 1).unwrap();
    }
    assert!(matches!(job.next(Evidence::default()), Next::Finish(JobState::Failed(_))));
}

#[test]
fn a_cancelled_job_starts_nothing_grants_nothing_and_fails() {
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
fn a_grant_given_before_the_cancellation_stands() {
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
fn a_job_that_lost_a_result_to_a_limit_fails_even_if_its_attempt_was_faster() {
    let mut job = attached(true);
    let attempt = id(&job, 0, 1);
    job.apply(Event::CancelRequested(Failure::over_limit()), 3).unwrap();
    job.apply(report(attempt, KEY, Reason::Succeeded), 4).unwrap();
    assert_eq!(job.next(Evidence::default()), Next::Finish(JobState::Failed(Failure::over_limit())));
}

/// The first cause stands for a job that fails; that a result is missing is a fact of its own.
#[test]
fn a_limit_after_a_cancel_is_not_forgotten() {
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
fn a_job_that_runs_cannot_be_finished() {
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
fn a_killed_attempt_that_wrote_a_table_is_cleaned_up_before_the_job_ends() {
    let mut job = cancelled_while_it_writes();
    job.apply(report(id(&job, 0, 1), KEY, Reason::Cancelled), 5).unwrap();
    assert_eq!(job.next(STARTED), Next::CleanUp { step: 0, tried: 0 });
    job.apply(clean_up(0), 6).unwrap();
    let attempt = id(&job, 0, 2);
    // The cancel is for what runs the step.
    assert_eq!(job.next(STARTED), Next::Launch(attempt.clone()));
    job.apply(attach(attempt.clone(), KEY), 7).unwrap();
    assert_eq!(job.next(STARTED), Next::Watch(attempt.clone()));
    job.apply(report(attempt, KEY, Reason::Succeeded), 8).unwrap();
    assert_eq!(job.next(STARTED), ended_as_cancelled(), "cleaning up is no success of the step");
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
fn a_clean_up_that_always_fails_ends_and_is_reported() {
    let mut job = cancelled_while_it_writes();
    job.apply(report(id(&job, 0, 1), KEY, Reason::Cancelled), 5).unwrap();
    for tried in 0..MAX_CLEAN_UPS {
        assert_eq!(job.next(STARTED), Next::CleanUp { step: 0, tried });
        job.apply(clean_up(0), 6).unwrap();
        job.apply(found(id(&job, 0, tried + 2), Reason::Lost, true), 7).unwrap();
    }
    let Next::Finish(JobState::Failed(failure)) = job.next(STARTED) else { panic!("it must end") };
    assert_eq!(failure.cause, Cause::Cancelled);
    assert!(failure.message.contains("still in the database"), "{}", failure.message);
}

#[test]
fn a_grant_whose_attempt_was_killed_is_to_be_explained() {
    let mut job = attached(true);
    job.steps[0].writes_table = true;
    job.apply(commit(id(&job, 0, 1), KEY), 4).unwrap();
    assert_eq!(unclear_grant(&job.steps[0]), Some(1));
    job.apply(found(id(&job, 0, 1), Reason::Lost, true), 5).unwrap();
    assert_eq!(unclear_grant(&job.steps[0]), Some(1));
    let mut reported = attached(true);
    reported.apply(commit(id(&reported, 0, 1), KEY), 4).unwrap();
    reported.apply(report(id(&reported, 0, 1), KEY, Reason::Succeeded), 5).unwrap();
    assert_eq!(unclear_grant(&reported.steps[0]), None);
}

#[test]
fn the_state_survives_its_json() {
    let mut job = attached(false);
    job.apply(report(id(&job, 0, 1), KEY, Reason::OutOfMemory), 4).unwrap();
    let json = serde_json::to_string(&job).unwrap();
    assert_eq!(serde_json::from_str::<Job>(&json).unwrap(), job);
}

/// Events of a small world: two steps, up to four attempts, two agents.
fn any_event() -> impl Strategy<Value = (u8, u32, u32, bool, bool)> {
    (0_u8..10, 0_u32..3, 0_u32..5, any::<bool>(), any::<bool>())
}

fn event(job: &Job, (kind, step, number, first, flag): (u8, u32, u32, bool, bool)) -> Event {
    let key = if first { KEY } else { OTHER_KEY };
    let attempt = id(job, step, number);
    match kind {
        0 => create(step),
        1 => Event::AttemptLaunched { attempt, tracker_url: None },
        2 => attach(attempt, key),
        3 => commit(attempt, key),
        4 => report(attempt, key, if flag { Reason::Succeeded } else { Reason::Exited }),
        5 => found(attempt, Reason::Lost, flag),
        6 => Event::CancelRequested(Failure::new(Cause::Cancelled, "cancelled")),
        7 => Event::CancelRequested(Failure::over_limit()),
        8 => {
            let outcome = Outcome::by_server(Reason::LaunchFailed, "no agent", flag);
            Event::AttemptFoundEnded { attempt, outcome, basis: Basis::NeverAttached }
        }
        _ => Event::Finished(if flag {
            JobState::Succeeded
        } else {
            JobState::Failed(Failure::new(Cause::Lost, "lost"))
        }),
    }
}

fn live_attempts(job: &Job) -> usize {
    job.steps.iter().flat_map(|step| &step.attempts).filter(|attempt| attempt.outcome().is_none()).count()
}

proptest! {
    #[test]
    fn whatever_happens_the_rules_hold(
        events in prop::collection::vec(any_event(), 1..60),
        repeatable in any::<bool>(),
    ) {
        let mut job = job(vec![step(repeatable), step(true)]);
        for raw in events {
            let before = job.clone();
            let result = job.apply(event(&before, raw), 1);
            match result {
                Ok(Change::Changed) => prop_assert_ne!(&before, &job),
                Ok(Change::Unchanged) | Err(_) => prop_assert_eq!(&before, &job),
            }
            if before.state.is_final() {
                prop_assert_eq!(&before.state, &job.state, "a final state is never left");
                prop_assert_eq!(before.steps.len(), job.steps.len());
            }
            prop_assert!(live_attempts(&job) <= 1, "never two attempts at the same time");
            for (old, new) in before.steps.iter().zip(&job.steps) {
                prop_assert!(new.attempts.len() >= old.attempts.len());
                for (old, new) in old.attempts.iter().zip(&new.attempts) {
                    if let Some(outcome) = old.outcome() {
                        prop_assert_eq!(Some(outcome), new.outcome(), "an outcome never changes");
                    }
                    prop_assert!(!old.granted || new.granted, "a grant is never taken back");
                    let was_attached = matches!(old.phase, Phase::Attached { .. });
                    let launch_failed = new.outcome().is_some_and(|it| it.reason == Reason::LaunchFailed);
                    prop_assert!(!was_attached || !launch_failed, "an agent was there");
                }
            }
            if job.steps[0].attempts.is_empty() || !job.steps[0].succeeded() {
                prop_assert!(job.steps[1].attempts.is_empty(), "a step waits for the one before it");
            }
        }
    }

    /// A driver that does what `next` says ends every job, whatever its agents do.
    #[test]
    fn a_job_that_is_driven_ends(outcomes in prop::collection::vec((0_u8..6, any::<bool>()), 0..40), cancel_at in 0_usize..60) {
        let mut job = job(vec![step(true), Step { writes_table: true, ..step(false) }]);
        let mut outcomes = outcomes.into_iter();
        for round in 0..200 {
            if round == cancel_at {
                job.apply(Event::CancelRequested(Failure::new(Cause::Cancelled, "cancelled")), 1).unwrap();
            }
            let (kind, started) = outcomes.next().unwrap_or((0, true));
            match job.next(Evidence { started, rows: false }) {
                Next::Create { step, .. } => { job.apply(create(step), 1).unwrap(); }
                Next::CleanUp { step, .. } => { job.apply(clean_up(step), 1).unwrap(); }
                Next::Launch(attempt) => { job.apply(Event::AttemptLaunched { attempt, tracker_url: None }, 1).unwrap(); }
                Next::Watch(attempt) | Next::End(attempt) => {
                    // An agent may do nothing, attach, report, or be lost.
                    let event = match kind {
                        0 | 1 => attach(attempt.clone(), KEY),
                        2 => report(attempt.clone(), KEY, Reason::Succeeded),
                        3 => report(attempt.clone(), KEY, Reason::Exited),
                        4 => found(attempt.clone(), Reason::Lost, true),
                        _ => commit(attempt.clone(), KEY),
                    };
                    let _ = job.apply(event, 1);
                    if round > 150 {
                        let _ = job.apply(found(attempt, Reason::Lost, true), 1);
                    }
                }
                Next::Finish(state) => { job.apply(Event::Finished(state), 1).unwrap(); }
                Next::Nothing => return Ok(()),
            }
        }
        prop_assert!(false, "the job never ended: {job:?}");
    }
}
