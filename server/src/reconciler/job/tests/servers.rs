//! Jobs that another server reconciles, has written, or must reconcile; and a state that is older than the log.

use super::*;

/// After a restore from a backup, the state does not know the attempt's agent, or the attempt.
#[tokio::test]
async fn attempt_missing_in_a_restored_state_is_not_executed_again() {
    for is_created in [true, false] {
        let world = world_of(None, false).await;
        world.launcher.gone.set(()).unwrap();
        world.log_of_a_newer_state().await;
        if is_created {
            world.update(World::created()).await;
        }
        world.reconcile();
        let failure = world.failure().await;
        assert_eq!(failure.cause, Cause::MayHaveExecuted, "{}", failure.message);
        assert_eq!(world.outcome(&world.attempt).await.reason, Reason::Lost);
        assert_eq!(world.launches(), 0);
        assert_eq!(world.count(is_gap_of_lost_agent).await, 1, "lost output has a gap record");
    }
}

/// A cancel does not hide it.
#[tokio::test]
async fn attempt_missing_in_a_restored_state_is_reported_after_a_cancel() {
    let world = world_of(None, false).await;
    world.launcher.gone.set(()).unwrap();
    world.log_of_a_newer_state().await;
    world.update(Event::CancelRequested(Failure::new(Cause::Cancelled, "cancelled"))).await;
    world.reconcile();
    let failure = world.failure().await;
    assert_eq!(failure.cause, Cause::Cancelled);
    assert!(failure.message.contains("may have executed"), "{}", failure.message);
    assert_eq!(world.launches(), 0);
}

/// It attaches again, and delivers the rest.
#[tokio::test]
async fn agent_missing_in_a_restored_state_is_awaited() {
    let world = world_of(Some(refusal(true)), false).await;
    world.log_of_a_newer_state().await;
    world.reconcile();
    assert_eq!(world.phase_after_many_observations().await, Phase::Launched);
    assert_eq!((world.launches(), world.stopped()), (0, Vec::new()));
}

#[tokio::test]
async fn cancel_through_another_server_reaches_a_queued_job() {
    let world = world(None).await;
    world.launcher.full.set(()).unwrap();
    world.launcher.gone.set(()).unwrap();
    world.reconcile();
    world.said("waiting for a run slot").await;
    let other = SqliteStore::open(&world.state_file()).await.unwrap();
    let cancel = Event::CancelRequested(Failure::new(Cause::Cancelled, "by a user"));
    other.update(&world.attempt.job, None, cancel, 0).await.unwrap();
    assert_eq!(world.failure().await.cause, Cause::Cancelled);
}

/// It would block others in the queue.
#[tokio::test]
async fn reconciler_without_lease_leaves_the_run_slot_queue() {
    let world = world(None).await;
    world.launcher.full.set(()).unwrap();
    world.reconcile();
    world.said("waiting for a run slot").await;
    world.lose_lease().await;
    world.drives_nothing().await;
}

/// Another server may have the launcher. If none has, this one claims the job again and reports nothing new.
#[tokio::test]
async fn job_of_a_foreign_launcher_is_released_until_it_changes() {
    let world = world(None).await;
    let launcher_id = LauncherId::of(LauncherKind::Kubernetes);
    world.update(Event::AttemptCreated { step: 0, role: Role::Run, launcher_id }).await;
    world.reconcile();
    world.said("which this server cannot ask").await;
    tokio::spawn(Housekeeping::new(world.reconciler.clone()).run());
    let left = || world.reconciler.released.excluded(Instant::now());
    let epoch = async || world.store.load(&world.attempt.job).await.unwrap().unwrap().lease_epoch;
    until("it is left", async || left() == [world.attempt.job.clone()]).await;
    assert_eq!(epoch().await, Lease::FIRST_EPOCH);
    world.update(Event::CancelRequested(Failure::new(Cause::Cancelled, "by a user"))).await;
    until("it is taken again", async || epoch().await > Lease::FIRST_EPOCH).await;
    until("it is left again", async || left() == [world.attempt.job.clone()]).await;
    assert_eq!(world.count(is_notice).await, 1, "it is reported once");
    world.reconciler.shutdown.cancel();
}

/// For example in a rolling upgrade: each write by this server would fail.
#[tokio::test]
async fn job_of_a_newer_version_is_released() {
    let world = world(None).await;
    fixture::tamper(&world.state_file(), "UPDATE jobs SET doc_version = 99");
    world.reconcile();
    world.drives_nothing().await;
    assert_eq!(world.store.held(world.reconciler.server(), None, 1).await.unwrap(), []);
}
