//! Transitions and decisions of a job. The property tests apply random events of agents, reconcilers and clients, and
//! check the invariants.

mod cancels;
mod inferred_outcomes;

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
    Event::AgentAttached { attempt, instance: InstanceHash::of(key), server: "s".to_owned(), is_local: false }
}

fn report(attempt: AttemptId, key: &[u8], reason: Reason) -> Event {
    let outcome = Outcome::by_server(reason, "reported by its agent", false);
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
    Event::AttemptCreated { step, role: Role::Run, launcher_id: LauncherId::of(LauncherKind::Local) }
}

fn cleanup(step: u32) -> Event {
    Event::AttemptCreated { step, role: Role::Cleanup, launcher_id: LauncherId::of(LauncherKind::Local) }
}

/// A job of one step whose attempt is attached.
fn attached(repeatable: bool) -> Job {
    let mut job = job(vec![step(repeatable)]);
    let attempt = id(&job, 0, 1);
    job.apply(create(0), 1).unwrap();
    job.apply(Event::AttemptLaunched { attempt: attempt.clone(), tracker_url: None, executor_uid: None }, 2)
        .unwrap();
    job.apply(attach(attempt, KEY), 3).unwrap();
    job
}

/// Only a change of server is written: agents attach again whenever their connection is cut.
#[test]
fn attempt_has_the_server_of_the_last_attach() {
    let mut job = attached(true);
    let attempt = id(&job, 0, 1);
    let attach_to = |server: &str| Event::AgentAttached {
        attempt: attempt.clone(),
        instance: InstanceHash::of(KEY),
        server: server.to_owned(),
        is_local: false,
    };
    assert_eq!(job.apply(attach_to("s"), 4), Ok(Change::Unchanged));
    assert_eq!(job.apply(attach_to("t"), 5), Ok(Change::Changed));
    let known = job.attempt(&attempt).unwrap();
    assert_eq!((known.attached_to.as_deref(), known.attached_ms), (Some("t"), Some(3)));
}

/// The return of a server proves nothing about the agent. Only another attach does.
#[test]
fn silent_agent_is_attached_to_no_server_until_it_attaches() {
    let mut job = attached(true);
    let attempt = id(&job, 0, 1);
    let unheard = |server: &str| Event::AgentUnheard { attempt: attempt.clone(), server: server.to_owned() };
    assert_eq!(job.apply(unheard("t"), 4), Err(Rejection::OutOfOrder), "it is attached to another server");
    assert_eq!(job.apply(unheard("s"), 4), Ok(Change::Changed));
    assert_eq!(job.attached_to(&attempt), None);
    assert_eq!(job.apply(unheard("s"), 5), Err(Rejection::OutOfOrder));
    assert_eq!(job.apply(attach(attempt.clone(), KEY), 6), Ok(Change::Changed), "also to the same server");
    assert_eq!(job.attached_to(&attempt), Some("s"));
}

#[test]
fn job_of_two_steps_succeeds() {
    let mut job = job(vec![step(true), step(true)]);
    for index in 0..2 {
        let attempt = id(&job, index, 1);
        assert_eq!(job.next(Evidence::default()), Next::Create { step: index, after: None });
        job.apply(create(index), 1).unwrap();
        assert_eq!(job.next(Evidence::default()), Next::Launch(attempt.clone()));
        job.apply(
            Event::AttemptLaunched { attempt: attempt.clone(), tracker_url: None, executor_uid: None },
            1,
        )
        .unwrap();
        assert_eq!(job.next(Evidence::default()), Next::Watch(attempt.clone()));
        job.apply(attach(attempt.clone(), KEY), 1).unwrap();
        job.apply(report(attempt, KEY, Reason::Succeeded), 1).unwrap();
    }
    assert_eq!(job.next(Evidence::default()), Next::Finish(JobState::Succeeded));
    job.apply(Event::Finished(JobState::Succeeded), 9).unwrap();
    assert_eq!(job.next(Evidence::default()), Next::Nothing);
}

