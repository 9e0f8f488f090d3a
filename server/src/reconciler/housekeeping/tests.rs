//! Housekeeping tasks that hang, fail or panic, and the other ones meanwhile. Uses the real store and log, with a
//! launcher and a log whose calls do not return.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use sqlflow_job::{AttemptId, Cause, Event, Failure, Job, JobId, JobState, LauncherKind, Token};
use sqlflow_job_store::Membership;
use sqlflow_job_store::{Lease, NewJob, SqliteStore, Store};
use sqlflow_launcher::{
    Cleanup, LaunchError, LaunchRequirements, Launched, Launcher, Launchers, Observation, PendingReason,
    PendingStatus, Target,
};
use sqlflow_result_log::LogError;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::attach_errors::AttachErrors;
use crate::codegen::Assigner;
use crate::fixture::{self, HookedLog, LogHooks, until};
use crate::memory_peaks::MemoryPeaks;
use crate::metrics::Metrics;
use crate::reconciler::{Context, Limits};
use crate::trace::Tracer;

/// Timeout for what must happen eventually.
const DEADLINE: Duration = Duration::from_secs(60);

/// Cannot remove anything. Lists them without end if none are set. Its first launch panics.
#[derive(Default)]
struct BadLauncher {
    launches: AtomicUsize,
    left: OnceLock<Vec<Target>>,
}

#[async_trait]
impl Launcher for BadLauncher {
    fn kind(&self) -> LauncherKind {
        LauncherKind::Local
    }

    async fn launch(&self, _: &Target, _: &LaunchRequirements) -> Result<Launched, LaunchError> {
        assert!(self.launches.fetch_add(1, Ordering::SeqCst) > 0, "a fault of the server, for this test");
        Ok(Launched::default())
    }

    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    async fn observe(&self, _: &Target) -> Observation {
        Observation::Running
    }

    fn attach_pending(&self) -> PendingStatus {
        PendingStatus { reason: PendingReason::Attach, message: String::new(), timeout: DEADLINE }
    }

    async fn stop(&self, _: &Target, _: bool) {}

    async fn cleanup(&self, _: &Target, _: bool) -> anyhow::Result<Cleanup> {
        anyhow::bail!("it is read-only")
    }

    async fn collect_garbage(&self, _: &Target) -> anyhow::Result<()> {
        Ok(())
    }

    async fn attempts(&self) -> Vec<Target> {
        match self.left.get() {
            Some(left) => left.clone(),
            None => std::future::pending().await,
        }
    }

    async fn changed(&self, _: &Target) {
        std::future::pending::<()>().await;
    }
}

/// Some logs cannot be deleted.
#[derive(Default)]
struct BadDisk {
    /// Deleting these fails.
    undeletable: Vec<JobId>,
    /// Deleting it never returns.
    stuck: Option<JobId>,
}

#[async_trait]
impl LogHooks for BadDisk {
    async fn before_delete(&self, job: &JobId) -> Result<(), LogError> {
        if self.stuck.as_ref() == Some(job) {
            std::future::pending::<()>().await;
        }
        if self.undeletable.contains(job) {
            return Err(LogError::Busy { lock: std::path::PathBuf::new(), holder: None });
        }
        Ok(())
    }
}

struct World {
    store: Arc<SqliteStore>,
    launcher: Arc<BadLauncher>,
    metrics: Metrics,
    reconciler: Reconciler,
    shutdown: CancellationToken,
    _dir: tempfile::TempDir,
}

async fn world(disk: BadDisk, jobs: &[JobId]) -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&dir.path().join("state.db")).await.unwrap());
    let log = HookedLog { inner: fixture::log(&dir.path().join("log")), hooks: disk };
    let (launcher, metrics) = (Arc::new(BadLauncher::default()), Metrics::default());
    let context = Context {
        store: store.clone(),
        log: Arc::new(log),
        launchers: Launchers::only(launcher.clone()),
        assigner: Assigner::idle(store.clone()),
        attach_errors: AttachErrors::default(),
        memory_peaks: MemoryPeaks::default(),
        membership: Membership::join(&dir.path().join("servers")).unwrap(),
        limits: Limits {
            lease: DEADLINE,
            attach: DEADLINE,
            grace: DEADLINE,
            retain_jobs: Duration::ZERO,
            silence: DEADLINE,
        },
        tracer: Tracer::default(),
        metrics: metrics.clone(),
    };
    let shutdown = CancellationToken::new();
    let reconciler = Reconciler::new(context, shutdown.clone());
    for id in jobs {
        let new = NewJob {
            token: Token::generate().hash(),
            lease: DEADLINE,
            ..fixture::new_job(Job::new(id.clone(), vec![fixture::step(true)]), reconciler.server())
        };
        store.create(new).await.unwrap();
    }
    World { store, launcher, metrics, reconciler, shutdown, _dir: dir }
}

