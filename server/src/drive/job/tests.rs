//! Agents that run and do not attach: real store and log, and a launcher whose agents are always said to run.

use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::drive::{Driver, Limits};
use crate::job::{Cause, InstanceHash, JobState, Step, TokenHash};
use crate::launch::Launcher;
use crate::log::{LogOptions, SegmentLog};
use crate::metrics::Metrics;
use crate::presence::Presence;
use crate::refusals::{Refusal, Refusals};
use crate::store::{NewJob, SqliteStore, Store};
use crate::trace::Tracer;

/// Looks after which what was to happen has happened.
const MANY: usize = 20;

/// Says that every agent runs, and is looked at again at once; agents are waited for no longer than one look.
struct AlwaysRunning {
    looks: watch::Sender<usize>,
    stopped: Mutex<Vec<(AttemptId, bool)>>,
    refusals: Refusals,
    /// What each look finds that another agent was told.
    refusal: Option<Refusal>,
}

#[async_trait]
impl Launcher for AlwaysRunning {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn launch(&self, _: &AttemptId, _: &Needs) -> Result<(), LaunchError> {
        Ok(())
    }

    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    async fn observe(&self, attempt: &AttemptId) -> Observation {
        if let Some(refusal) = &self.refusal {
            self.refusals.note(attempt, refusal.clone());
        }
        self.looks.send_modify(|looks| *looks += 1);
        Observation::Running
    }

    fn silence(&self) -> Waiting {
        Waiting { kind: "attach", why: "nothing was heard".to_owned(), patience: Duration::ZERO }
    }

    async fn stop(&self, attempt: &AttemptId, forced: bool) {
        self.stopped.lock().unwrap().push((attempt.clone(), forced));
    }

    async fn clean_up(&self, _: &AttemptId, _: bool) {}

    async fn clean_up_orphan(&self, _: &AttemptId) {}

    async fn leftovers(&self) -> Vec<AttemptId> {
        Vec::new()
    }

    async fn changed(&self, _: &AttemptId) {
        tokio::task::yield_now().await;
    }
}

/// A server with one job.
struct World {
    store: Arc<SqliteStore>,
    launcher: Arc<AlwaysRunning>,
    driver: Driver,
    attempt: AttemptId,
    _dir: tempfile::TempDir,
}

async fn world(refusal: Option<Refusal>) -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&dir.path().join("state.db")).await.unwrap());
    let log = SegmentLog::open(LogOptions {
        dir: dir.path().join("log"),
        segment_bytes: 1 << 20,
        retain_output_bytes_per_job: u64::MAX,
        max_bytes_per_job: u64::MAX,
        fsync: false,
    });
    let refusals = Refusals::default();
    let launcher = Arc::new(AlwaysRunning {
        looks: watch::channel(0).0,
        stopped: Mutex::default(),
        refusals: refusals.clone(),
        refusal,
    });
    let presence = Presence::announce(&dir.path().join("servers")).unwrap();
    let second = Duration::from_secs(1);
    let context = Context {
        store: store.clone(),
        log: Arc::new(log.unwrap()),
        launcher: launcher.clone(),
        refusals,
        presence,
        limits: Limits { lease: second, attach: second, grace: second, retain_jobs: second },
        tracer: Tracer::default(),
        metrics: Metrics::default(),
    };
    let driver = Driver::new(context, CancellationToken::new());
    let step = Step {
        first_statement: 0,
        statement_count: 1,
        kind: "standard".to_owned(),
        repeatable: true,
        attempts: Vec::new(),
    };
    let job = Job::new(JobId::generate(), vec![step]);
    let attempt = AttemptId { job: job.id.clone(), step: 0, number: 1 };
    let new = NewJob {
        job,
        token: TokenHash([1; 32]),
        user_id: String::new(),
        sql: "SELECT 1".to_owned(),
        headings: vec!["SELECT".to_owned()],
        step_specs: vec!["{}".to_owned()],
        secrets: Vec::new(),
        fetch_timeout_ms: 0,
        owner: driver.server().clone(),
        lease: second,
        created_ms: 0,
        request: None,
    };
    store.create(new).await.unwrap();
    World { store, launcher, driver, attempt, _dir: dir }
}

