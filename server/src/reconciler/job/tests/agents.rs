//! Agents that do not attach, or do not return.

use super::*;

/// A lease that does not expire during a test.
const LONG: Duration = Duration::from_secs(3600);

/// For example while the apiserver is unavailable.
#[tokio::test]
async fn unknown_state_is_reported() {
    let world = world(None).await;
    world.attach().await;
    world.launcher.unknown.set("no answer").unwrap();
    world.reconcile();
    world.said("the state of the attempt is not known: no answer").await;
}

#[tokio::test]
async fn unknown_state_of_a_cancelled_attempt_is_reported() {
    let world = world(None).await;
    world.attach().await;
    world.launcher.unknown.set("no answer").unwrap();
    world.update(Event::CancelRequested(Failure::over_limit())).await;
    world.reconcile();
    world.said("the state of the attempt is not known: no answer").await;
}

#[tokio::test]
async fn attach_timeout_fails_the_attempt() {
    let world = world(None).await;
    world.reconcile();
    let failure = world.failure().await;
    assert_eq!((failure.cause, failure.message.as_str()), (Cause::LaunchFailed, "nothing was heard"));
    assert_eq!(world.stopped(), [(world.attempt.clone(), true)]);
}

#[tokio::test]
async fn attach_timeout_reports_the_last_attach_error() {
    let world = world(Some(refusal(false))).await;
    world.reconcile();
    let message = world.failure().await.message;
    assert!(message.contains("could not attach: its token could not be checked"), "{message}");
}

/// The server that could not verify it is to blame.
#[tokio::test]
async fn retryable_attach_error_extends_the_attach_timeout() {
    let world = world(Some(refusal(true))).await;
    world.reconcile();
    assert_eq!(world.phase_after_many_observations().await, Phase::Launched);
    assert_eq!(world.stopped(), []);
}

#[tokio::test]
async fn attached_agent_has_no_attach_timeout() {
    let world = world(None).await;
    let instance = world.attach().await;
    world.reconcile();
    assert_eq!(world.phase_after_many_observations().await, Phase::Attached { instance });
    assert_eq!(world.stopped(), []);
}

/// The server that heard the agent has ended, so it cannot report the silence.
#[tokio::test]
async fn agent_without_a_new_server_is_reported_silent() {
    let (world, other) = (world(None).await, world_of(None, true).await);
    let living = Membership::join(&other.servers).unwrap();
    other.store.heartbeat(living.id(), LONG, LONG).await.unwrap();
    other.update(World::created()).await;
    other.attach_to(living.id()).await;
    other.reconcile();
    world.attach().await;
    world.reconcile();
    world.said("no word from the agent for 1 s").await;
    assert_eq!(other.count(is_notice).await, 0, "another server hears that one");
    world.attach_to(world.reconciler.server()).await;
    world.said("the agent is heard again").await;
    assert_eq!(world.count(is_notice).await, 2, "each is reported once");
    drop(living);
    other.said("no word from the agent for 1 s").await;
}

/// A stopped server keeps its lock. Its return proves nothing about the agent, which may still be stopped.
#[tokio::test]
async fn agent_of_a_stopped_server_is_reported_silent_until_it_attaches() {
    let world = world(None).await;
    let stopped = Membership::join(&world.servers).unwrap();
    world.update(World::created()).await;
    world.attach_to(stopped.id()).await;
    world.reconcile();
    world.said("no word from the agent for 1 s: the server that it is attached to is silent too").await;
    assert_eq!(world.job().await.attached_to(&world.attempt), None);
    world.store.heartbeat(stopped.id(), LONG, LONG).await.unwrap();
    world.wait_for_many_observations().await;
    assert_eq!(world.count(is_notice).await, 1, "only its server is heard again");
    world.attach_to(stopped.id()).await;
    world.said("the agent is heard again").await;
    assert_eq!(world.count(is_notice).await, 2, "each is reported once");
}

/// Its next reconciler does not know which server it was attached to.
#[tokio::test]
async fn agent_attached_to_no_server_is_reported_silent() {
    let world = world(None).await;
    world.attach().await;
    world.update(Event::AgentUnheard { attempt: world.attempt.clone(), server: "gone".to_owned() }).await;
    world.reconcile();
    world.said("no word from the agent for 1 s: it is not known to be attached to any server").await;
}

/// For example after a full disk, for so long that the launcher has forgotten the exit.
#[tokio::test]
async fn exit_that_the_launcher_has_forgotten_is_observed_by_polling() {
    let world = world_of(None, false).await;
    world.update(World::created()).await;
    world.attach_to(world.reconciler.server()).await;
    world.launcher.silent.set(()).unwrap();
    world.launcher.gone.set(()).unwrap();
    let mut reconciler = world.job_reconciler();
    reconciler.observations(&world.attempt).first_running_ms = Some(clock::now_ms());
    let outcome = async {
        tokio::select! {
            () = reconciler.reconcile() => panic!("the job is over before its attempt"),
            outcome = world.outcome(&world.attempt) => outcome,
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(60), outcome).await.unwrap();
    assert_eq!(outcome.reason, Reason::Lost);
}

/// A pending time of an earlier attempt does not count for the next one.
#[tokio::test]
async fn observations_of_an_attempt_are_not_kept_for_the_next() {
    let world = world(None).await;
    let mut reconciler = world.job_reconciler();
    let second = AttemptId { number: 2, ..world.attempt.clone() };
    let begun = Instant::now();
    reconciler.observations(&world.attempt).missing.note(begun);
    let missing = |reconciler: &mut JobReconciler, attempt| {
        reconciler.observations(attempt).missing.note(begun + Duration::from_secs(9)).as_secs()
    };
    assert_eq!(missing(&mut reconciler, &world.attempt), 9);
    assert_eq!(missing(&mut reconciler, &second), 0);
}
