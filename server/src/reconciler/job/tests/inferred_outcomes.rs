//! Ends of attempts, and the log then.

use nix::errno::Errno;

use super::watching::WatchStep;
use super::*;

/// Records of which the second batch cannot be read.
#[derive(Debug)]
struct Unreadable(Option<Vec<Record>>, Errno);

#[async_trait]
impl RecordSource for Unreadable {
    async fn batch(&mut self) -> io::Result<Vec<Record>> {
        self.0.take().ok_or_else(|| self.1.into())
    }
}

/// Settles an attempt whose records could not be read for a minute, and fail with this error now.
async fn settle_unreadable(errno: Errno) -> (World, Result<(), ReconcileError>) {
    let world = world(None).await;
    world.attach().await;
    let mut reconciler = world.job_reconciler();
    let now = Instant::now();
    for ago in [80, 70, 60, 50, 40, 30, 20, 10] {
        reconciler
            .observations(&world.attempt)
            .unreadable
            .note(now.checked_sub(Duration::from_secs(ago)).unwrap());
    }
    let head = Record { seq: 1, payload: Some(Payload::Head(Head::default())), ..Record::default() };
    let records: Box<dyn RecordSource> = Box::new(Unreadable(Some(vec![head]), errno));
    let artifacts = AgentArtifacts { records: Some(records), ..AgentArtifacts::default() };
    let settled = reconciler.settle(world.attempt.clone(), artifacts, None).await;
    (world, settled)
}

/// A full table of open files says nothing about the attempt's records, which are intact.
#[tokio::test]
async fn exhausted_resources_do_not_lose_undelivered_records() {
    for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM] {
        let (world, settled) = settle_unreadable(errno).await;
        assert!(matches!(settled, Err(ReconcileError::Retry(_))), "{errno}");
        assert!(world.job().await.attempt(&world.attempt).unwrap().outcome().is_none(), "{errno}");
    }
}

#[tokio::test]
async fn read_timeout_of_undelivered_records_loses_them() {
    let (world, settled) = settle_unreadable(Errno::EIO).await;
    assert!(settled.is_ok());
    assert_eq!(world.outcome(&world.attempt).await.reason, Reason::Lost);
}

#[tokio::test]
async fn successful_read_resets_the_read_timeout() {
    let world = world(None).await;
    world.attach().await;
    let mut reconciler = world.job_reconciler();
    reconciler.observations(&world.attempt).unreadable.note(Instant::now());
    let artifacts = AgentArtifacts { records: Some(Box::new(Kept(Vec::new()))), ..AgentArtifacts::default() };
    assert!(reconciler.settle(world.attempt.clone(), artifacts, None).await.is_ok());
    let later = Instant::now() + Duration::from_secs(10);
    assert_eq!(reconciler.observations(&world.attempt).unreadable.note(later), Duration::ZERO);
}

/// The result of a training of days is not discarded because one Pod could not start to publish it.
#[tokio::test]
async fn kept_output_survives_a_launch_failure() {
    let world = world(None).await;
    let instance = world.attach().await;
    let kept = Outcome {
        output_kept: true,
        ..Outcome::by_server(Reason::PublishFailed, "the storage is away", false)
    };
    let attempt = world.attempt.clone();
    world.update(Event::OutcomeReported { attempt, instance, outcome: kept }).await;
    world.update(World::created()).await;
    world.reconcile();
    let second = AttemptId { number: 2, ..world.attempt.clone() };
    let outcome = world.outcome(&second).await;
    assert_eq!((outcome.reason, outcome.retryable), (Reason::LaunchFailed, true));
}

/// The user did not cancel the job: its cleanup timed out.
#[tokio::test]
async fn cleanup_timeout_ends_with_reason_deadline() {
    let world = world_of(None, false).await;
    let cleanup = world.cleanup().await;
    world.attach_cleanup(&cleanup, 0).await;
    world.reconcile();
    let outcome = world.outcome(&cleanup).await;
    assert_eq!(outcome.reason, Reason::Deadline);
    assert!(
        outcome.message.starts_with("the staging table was not dropped within 60 s"),
        "{}",
        outcome.message
    );
    assert_eq!(world.failure().await, Failure::new(Cause::Lost, "its node is gone"));
}

/// It was pending.
#[tokio::test]
async fn pending_time_does_not_count_towards_the_cleanup_timeout() {
    let world = world_of(None, false).await;
    let cleanup = world.cleanup().await;
    world.attach_cleanup(&cleanup, clock::now_ms()).await;
    world.reconcile();
    assert_eq!(world.outcome(&cleanup).await.reason, Reason::Lost);

    let world = world_of(None, false).await;
    let cleanup = world.cleanup().await;
    world.reconcile();
    assert_eq!(world.outcome(&cleanup).await.reason, Reason::LaunchFailed, "it never began");
}

/// The run slots may be held by trainings of days.
#[tokio::test]
async fn cleanup_needs_no_run_slot() {
    let world = world_of(None, false).await;
    world.launcher.full.set(()).unwrap();
    world.launcher.gone.set(()).unwrap();
    let cleanup = world.cleanup_to_launch().await;
    world.reconcile();
    let ended = tokio::time::timeout(Duration::from_secs(20), world.outcome(&cleanup)).await;
    ended.expect("it waits for a run slot");
    assert_eq!(world.launches(), 1);
    assert_eq!(world.failure().await, Failure::new(Cause::Lost, "its node is gone"));
}