#[test]
fn launch_phases_are_contiguous_despite_clock_skew() {
    let mut job = job(vec![step(true)]);
    let attempt = id(&job, 0, 1);
    job.apply(create(0), 1000).unwrap();
    job.apply(
        Event::AttemptLaunched { attempt: attempt.clone(), tracker_url: None, executor_uid: None },
        1010,
    )
    .unwrap();
    job.apply(attach(attempt.clone(), KEY), 4000).unwrap();
    let way = |job: &Job| {
        let stages = job.attempt(&id(job, 0, 1)).unwrap().launch_stages(9000);
        stages.into_iter().map(|it| (it.name, it.begin_ms, it.end_ms)).collect::<Vec<_>>()
    };
    assert_eq!(way(&job), [("launch", 1000, 1010), ("start", 1010, 4000)]);
    let seen = |scheduled_ms, container_ms| Event::MilestonesSeen {
        attempt: attempt.clone(),
        milestones: Milestones { scheduled_ms, container_ms },
    };
    // The node's clock is behind the server's.
    assert_eq!(job.apply(seen(Some(900), None), 2000), Ok(Change::Changed));
    assert_eq!(way(&job), [("launch", 1000, 1010), ("schedule", 1010, 1010), ("start", 1010, 4000)]);
    assert_eq!(job.apply(seen(Some(800), Some(3000)), 2000), Ok(Change::Changed));
    assert_eq!(
        job.apply(seen(Some(1), Some(1)), 2000),
        Ok(Change::Unchanged),
        "the first reported time is kept"
    );
    let whole =
        [("launch", 1000, 1010), ("schedule", 1010, 1010), ("pull", 1010, 3000), ("start", 3000, 4000)];
    assert_eq!(way(&job), whole);
}

#[test]
fn only_the_first_agent_may_report_for_an_attempt() {
    let mut job = attached(true);
    let attempt = id(&job, 0, 1);
    assert_eq!(job.apply(attach(attempt.clone(), OTHER_KEY), 4), Err(Rejection::WrongInstance));
    assert_eq!(job.apply(commit(attempt.clone(), OTHER_KEY), 4), Err(Rejection::WrongInstance));
    assert_eq!(
        job.apply(report(attempt.clone(), OTHER_KEY, Reason::Succeeded), 4),
        Err(Rejection::WrongInstance)
    );
    assert_eq!(job.apply(attach(attempt, KEY), 4), Ok(Change::Unchanged), "the same agent may attach again");
}

#[test]
fn repeated_outcome_is_ignored() {
    let mut job = attached(true);
    let attempt = id(&job, 0, 1);
    assert_eq!(job.apply(report(attempt.clone(), KEY, Reason::Exited), 4), Ok(Change::Changed));
    let before = job.clone();
    assert_eq!(job.apply(report(attempt.clone(), KEY, Reason::Succeeded), 5), Ok(Change::Unchanged));
    assert_eq!(job.apply(found(attempt, Reason::Lost, true), 5), Ok(Change::Unchanged));
    assert_eq!(job, before, "the first outcome stands");
}