impl World {
    fn drive(&self) {
        let lease = Lease { owner: self.driver.server().clone(), epoch: Lease::FIRST_EPOCH };
        self.driver.drive(self.attempt.job.clone(), lease);
    }

    async fn job(&self) -> Job {
        self.store.load(&self.attempt.job).await.unwrap().unwrap().job
    }

    async fn failure(&self) -> crate::job::Failure {
        let mut changes = self.store.watch(&self.attempt.job);
        loop {
            if let JobState::Failed(failure) = self.job().await.state {
                return failure;
            }
            changes.changed().await.unwrap();
        }
    }

    /// The attempt's phase after it was looked at often.
    async fn phase_after_many_looks(&self) -> Phase {
        self.launcher.looks.subscribe().wait_for(|looks| *looks > MANY).await.unwrap();
        self.job().await.attempt(&self.attempt).unwrap().phase.clone()
    }

    async fn update(&self, event: Event) {
        self.store.update(&self.attempt.job, None, event, 0).await.unwrap();
    }

    fn created() -> Event {
        Event::AttemptCreated { step: 0, launcher: "local".to_owned() }
    }

    /// What an earlier server recorded of the attempt.
    async fn attach(&self) -> InstanceHash {
        let instance = InstanceHash::of(b"key");
        self.update(Self::created()).await;
        self.update(Event::AgentAttached { attempt: self.attempt.clone(), instance: instance.clone() }).await;
        instance
    }

    fn stopped(&self) -> Vec<(AttemptId, bool)> {
        self.launcher.stopped.lock().unwrap().clone()
    }
}

fn refusal(may_pass: bool) -> Refusal {
    Refusal { why: "its token could not be checked".to_owned(), may_pass }
}

#[tokio::test]
async fn an_agent_that_does_not_attach_is_given_up() {
    let world = world(None).await;
    world.drive();
    let failure = world.failure().await;
    assert_eq!((failure.cause, failure.message.as_str()), (Cause::LaunchFailed, "nothing was heard"));
    assert_eq!(world.stopped(), [(world.attempt.clone(), true)]);
}

#[tokio::test]
async fn why_it_was_refused_is_told() {
    let world = world(Some(refusal(false))).await;
    world.drive();
    let message = world.failure().await.message;
    assert!(message.contains("could not attach: its token could not be checked"), "{message}");
}

/// The server that could not tell who it is would be the one to blame.
#[tokio::test]
async fn an_agent_that_could_not_be_judged_is_waited_for() {
    let world = world(Some(refusal(true))).await;
    world.drive();
    assert_eq!(world.phase_after_many_looks().await, Phase::Launched);
    assert_eq!(world.stopped(), []);
}

#[tokio::test]
async fn an_agent_that_attached_to_an_earlier_server_is_not_judged() {
    let world = world(None).await;
    let instance = world.attach().await;
    world.drive();
    assert_eq!(world.phase_after_many_looks().await, Phase::Attached { instance });
    assert_eq!(world.stopped(), []);
}

/// What a training of days has made is not thrown away because one Pod could not come to publish it.
#[tokio::test]
async fn kept_work_outlives_an_attempt_that_is_given_up() {
    let world = world(None).await;
    let instance = world.attach().await;
    let kept = Outcome {
        output_kept: true,
        ..Outcome::by_server(Reason::PublishFailed, "the storage is away", false)
    };
    let attempt = world.attempt.clone();
    world.update(Event::OutcomeReported { attempt, instance, outcome: kept }).await;
    world.update(World::created()).await;
    world.drive();
    let second = AttemptId { number: 2, ..world.attempt.clone() };
    let mut changes = world.store.watch(&second.job);
    let outcome = loop {
        if let Some(outcome) = world.job().await.attempt(&second).and_then(|it| it.outcome().cloned()) {
            break outcome;
        }
        changes.changed().await.unwrap();
    };
    assert_eq!((outcome.reason, outcome.retryable), (Reason::LaunchFailed, true));
}
