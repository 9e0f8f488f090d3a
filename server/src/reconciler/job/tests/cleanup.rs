//! Cleanup of ended attempts while the job continues.

use super::*;

/// A job with a lost attempt, and a next one that is not launched yet.
async fn world_with_a_dead_attempt() -> World {
    let world = world(Some(refusal(true))).await;
    world.attach().await;
    let (attempt, outcome) = (world.attempt.clone(), Outcome::by_server(Reason::Lost, "it was killed", true));
    world.update(Event::AttemptFoundEnded { attempt, outcome, basis: Basis::Attached }).await;
    world.update(World::created()).await;
    world.launcher.dead.set(world.attempt.clone()).unwrap();
    world
}

/// Its children must not run beside the next attempt, and housekeeping cleans up ended jobs only.
#[tokio::test]
async fn failed_cleanup_is_retried_and_does_not_delay_the_launch() {
    use Call::{Cleanup, Launch};
    let world = world_with_a_dead_attempt().await;
    world.reconcile();
    until("it was cleaned up", async || world.calls().len() == 4).await;
    assert_eq!(world.calls(), [Cleanup, Launch, Cleanup, Cleanup]);
    world.wait_for_many_observations().await;
    assert_eq!(world.calls().len(), 4, "nothing was left");
}

#[tokio::test]
async fn attempt_in_unknown_state_is_cleaned_up_later() {
    let world = world_with_a_dead_attempt().await;
    let (job, mut reconciler) = (world.job().await, world.job_reconciler());
    world.launcher.unknown.set("no answer").unwrap();
    reconciler.cleanup_ended(&job, world.attempt.clone()).await;
    assert_eq!(world.calls(), []);
    let (due, attempt) = reconciler.next_cleanup(&job).unwrap();
    assert!(due > Instant::now() && attempt == world.attempt);
}

#[tokio::test]
async fn agent_that_starts_during_cleanup_is_cleaned_up_later() {
    let world = world_with_a_dead_attempt().await;
    let (job, mut reconciler) = (world.job().await, world.job_reconciler());
    world.launcher.late.set(()).unwrap();
    reconciler.cleanup_ended(&job, world.attempt.clone()).await;
    assert_eq!(world.calls(), [Call::Cleanup]);
    let (due, attempt) = reconciler.next_cleanup(&job).unwrap();
    assert!(due > Instant::now() && attempt == world.attempt);
}