/// For every inferred outcome.
#[test]
fn agent_is_rejected_after_an_inferred_outcome() {
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
fn terminated_by_is_derived_from_the_reason_in_older_documents() {
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
fn stored_launcher_kind_is_its_name() {
    let id = LauncherId { kind: LauncherKind::Kubernetes, scope: Some("s".into()) };
    assert_eq!(
        serde_json::to_value(id).unwrap(),
        serde_json::json!({"launcher": "kubernetes", "scope": "s"})
    );
    let newer = serde_json::json!({"launcher": "yarn"});
    let id: LauncherId = serde_json::from_value(newer.clone()).unwrap();
    assert_eq!(id.kind, LauncherKind::Other("yarn".into()));
    assert_eq!(serde_json::to_value(id).unwrap(), newer, "it is stored back unchanged");
}

/// Servers of other versions read it.
#[test]
fn stored_role_keeps_its_name() {
    assert_eq!(
        serde_json::to_value([Role::Run, Role::Cleanup]).unwrap(),
        serde_json::json!(["run", "clean_up"])
    );
}

#[test]
fn superseded_agent_is_rejected() {
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
fn number_of_attempts_is_bounded() {
    let mut job = job(vec![step(true)]);
    for number in 1..=MAX_ATTEMPTS {
        assert!(matches!(job.next(Evidence::default()), Next::Create { .. }));
        job.apply(create(0), 1).unwrap();
        job.apply(found(id(&job, 0, number), Reason::LaunchFailed, true), 1).unwrap();
    }
    assert!(matches!(job.next(Evidence::default()), Next::Finish(JobState::Failed(_))));
}

#[test]
fn job_round_trips_through_json() {
    let mut job = attached(false);
    job.apply(report(id(&job, 0, 1), KEY, Reason::OutOfMemory), 4).unwrap();
    let json = serde_json::to_string(&job).unwrap();
    assert_eq!(serde_json::from_str::<Job>(&json).unwrap(), job);
}

/// Events of a job with two steps, up to four attempts, and two agents.
fn any_event() -> impl Strategy<Value = (u8, u32, u32, bool, bool)> {
    (0_u8..10, 0_u32..3, 0_u32..5, any::<bool>(), any::<bool>())
}

fn event(job: &Job, (kind, step, number, first, flag): (u8, u32, u32, bool, bool)) -> Event {
    let key = if first { KEY } else { OTHER_KEY };
    let attempt = id(job, step, number);
    match kind {
        0 => create(step),
        1 => Event::AttemptLaunched { attempt, tracker_url: None, executor_uid: None },
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
    fn invariants_hold_for_any_events(
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
            prop_assert!(live_attempts(&job) <= 1, "two attempts run at the same time");
            for (old, new) in before.steps.iter().zip(&job.steps) {
                prop_assert!(new.attempts.len() >= old.attempts.len());
                for (old, new) in old.attempts.iter().zip(&new.attempts) {
                    if let Some(outcome) = old.outcome() {
                        prop_assert_eq!(Some(outcome), new.outcome(), "an outcome never changes");
                    }
                    prop_assert!(!old.granted || new.granted, "a grant is never revoked");
                    let was_attached = matches!(old.phase, Phase::Attached { .. });
                    let launch_failed = new.outcome().is_some_and(|it| it.reason == Reason::LaunchFailed);
                    prop_assert!(!was_attached || !launch_failed, "LAUNCH_FAILED of an attached attempt");
                }
            }
            if job.steps[0].attempts.is_empty() || !job.steps[0].succeeded() {
                prop_assert!(job.steps[1].attempts.is_empty(), "a step started before the previous one succeeded");
            }
        }
    }

    /// Each job ends if the reconciler follows `next`, whatever its agents do.
    #[test]
    fn reconciled_job_ends(outcomes in prop::collection::vec((0_u8..6, any::<bool>()), 0..40), cancel_at in 0_usize..60) {
        let mut job = job(vec![step(true), Step { writes_table: true, ..step(false) }]);
        let mut outcomes = outcomes.into_iter();
        for round in 0..200 {
            if round == cancel_at {
                job.apply(Event::CancelRequested(Failure::new(Cause::Cancelled, "cancelled")), 1).unwrap();
            }
            let (kind, started) = outcomes.next().unwrap_or((0, true));
            match job.next(Evidence { started, rows: false }) {
                Next::Create { step, .. } => { job.apply(create(step), 1).unwrap(); }
                Next::Cleanup { step, .. } => { job.apply(cleanup(step), 1).unwrap(); }
                Next::Launch(attempt) => { job.apply(Event::AttemptLaunched { attempt, tracker_url: None, executor_uid: None }, 1).unwrap(); }
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
        prop_assert!(false, "the job does not end: {job:?}");
    }
}
