//! What is done about an ended attempt's artifacts while the job goes on.

use super::*;

/// A job with an attempt that was lost and the next one, which is not launched yet.
async fn world_with_a_dead_attempt() -> World {
    let world = world(Some(refusal(true))).await;
    world.attach().await;
    let (attempt, outcome) = (world.attempt.clone(), Outcome::by_server(Reason::Lost, "it was killed", true));
    world.update(Event::AttemptFoundEnded { attempt, outcome, basis: Basis::Attached }).await;
    world.update(World::created()).await;
    world.launcher.dead.set(world.attempt.clone()).unwrap();
    world
}

/// Its children must not run beside the next attempt, and nobody else cleans up while the job goes on.
#[tokio::test]
async fn a_failed_clean_up_is_tried_again_and_does_not_hold_up_the_launch() {
    use Call::{CleanUp, Launch};
    let world = world_with_a_dead_attempt().await;
    world.reconcile();
    until("it was cleaned up", async || world.calls().len() == 4).await;
    assert_eq!(world.calls(), [CleanUp, Launch, CleanUp, CleanUp]);
    world.looks_often().await;
    assert_eq!(world.calls().len(), 4, "nothing was left");
}

#[tokio::test]
async fn nothing_is_removed_of_an_attempt_that_may_run_and_it_is_looked_at_again() {
    let world = world_with_a_dead_attempt().await;
    let (job, mut reconciler) = (world.job().await, world.job_reconciler());
    world.launcher.unknown.set("nobody answers").unwrap();
    reconciler.clean_up_ended(&job, world.attempt.clone()).await;
    assert_eq!(world.calls(), []);
    let (due, attempt) = reconciler.next_clean_up(&job).unwrap();
    assert!(due > Instant::now() && attempt == world.attempt);
}

#[tokio::test]
async fn an_agent_that_starts_after_the_look_is_cleaned_up_behind_later() {
    let world = world_with_a_dead_attempt().await;
    let (job, mut reconciler) = (world.job().await, world.job_reconciler());
    world.launcher.late.set(()).unwrap();
    reconciler.clean_up_ended(&job, world.attempt.clone()).await;
    assert_eq!(world.calls(), [Call::CleanUp]);
    let (due, attempt) = reconciler.next_clean_up(&job).unwrap();
    assert!(due > Instant::now() && attempt == world.attempt);
}
