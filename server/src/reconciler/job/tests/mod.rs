//! Reconcilers with a real store and log, and a launcher whose answers a test sets.

mod agents;
mod cleanup;
mod inferred_outcomes;
mod launcher;
mod loads;
mod notices;
mod servers;

use std::io;

use async_trait::async_trait;
use sqlflow_job::{
    Basis, Cause, Failure, InstanceHash, JobState, LauncherId, LauncherKind, Outcome, Phase, Reason,
};
use sqlflow_job_store::Membership;
use sqlflow_job_store::{Claim, NewJob, Secret, ServerId, SqliteStore, Store};
use sqlflow_launcher::{AgentArtifacts, Launchers, Observation, RecordSource};
use sqlflow_proto::agent;
use sqlflow_proto::record::{StatementStarted, gap};
use sqlflow_proto::v1::Head;
use sqlflow_result_log::{ResultLog, TieredLog};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::attach_errors::{AttachError, AttachErrors};
use crate::codegen::{Assigner, DATA_SOURCE};
use crate::fixture::{self, until};
use crate::memory_peaks::MemoryPeaks;
use crate::metrics::{MeasuredStore, Metrics};
use crate::reconciler::{Housekeeping, Limits, Reconciler};
use crate::trace::Tracer;
use launcher::{AlwaysRunning, Call, Kept, Race};

/// Number of observations after which an expected effect must have happened.
const MANY: usize = 5;
/// The first record of an agent that may have executed something.
fn started(attempt: &AttemptId) -> Entry {
    let payload = Some(Payload::Started(StatementStarted {}));
    let record = Record { seq: 1, payload, ..Record::default() };
    Entry { producer: Producer::agent(attempt, 0), record }
}

/// A server with one job.
struct World {
    store: Arc<SqliteStore>,
    log: Arc<TieredLog>,
    launcher: Arc<AlwaysRunning>,
    reconciler: Reconciler,
    memory_peaks: MemoryPeaks,
    metrics: Metrics,
    servers: std::path::PathBuf,
    attempt: AttemptId,
    _dir: tempfile::TempDir,
}

async fn world(refusal: Option<AttachError>) -> World {
    world_of(refusal, true).await
}

async fn world_of(refusal: Option<AttachError>, repeatable: bool) -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&dir.path().join("state.db")).await.unwrap());
    let log = fixture::tiered_log(&store, &dir.path().join("log"));
    let attach_errors = AttachErrors::default();
    let launcher =
        AlwaysRunning { attach_errors: attach_errors.clone(), refusal, ..AlwaysRunning::default() };
    let launcher = Arc::new(launcher);
    let log = Arc::new(log);
    let servers = dir.path().join("servers");
    let membership = Membership::join(&servers).unwrap();
    let memory_peaks = MemoryPeaks::default();
    let metrics = Metrics::default();
    let measured = Arc::new(MeasuredStore::new(store.clone(), metrics.clone()));
    let second = Duration::from_secs(1);
    let context = Context {
        store: measured.clone(),
        log: log.clone(),
        launchers: Launchers::only(launcher.clone()),
        assigner: Assigner::idle(measured),
        attach_errors,
        memory_peaks: memory_peaks.clone(),
        membership,
        limits: Limits { lease: second, attach: second, grace: second, retain_jobs: second, silence: second },
        tracer: Tracer::default(),
        metrics: metrics.clone(),
    };
    let reconciler = Reconciler::new(context, CancellationToken::new());
    let job = fixture::job(repeatable);
    let attempt = AttemptId { job: job.id.clone(), step: 0, number: 1 };
    let new = NewJob {
        step_specs: vec![
            r#"{"title": "", "replay": [], "statements": [], "inputs": [], "outputs": []}"#.to_owned(),
        ],
        secrets: vec![(DATA_SOURCE.to_owned(), Secret::new("sqlite:///a.db"))],
        lease: second,
        ..fixture::new_job(job, reconciler.server())
    };
    store.create(new).await.unwrap();
    World { store, log, launcher, reconciler, memory_peaks, metrics, servers, attempt, _dir: dir }
}

impl World {
    fn reconcile(&self) {
        self.reconciler.reconcile(self.attempt.job.clone(), self.lease());
    }

    async fn job(&self) -> Job {
        self.store.load(&self.attempt.job).await.unwrap().unwrap().job
    }

    async fn failure(&self) -> Failure {
        let mut changes = self.store.watch(&self.attempt.job);
        loop {
            if let JobState::Failed(failure) = self.job().await.state {
                return failure;
            }
            changes.changed().await.unwrap();
        }
    }

    /// The attempt's phase after many observations.
    async fn phase_after_many_observations(&self) -> Phase {
        self.launcher.looks.subscribe().wait_for(|looks| *looks > MANY).await.unwrap();
        self.job().await.attempt(&self.attempt).unwrap().phase.clone()
    }

    /// Waits for many observations of the attempt in its current state.
    async fn wait_for_many_observations(&self) {
        let mut looks = self.launcher.looks.subscribe();
        let before = *looks.borrow_and_update();
        looks.wait_for(|looks| *looks > before + MANY).await.unwrap();
    }

    /// The attempt's outcome.
    async fn outcome(&self, attempt: &AttemptId) -> Outcome {
        let mut changes = self.store.watch(&attempt.job);
        loop {
            if let Some(outcome) = self.job().await.attempt(attempt).and_then(|it| it.outcome()) {
                return outcome.clone();
            }
            changes.changed().await.unwrap();
        }
    }