/// A controller supervises it, and no agent attaches: the timeout starts at the first observation that it runs.
#[tokio::test]
async fn cleanup_timeout_applies_to_controllers_too() {
    let world = world_of(None, false).await;
    world.launcher.controlled.set(None).unwrap();
    let cleanup = world.cleanup_that_runs().await;
    let (job, mut reconciler, begin) = (world.job().await, world.job_reconciler(), clock::now_ms());
    let execution = reconciler.context.launchers.of(&job, &cleanup);
    assert!(!reconciler.is_overdue_cleanup(&job, &execution, i64::MAX), "it was not seen to run");
    assert!(matches!(reconciler.observe(&job, cleanup.clone(), false).await, Ok(WatchStep::Continue)));
    let end = clock::now_ms();
    assert!(!reconciler.is_overdue_cleanup(&job, &execution, begin + 60_000));
    assert!(reconciler.is_overdue_cleanup(&job, &execution, end + 60_001));

    reconciler.observations(&cleanup).first_running_ms = Some(0);
    reconciler.reconcile().await;
    let outcome = world.outcome(&cleanup).await;
    assert_eq!(outcome.reason, Reason::Deadline, "{}", outcome.message);
    assert_eq!(world.stopped(), [(cleanup, false)]);
    assert_eq!(world.failure().await, Failure::new(Cause::Lost, "its node is gone"));
}

/// According to the reconciler's copy there was never an agent; the store is newer.
#[tokio::test]
async fn agent_that_attached_during_the_observation_is_lost() {
    let world = world_of(None, false).await;
    world.race(false);
    world.memory_peaks.note(&world.attempt, 900 << 20);
    world.reconcile();
    let outcome = world.outcome(&world.attempt).await;
    assert_eq!(outcome.reason, Reason::Lost, "{}", outcome.message);
    assert!(
        outcome.message.ends_with("; its processes had used up to 900 MiB of memory"),
        "{}",
        outcome.message
    );
    assert_eq!(world.count(is_gap_of_lost_agent).await, 1, "lost output has a gap record");
}

#[tokio::test]
async fn statement_started_during_the_observation_may_have_executed() {
    let world = world_of(None, false).await;
    world.race(true);
    world.reconcile();
    let failure = world.failure().await;
    assert_eq!(failure.cause, Cause::MayHaveExecuted, "{}", failure.message);
    assert_eq!(world.outcome(&world.attempt).await.reason, Reason::Lost);
    assert_eq!(world.count(is_gap_of_lost_agent).await, 1, "lost output has a gap record");
}

/// The store may fail between the gap record and the attempt's end, and a reconciler without a lease may be late.
#[tokio::test]
async fn gap_record_is_written_once() {
    let world = world(None).await;
    world.attach().await;
    for _ in 0..3 {
        let settled =
            world.job_reconciler().settle(world.attempt.clone(), AgentArtifacts::default(), None).await;
        assert!(settled.is_ok());
    }
    assert_eq!(world.count(is_gap_of_lost_agent).await, 1);
}

/// A reconciler that died, or lost its lease, after it closed the log.
#[tokio::test]
async fn closed_log_gets_no_second_end() {
    let world = world(None).await;
    world.update(Event::CancelRequested(Failure::new(Cause::Cancelled, "cancelled"))).await;
    let end = Notice { kind: notice::Kind::End.into(), text: "cancelled".to_owned() };
    let record = Record { payload: Some(Payload::Notice(end)), ..Record::default() };
    let entries = vec![Entry { producer: Producer::server(0), record }];
    world.log.append(&world.attempt.job, entries.clone()).await.unwrap();
    world.reconcile();
    assert_eq!(world.failure().await.cause, Cause::Cancelled);
    // It has not noticed the loss of its lease yet.
    world.log.append(&world.attempt.job, entries).await.unwrap();
    let is_end = |it: &Payload| matches!(it, Payload::Notice(it) if it.kind() == notice::Kind::End);
    assert_eq!(world.count(is_end).await, 1);
}

/// Where a framework runs several processes for one attempt, no agent attaches, and none is awaited.
#[tokio::test]
async fn controller_reports_outcome_and_records() {
    let world = world(None).await;
    let succeeded = agent::outcome::Reason::Succeeded.into();
    let outcome = agent::Outcome { reason: succeeded, last_seq: 2, ..agent::Outcome::default() };
    world.launcher.controlled.set(Some(outcome)).unwrap();
    world.reconcile();
    let mut changes = world.store.watch(&world.attempt.job);
    while !world.job().await.state.is_final() {
        changes.changed().await.unwrap();
    }
    let job = world.job().await;
    assert_eq!(job.state, JobState::Succeeded);
    assert_eq!(job.attempt(&world.attempt).unwrap().tracker_url.as_deref(), Some("http://platform/1"));
    assert_eq!(world.count(|it| matches!(it, Payload::Head(_))).await, 1);
    assert_eq!(world.count(|it| matches!(it, Payload::Gap(_))).await, 0, "nothing is missing");
    assert_eq!(world.stopped(), []);
}