impl World {
    fn keep_house(&self) {
        tokio::spawn(Housekeeping::new(self.reconciler.clone()).run());
    }

    fn passes(&self, task: &str) -> u32 {
        let text = self.metrics.text();
        let name = format!("sqlflow_housekeeping_pass_duration_seconds_count{{task=\"{task}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
    }

    async fn has_ended(&self, id: &JobId, ended_ms: i64) {
        let failure = Failure::new(Cause::Cancelled, "");
        let event = Event::Finished(JobState::Failed(failure));
        self.store.update(id, None, event, ended_ms).await.unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// 6,000 folders of ended attempts delayed the heartbeat by 39 s. With a lease of 15 s other servers would claim the
/// jobs.
#[tokio::test]
async fn heartbeat_continues_while_attempts_are_listed() {
    let world = world(BadDisk::default(), &[]).await;
    world.keep_house();
    for task in ["heartbeat", "claims", "fetch_timeouts"] {
        until(task, async || world.passes(task) >= 3).await;
    }
    assert_eq!(world.passes("garbage_collection"), 0, "it is stuck");
}

#[tokio::test]
async fn failed_garbage_collection_is_counted() {
    let id = JobId::generate();
    let world = world(BadDisk::default(), std::slice::from_ref(&id)).await;
    world.has_ended(&id, i64::MAX).await;
    let left = vec![Target::own(AttemptId { job: id, step: 0, number: 1 })];
    world.launcher.left.set(left).unwrap();
    world.keep_house();
    until("the garbage collection is over", async || world.passes("garbage_collection") >= 1).await;
    assert!(world.metrics.text().contains("sqlflow_housekeeping_failures_total 1"));
}

#[tokio::test]
async fn failed_log_deletion_does_not_block_retention_of_other_jobs() {
    // More than are processed concurrently.
    let ids: Vec<_> = (0..12).map(|_| JobId::generate()).collect();
    let disk = BadDisk { undeletable: ids[..7].to_vec(), stuck: Some(ids[7].clone()) };
    let world = world(disk, &ids).await;
    for (id, ended_ms) in ids.iter().zip(1..) {
        world.has_ended(id, ended_ms).await;
    }
    world.keep_house();
    let left = async || world.store.ended_before(i64::MAX, None, 100).await.unwrap();
    until("the others go", async || left().await.len() == 8).await;
    let left: Vec<_> = left().await.into_iter().map(|it| it.id).collect();
    assert_eq!(left, ids[..8], "they stay, with their logs");
}

#[tokio::test]
async fn panicked_reconciler_releases_its_job() {
    let id = JobId::generate();
    let world = world(BadDisk::default(), std::slice::from_ref(&id)).await;
    world.keep_house();
    world
        .reconciler
        .reconcile(id.clone(), Lease { owner: world.reconciler.server().clone(), epoch: Lease::FIRST_EPOCH });
    until("it is launched again", async || world.launcher.launches.load(Ordering::SeqCst) >= 2).await;
    let held = world.store.held(world.reconciler.server(), None, 10).await.unwrap();
    assert_eq!(held[0].1.epoch, Lease::FIRST_EPOCH + 1);
    assert!(world.metrics.text().contains("sqlflow_reconciler_panics_total 1"));
}

/// The claim or creation was written and its answer lost: no other server would reconcile the job.
#[tokio::test]
async fn held_job_without_reconciler_is_reconciled() {
    let id = JobId::generate();
    let world = world(BadDisk::default(), std::slice::from_ref(&id)).await;
    world.keep_house();
    until("it is launched", async || world.launcher.launches.load(Ordering::SeqCst) >= 1).await;
}