    /// Number of matching records in the log.
    async fn count(&self, is_it: impl Fn(&Payload) -> bool) -> usize {
        let page = self.log.read(&self.attempt.job, 0, usize::MAX).await.unwrap();
        let payloads = page.records.iter().filter_map(|it| it.record.as_ref()?.payload.as_ref());
        payloads.filter(|it| is_it(it)).count()
    }

    fn race(&self, starts: bool) {
        let race = Race { store: self.store.clone(), log: self.log.clone(), starts };
        assert!(self.launcher.race.set(race).is_ok());
    }

    async fn update(&self, event: Event) {
        self.store.update(&self.attempt.job, None, event, 0).await.unwrap();
    }

    fn created() -> Event {
        Event::AttemptCreated { step: 0, role: Role::Run, launcher_id: LauncherId::of(LauncherKind::Local) }
    }

    /// Records an agent that attached to an earlier server.
    async fn attach(&self) -> InstanceHash {
        self.update(Self::created()).await;
        self.attach_to(&ServerId("gone".to_owned())).await
    }

    async fn attach_to(&self, server: &ServerId) -> InstanceHash {
        let instance = InstanceHash::of(b"key");
        let attached = Event::AgentAttached {
            attempt: self.attempt.clone(),
            instance: instance.clone(),
            server: server.0.clone(),
            is_local: false,
        };
        self.update(attached).await;
        instance
    }

    /// Waits until the log contains this text.
    async fn said(&self, text: &str) {
        let says = |it: &Payload| matches!(it, Payload::Notice(notice) if notice.text.contains(text));
        let waited = async {
            while self.count(says).await == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let within = tokio::time::timeout(Duration::from_secs(60), waited).await;
        within.unwrap_or_else(|_| panic!("no notice contains {text:?}"));
    }

    /// A cleanup attempt behind a lost one, launched at the epoch; nothing of it runs.
    async fn cleanup(&self) -> AttemptId {
        self.launcher.gone.set(()).unwrap();
        self.cleanup_that_runs().await
    }

    /// The same, and its launcher answers for it.
    async fn cleanup_that_runs(&self) -> AttemptId {
        let cleanup = self.cleanup_to_launch().await;
        self.update(Event::AttemptLaunched {
            attempt: cleanup.clone(),
            tracker_url: None,
            executor_uid: None,
        })
        .await;
        cleanup
    }

    /// The same, and it is not launched yet.
    async fn cleanup_to_launch(&self) -> AttemptId {
        self.attach().await;
        let lost = Outcome::by_server(Reason::Lost, "its node is gone", false);
        let attempt = self.attempt.clone();
        self.update(Event::AttemptFoundEnded { attempt, outcome: lost, basis: Basis::Attached }).await;
        let launcher_id = LauncherId::of(LauncherKind::Local);
        self.update(Event::AttemptCreated { step: 0, role: Role::Cleanup, launcher_id }).await;
        AttemptId { number: 2, ..self.attempt.clone() }
    }

    async fn attach_cleanup(&self, attempt: &AttemptId, now_ms: i64) {
        let attached = Event::AgentAttached {
            attempt: attempt.clone(),
            instance: InstanceHash::of(b"key"),
            server: "gone".to_owned(),
            is_local: false,
        };
        self.store.update(&attempt.job, None, attached, now_ms).await.unwrap();
    }

    /// Another server claims the job.
    async fn lose_lease(&self) {
        let claim = Claim {
            owner: ServerId::generate(),
            dead: vec![self.reconciler.server().clone()],
            except: Vec::new(),
            lease: Duration::from_secs(60),
            limit: 1,
        };
        assert_eq!(self.store.claim(claim).await.unwrap().len(), 1);
    }

    async fn drives_nothing(&self) {
        until("it reconciles nothing", async || crate::reconciler::lock(&self.reconciler.tasks).is_empty())
            .await;
    }

    fn job_reconciler(&self) -> JobReconciler {
        let Reconciler { context, released, .. } = &self.reconciler;
        JobReconciler::new(Arc::clone(context), Arc::clone(released), self.attempt.job.clone(), self.lease())
    }

    /// Number of loads of the job by the server.
    fn loads(&self) -> u64 {
        fixture::loads(&self.metrics)
    }

    fn lease(&self) -> Lease {
        Lease { owner: self.reconciler.server().clone(), epoch: Lease::FIRST_EPOCH }
    }

    fn state_file(&self) -> std::path::PathBuf {
        self.servers.with_file_name("state.db")
    }

    async fn log_of_a_newer_state(&self) {
        self.log.append(&self.attempt.job, vec![started(&self.attempt)]).await.unwrap();
    }

    fn launches(&self) -> usize {
        self.calls().iter().filter(|call| **call == Call::Launch).count()
    }

    fn calls(&self) -> Vec<Call> {
        self.launcher.calls.lock().unwrap().clone()
    }

    fn stopped(&self) -> Vec<(AttemptId, bool)> {
        self.launcher.stopped.lock().unwrap().clone()
    }
}

fn is_notice(payload: &Payload) -> bool {
    matches!(payload, Payload::Notice(_))
}

fn is_gap_of_lost_agent(payload: &Payload) -> bool {
    matches!(payload, Payload::Gap(gap) if gap.reason() == gap::Reason::AgentLost)
}

fn refusal(retryable: bool) -> AttachError {
    AttachError { why: "its token could not be checked".to_owned(), retryable }
}
