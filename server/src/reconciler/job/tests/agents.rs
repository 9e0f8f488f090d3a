//! What a reconciler makes of agents that do not come, or do not come back.

use super::*;

/// A lease that does not run out while a test runs.
const LONG: Duration = Duration::from_secs(3600);

/// As while the apiserver is away.
#[tokio::test]
async fn it_is_said_that_nothing_is_known_of_an_attempt() {
    let world = world(None).await;
    world.attach().await;
    world.launcher.unknown.set("nobody answers").unwrap();
    world.reconcile();
    world.said("the state of the attempt is not known: nobody answers").await;
}

#[tokio::test]
async fn it_is_said_that_nothing_is_known_of_an_attempt_that_is_to_end() {
    let world = world(None).await;
    world.attach().await;
    world.launcher.unknown.set("nobody answers").unwrap();
    world.update(Event::CancelRequested(Failure::over_limit())).await;
    world.reconcile();
    world.said("the state of the attempt is not known: nobody answers").await;
}

#[tokio::test]
async fn an_agent_that_does_not_attach_is_given_up() {
    let world = world(None).await;
    world.reconcile();
    let failure = world.failure().await;
    assert_eq!((failure.cause, failure.message.as_str()), (Cause::LaunchFailed, "nothing was heard"));
    assert_eq!(world.stopped(), [(world.attempt.clone(), true)]);
}

#[tokio::test]
async fn why_it_was_refused_is_told() {
    let world = world(Some(refusal(false))).await;
    world.reconcile();
    let message = world.failure().await.message;
    assert!(message.contains("could not attach: its token could not be checked"), "{message}");
}

/// The server that could not tell who it is would be the one to blame.
#[tokio::test]
async fn an_agent_that_could_not_be_judged_is_waited_for() {
    let world = world(Some(refusal(true))).await;
    world.reconcile();
    assert_eq!(world.phase_after_many_looks().await, Phase::Launched);
    assert_eq!(world.stopped(), []);
}

#[tokio::test]
async fn an_agent_that_attached_to_an_earlier_server_is_not_judged() {
    let world = world(None).await;
    let instance = world.attach().await;
    world.reconcile();
    assert_eq!(world.phase_after_many_looks().await, Phase::Attached { instance });
    assert_eq!(world.stopped(), []);
}

/// The server that heard the agent has ended, so it cannot say that nothing is heard any more.
#[tokio::test]
async fn an_agent_that_does_not_come_back_after_its_server_ended_is_silent() {
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
    assert_eq!(world.count(is_notice).await, 2, "each is said once");
    drop(living);
    other.said("no word from the agent for 1 s").await;
}

/// It keeps its lock while it is stopped. That it returns tells nothing of the agent, which may still be stopped.
#[tokio::test]
async fn an_agent_whose_server_is_stopped_is_silent_until_it_attaches() {
    let world = world(None).await;
    let stopped = Membership::join(&world.servers).unwrap();
    world.update(World::created()).await;
    world.attach_to(stopped.id()).await;
    world.reconcile();
    world.said("no word from the agent for 1 s: the server that it is attached to is silent too").await;
    assert_eq!(world.job().await.attached_to(&world.attempt), None);
    world.store.heartbeat(stopped.id(), LONG, LONG).await.unwrap();
    world.looks_often().await;
    assert_eq!(world.count(is_notice).await, 1, "only its server is heard again");
    world.attach_to(stopped.id()).await;
    world.said("the agent is heard again").await;
    assert_eq!(world.count(is_notice).await, 2, "each is said once");
}

/// Its next reconciler does not know which server it was.
#[tokio::test]
async fn an_agent_that_is_attached_to_no_server_is_silent() {
    let world = world(None).await;
    world.attach().await;
    world.update(Event::AgentUnheard { attempt: world.attempt.clone(), server: "gone".to_owned() }).await;
    world.reconcile();
    world.said("no word from the agent for 1 s: it is not known to be attached to any server").await;
}

/// As after a full disk of so long that the launcher has forgotten the exit.
#[tokio::test]
async fn an_exit_that_could_not_be_acted_on_and_is_forgotten_is_seen_soon() {
    let world = world_of(None, false).await;
    world.update(World::created()).await;
    world.attach_to(world.reconciler.server()).await;
    world.launcher.silent.set(()).unwrap();
    world.launcher.gone.set(()).unwrap();
    let mut reconciler = world.job_reconciler();
    reconciler.attempt_view(&world.attempt).seen_ms = Some(clock::now_ms());
    let outcome = async {
        tokio::select! {
            () = reconciler.reconcile() => panic!("the job is over before its attempt"),
            outcome = world.outcome(&world.attempt) => outcome,
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(60), outcome).await.unwrap();
    assert_eq!(outcome.reason, Reason::Lost);
}

/// A wait of an earlier attempt is not held against the next one.
#[tokio::test]
async fn what_was_seen_of_an_attempt_is_no_other_attempts() {
    let world = world(None).await;
    let mut reconciler = world.job_reconciler();
    let second = AttemptId { number: 2, ..world.attempt.clone() };
    let begun = Instant::now();
    reconciler.attempt_view(&world.attempt).missing.note(begun);
    let missing = |reconciler: &mut JobReconciler, attempt| {
        reconciler.attempt_view(attempt).missing.note(begun + Duration::from_secs(9)).as_secs()
    };
    assert_eq!(missing(&mut reconciler, &world.attempt), 9);
    assert_eq!(missing(&mut reconciler, &second), 0);
}
