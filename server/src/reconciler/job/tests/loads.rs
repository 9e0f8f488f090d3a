//! When a reconciler loads its job: not after its own change, and always where a stale copy would matter.

use super::*;

impl World {
    fn launched(&self) -> Event {
        Event::AttemptLaunched { attempt: self.attempt.clone(), tracker_url: None, executor_uid: None }
    }

    fn found_lost(&self) -> Event {
        let outcome = Outcome::by_server(Reason::Lost, "its node is gone", true);
        Event::AttemptFoundEnded { attempt: self.attempt.clone(), outcome, basis: Basis::Attached }
    }
}

fn cancel() -> Event {
    Event::CancelRequested(Failure::new(Cause::Cancelled, "by a user"))
}

async fn look(reconciler: &mut JobReconciler) -> (Arc<Job>, Source) {
    let Ok(JobSnapshot { job, source }) = reconciler.read_job().await else {
        panic!("the job cannot be read")
    };
    (job, source)
}

#[tokio::test]
async fn small_job_is_loaded_once_per_change_by_its_agent() {
    let world = world(Some(refusal(true))).await;
    world.update(World::created()).await;
    world.reconcile();
    world.wait_for_many_observations().await;
    assert_eq!(
        (world.launches(), world.loads()),
        (1, 1),
        "at the reconciler's start, and not once it has launched"
    );
    let instance = world.attach_to(world.reconciler.server()).await;
    world.wait_for_many_observations().await;
    assert_eq!(world.loads(), 2);
    let outcome = Outcome { reason: Reason::Succeeded, ..Outcome::by_server(Reason::Exited, "", false) };
    world.update(Event::OutcomeReported { attempt: world.attempt.clone(), instance, outcome }).await;
    let mut changes = world.store.watch(&world.attempt.job);
    while !world.job().await.state.is_final() {
        changes.changed().await.unwrap();
    }
    // Its agent exits.
    world.launcher.gone.set(()).unwrap();
    world.drives_nothing().await;
    assert_eq!(world.loads(), 3, "not after the end was recorded");
}

/// Three attempts, recorded by the reconciler only.
#[tokio::test]
async fn job_changed_only_by_its_reconciler_is_loaded_at_start_and_end() {
    let world = world(None).await;
    world.update(World::created()).await;
    world.attach_to(world.reconciler.server()).await;
    world.launcher.gone.set(()).unwrap();
    world.reconcile();
    let failure = world.failure().await;
    world.drives_nothing().await;
    assert_eq!((failure.cause, world.launches(), world.loads()), (Cause::LaunchFailed, 2, 2));
}

#[tokio::test]
async fn change_by_another_server_is_seen_after_own_update() {
    for other_process in [false, true] {
        let world = world(None).await;
        world.update(World::created()).await;
        let mut reconciler = world.job_reconciler();
        let (job, source) = look(&mut reconciler).await;
        assert_eq!((&job.cancel, source), (&None, Source::Loaded));
        if other_process {
            // The reconciler's own update has it, with or without a signal.
            let other = SqliteStore::open(&world.state_file()).await.unwrap();
            other.update(&world.attempt.job, None, cancel(), 0).await.unwrap();
        }
        assert!(reconciler.update(world.launched()).await.is_ok());
        if !other_process {
            world.update(cancel()).await;
        }
        let (job, source) = look(&mut reconciler).await;
        assert!(job.cancel.is_some() && job.attempt(&world.attempt).unwrap().phase == Phase::Launched);
        if !other_process {
            assert_eq!((source, world.loads()), (Source::OwnUpdate, 1));
        }
    }
}

#[tokio::test]
async fn change_by_another_process_wakes_the_reconciler() {
    let world = world(None).await;
    world.update(World::created()).await;
    let other = SqliteStore::open(&world.state_file()).await.unwrap();
    let mut reconciler = world.job_reconciler();
    look(&mut reconciler).await;
    assert!(reconciler.update(world.launched()).await.is_ok());
    other.update(&world.attempt.job, None, cancel(), 0).await.unwrap();
    if look(&mut reconciler).await.0.cancel.is_none() {
        let told = tokio::time::timeout(Duration::from_secs(30), reconciler.changes.changed()).await;
        told.expect("the change is announced").unwrap();
        let (job, source) = look(&mut reconciler).await;
        assert_eq!((job.cancel.is_some(), source), (true, Source::Loaded));
    }
}

/// Its copy was stale.
#[tokio::test]
async fn job_is_loaded_after_an_update_without_effect() {
    let world = world(None).await;
    world.update(World::created()).await;
    let mut reconciler = world.job_reconciler();
    assert!(reconciler.update(world.launched()).await.is_ok());
    assert!(reconciler.update(world.launched()).await.is_ok(), "unchanged");
    assert_eq!(look(&mut reconciler).await.1, Source::Loaded);
    assert!(reconciler.update(cancel()).await.is_ok());
    assert!(reconciler.update(World::created()).await.is_ok(), "rejected");
    assert_eq!(look(&mut reconciler).await.1, Source::Loaded);
    assert!(reconciler.update(world.found_lost()).await.is_ok());
    assert_eq!(look(&mut reconciler).await.1, Source::OwnUpdate);
    assert_eq!(look(&mut reconciler).await.1, Source::Loaded, "it is used once");
}

/// A closed log would refuse records of the other server's attempts.
#[tokio::test]
async fn reconciler_without_lease_does_not_close_the_log() {
    let world = world_of(None, false).await;
    world.attach().await;
    world.log_of_a_newer_state().await;
    let mut reconciler = world.job_reconciler();
    assert!(reconciler.update(world.found_lost()).await.is_ok());
    world.lose_lease().await;
    assert!(reconciler.advance().await.is_ok());
    assert!(matches!(reconciler.advance().await, Err(ReconcileError::Fenced)));
    assert_eq!(world.count(is_notice).await, 0);
}
