//! Agents that run and do not attach, and agents that come and go while the driver looks: real store and log, and a
//! launcher that says what the test wants.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use async_trait::async_trait;
use sqlflow_proto::agent;
use sqlflow_proto::record::{StatementStarted, gap};
use sqlflow_proto::v1::Head;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::codegen::{Assigner, DATA_SOURCE};
use crate::drive::{Driver, Housekeeping, Limits};
use crate::fixture;
use crate::job::{Cause, Failure, InstanceHash, JobState, Phase, Place};
use crate::launch::{Launcher, Launchers, Needs, RecordSource, Remains, Target};
use crate::log::{ResultLog, SegmentLog};
use crate::memory_peaks::MemoryPeaks;
use crate::metrics::Metrics;
use crate::presence::Presence;
use crate::refusals::{Refusal, Refusals};
use crate::store::{Claim, NewJob, Secret, ServerId, SqliteStore, Store};
use crate::trace::Tracer;

/// Looks after which what was to happen has happened.
const MANY: usize = 5;

/// Says that every agent runs, and is looked at again at once; agents are waited for no longer than one look.
struct AlwaysRunning {
    looks: watch::Sender<usize>,
    stopped: Mutex<Vec<(AttemptId, bool)>>,
    refusals: Refusals,
    /// What each look finds that another agent was told.
    refusal: Option<Refusal>,
    /// If set, agents do not run but have come and gone.
    race: OnceLock<Race>,
    /// If set, nothing runs.
    gone: OnceLock<()>,
    /// If set, no place is free.
    full: OnceLock<()>,
    launches: AtomicUsize,
    /// If set, there are no agents: a framework's controller runs attempts to this end.
    controlled: OnceLock<agent::Outcome>,
    /// If set, it knows nothing of any agent, for this reason.
    unknown: OnceLock<&'static str>,
}

/// What a controller has kept of one attempt.
#[derive(Debug)]
struct Kept(Vec<Record>);

#[async_trait]
impl RecordSource for Kept {
    async fn batch(&mut self) -> io::Result<Vec<Record>> {
        Ok(std::mem::take(&mut self.0))
    }
}

/// While an attempt is looked at, its agent attaches through another server, and dies.
struct Race {
    store: Arc<SqliteStore>,
    log: Arc<SegmentLog>,
    /// It also starts a statement.
    starts: bool,
}

impl Race {
    async fn observe(&self, attempt: &AttemptId) -> Observation {
        let event = Event::AgentAttached {
            attempt: attempt.clone(),
            instance: InstanceHash::of(b"elsewhere"),
            server: "s".to_owned(),
        };
        // Later looks come after the attempt's end.
        let _ = self.store.update(&attempt.job, None, event, 0).await;
        if self.starts {
            self.log.append(&attempt.job, vec![started(attempt)]).await.unwrap();
        }
        Observation::Gone(Box::default())
    }
}

#[async_trait]
impl Launcher for AlwaysRunning {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn launch(&self, _: &Target, needs: &Needs) -> Result<Launched, LaunchError> {
        assert_eq!(needs.assignment.is_some(), self.controlled.get().is_some());
        self.launches.fetch_add(1, Ordering::SeqCst);
        if self.full.get().is_some() {
            return Err(LaunchError::NoPlace { before: 0 });
        }
        Ok(Launched { tracker_url: Some("http://platform/1".to_owned()) })
    }

    async fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    async fn observe(&self, target: &Target) -> Observation {
        let attempt = &target.attempt;
        if let Some(race) = self.race.get() {
            return race.observe(attempt).await;
        }
        if let Some(why) = self.unknown.get() {
            return Observation::Unknown((*why).to_owned());
        }
        if let Some(refusal) = &self.refusal {
            self.refusals.note(attempt, refusal.clone());
        }
        self.looks.send_modify(|looks| *looks += 1);
        if self.gone.get().is_some() {
            return Observation::Gone(Box::default());
        }
        match self.controlled.get() {
            Some(outcome) if *self.looks.borrow() > MANY => {
                let payload = Some(Payload::Head(Head::default()));
                let kept = Kept(vec![Record { seq: 1, payload, ..Record::default() }]);
                let outcome = Some(outcome.clone());
                let remains = Remains { outcome, records: Some(Box::new(kept)), ..Remains::default() };
                Observation::Gone(Box::new(remains))
            }
            Some(_) | None => Observation::Running,
        }
    }

    fn supervision(&self) -> Supervision {
        match self.controlled.get() {
            Some(_) => Supervision::Controller,
            None => Supervision::Agent,
        }
    }

    fn silence(&self) -> Waiting {
        Waiting { kind: "attach", why: "nothing was heard".to_owned(), patience: Duration::ZERO }
    }

    async fn stop(&self, target: &Target, forced: bool) {
        self.stopped.lock().unwrap().push((target.attempt.clone(), forced));
    }

    async fn clean_up(&self, _: &Target, _: bool) -> anyhow::Result<()> {
        Ok(())
    }

    async fn clean_up_orphan(&self, _: &Target) -> anyhow::Result<()> {
        Ok(())
    }

    async fn leftovers(&self) -> Vec<Target> {
        Vec::new()
    }

    async fn changed(&self, _: &Target) {
        tokio::task::yield_now().await;
    }
}

/// What an agent says first of all that may have executed something.
fn started(attempt: &AttemptId) -> Entry {
    let payload = Some(Payload::Started(StatementStarted {}));
    let record = Record { seq: 1, payload, ..Record::default() };
    Entry { producer: Producer::agent(attempt, 0), record }
}

/// A server with one job.
struct World {
    store: Arc<SqliteStore>,
    log: Arc<SegmentLog>,
    launcher: Arc<AlwaysRunning>,
    driver: Driver,
    memory_peaks: MemoryPeaks,
    servers: std::path::PathBuf,
    attempt: AttemptId,
    _dir: tempfile::TempDir,
}

async fn world(refusal: Option<Refusal>) -> World {
    world_of(refusal, true).await
}

async fn world_of(refusal: Option<Refusal>, repeatable: bool) -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&dir.path().join("state.db")).await.unwrap());
    let log = fixture::log(&dir.path().join("log"));
    let refusals = Refusals::default();
    let launcher = Arc::new(AlwaysRunning {
        looks: watch::channel(0).0,
        stopped: Mutex::default(),
        refusals: refusals.clone(),
        refusal,
        race: OnceLock::new(),
        gone: OnceLock::new(),
        full: OnceLock::new(),
        launches: AtomicUsize::new(0),
        unknown: OnceLock::new(),
        controlled: OnceLock::new(),
    });
    let log = Arc::new(log);
    let servers = dir.path().join("servers");
    let presence = Presence::announce(&servers).unwrap();
    let memory_peaks = MemoryPeaks::default();
    let second = Duration::from_secs(1);
    let context = Context {
        store: store.clone(),
        log: log.clone(),
        launchers: Launchers::only(launcher.clone()),
        assigner: Assigner::idle(store.clone()),
        refusals,
        memory_peaks: memory_peaks.clone(),
        presence,
        limits: Limits { lease: second, attach: second, grace: second, retain_jobs: second, silence: second },
        tracer: Tracer::default(),
        metrics: Metrics::default(),
    };
    let driver = Driver::new(context, CancellationToken::new());
    let job = fixture::job(repeatable);
    let attempt = AttemptId { job: job.id.clone(), step: 0, number: 1 };
    let new = NewJob {
        step_specs: vec![
            r#"{"title": "", "replay": [], "statements": [], "inputs": [], "outputs": []}"#.to_owned(),
        ],
        secrets: vec![(DATA_SOURCE.to_owned(), Secret::new("sqlite:///a.db"))],
        lease: second,
        ..fixture::new_job(job, driver.server())
    };
    store.create(new).await.unwrap();
    World { store, log, launcher, driver, memory_peaks, servers, attempt, _dir: dir }
}

impl World {
    fn drive(&self) {
        self.driver.drive(self.attempt.job.clone(), self.lease());
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

    /// The attempt's phase after it was looked at often.
    async fn phase_after_many_looks(&self) -> Phase {
        self.launcher.looks.subscribe().wait_for(|looks| *looks > MANY).await.unwrap();
        self.job().await.attempt(&self.attempt).unwrap().phase.clone()
    }

    /// How the attempt ended.
    async fn outcome(&self, attempt: &AttemptId) -> Outcome {
        let mut changes = self.store.watch(&attempt.job);
        loop {
            if let Some(outcome) = self.job().await.attempt(attempt).and_then(|it| it.outcome()) {
                return outcome.clone();
            }
            changes.changed().await.unwrap();
        }
    }

    /// How many records of the log are such.
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
        Event::AttemptCreated { step: 0, role: Role::Run, place: Place::of("local") }
    }

    /// What an earlier server recorded of the attempt.
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
        };
        self.update(attached).await;
        instance
    }

    /// Waits until the log says this.
    async fn said(&self, text: &str) {
        let says = |it: &Payload| matches!(it, Payload::Notice(notice) if notice.text.contains(text));
        let waited = async {
            while self.count(says).await == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let within = tokio::time::timeout(Duration::from_secs(60), waited).await;
        within.unwrap_or_else(|_| panic!("nobody says {text:?}"));
    }

    /// An attempt that cleans up behind one that was lost, launched at the beginning of time; nothing of it runs.
    async fn clean_up(&self) -> AttemptId {
        self.launcher.gone.set(()).unwrap();
        self.attach().await;
        let lost = Outcome::by_server(Reason::Lost, "its node is gone", false);
        let attempt = self.attempt.clone();
        self.update(Event::AttemptFoundEnded { attempt, outcome: lost, basis: Basis::Attached }).await;
        let place = Place::of("local");
        self.update(Event::AttemptCreated { step: 0, role: Role::CleanUp, place }).await;
        let clean_up = AttemptId { number: 2, ..self.attempt.clone() };
        self.update(Event::AttemptLaunched { attempt: clean_up.clone(), tracker_url: None }).await;
        clean_up
    }

    async fn attach_clean_up(&self, attempt: &AttemptId, now_ms: i64) {
        let attached = Event::AgentAttached {
            attempt: attempt.clone(),
            instance: InstanceHash::of(b"key"),
            server: "gone".to_owned(),
        };
        self.store.update(&attempt.job, None, attached, now_ms).await.unwrap();
    }

    async fn drives_nothing(&self) {
        until("it drives nothing", async || crate::drive::lock(&self.driver.tasks).is_empty()).await;
    }

    fn job_driver(&self) -> JobDriver {
        let Driver { context, given_back, .. } = &self.driver;
        JobDriver::new(Arc::clone(context), Arc::clone(given_back), self.attempt.job.clone(), self.lease())
    }

    fn lease(&self) -> Lease {
        Lease { owner: self.driver.server().clone(), epoch: Lease::FIRST_EPOCH }
    }

    fn state_file(&self) -> std::path::PathBuf {
        self.servers.with_file_name("state.db")
    }

    async fn log_of_a_newer_state(&self) {
        self.log.append(&self.attempt.job, vec![started(&self.attempt)]).await.unwrap();
    }

    fn launches(&self) -> usize {
        self.launcher.launches.load(Ordering::SeqCst)
    }

    fn stopped(&self) -> Vec<(AttemptId, bool)> {
        self.launcher.stopped.lock().unwrap().clone()
    }
}

async fn until(what: &str, is_it: impl AsyncFn() -> bool) {
    let looks = async {
        while !is_it().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looks).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// As while the apiserver is away.
#[tokio::test]
async fn it_is_said_that_nothing_is_known_of_an_attempt() {
    let world = world(None).await;
    world.attach().await;
    world.launcher.unknown.set("nobody answers").unwrap();
    world.drive();
    world.said("the state of the attempt is not known: nobody answers").await;
}

#[tokio::test]
async fn it_is_said_that_nothing_is_known_of_an_attempt_that_is_to_end() {
    let world = world(None).await;
    world.attach().await;
    world.launcher.unknown.set("nobody answers").unwrap();
    world.update(Event::CancelRequested(Failure::over_limit())).await;
    world.drive();
    world.said("the state of the attempt is not known: nobody answers").await;
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

fn is_notice(payload: &Payload) -> bool {
    matches!(payload, Payload::Notice(_))
}

/// The server that heard the agent has ended, so it cannot say that nothing is heard any more.
#[tokio::test]
async fn an_agent_that_does_not_come_back_after_its_server_ended_is_silent() {
    let (world, other) = (world(None).await, world_of(None, true).await);
    let living = Presence::announce(&other.servers).unwrap();
    other.update(World::created()).await;
    other.attach_to(living.id()).await;
    other.drive();
    world.attach().await;
    world.drive();
    world.said("no word from the agent for 1 s").await;
    assert_eq!(other.count(is_notice).await, 0, "another server hears that one");
    world.attach_to(world.driver.server()).await;
    world.said("the agent is heard again").await;
    assert_eq!(world.count(is_notice).await, 2, "each is said once");
    drop(living);
    other.said("no word from the agent for 1 s").await;
}

/// A wait of an earlier attempt is not held against the next one.
#[tokio::test]
async fn what_was_seen_of_an_attempt_is_no_other_attempts() {
    let world = world(None).await;
    let mut driver = world.job_driver();
    let second = AttemptId { number: 2, ..world.attempt.clone() };
    let begun = Instant::now();
    driver.at_hand(&world.attempt).missing.note(begun);
    let missing = |driver: &mut JobDriver, attempt| {
        driver.at_hand(attempt).missing.note(begun + Duration::from_secs(9)).as_secs()
    };
    assert_eq!(missing(&mut driver, &world.attempt), 9);
    assert_eq!(missing(&mut driver, &second), 0);
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
    let outcome = world.outcome(&second).await;
    assert_eq!((outcome.reason, outcome.retryable), (Reason::LaunchFailed, true));
}

/// Nobody cancelled the job: what took too long was to clean up behind it.
#[tokio::test]
async fn a_clean_up_that_takes_too_long_has_its_own_end() {
    let world = world_of(None, false).await;
    let clean_up = world.clean_up().await;
    world.attach_clean_up(&clean_up, 0).await;
    world.drive();
    let outcome = world.outcome(&clean_up).await;
    assert_eq!(outcome.reason, Reason::Deadline);
    assert!(
        outcome.message.starts_with("the scratch table was not dropped within 60 s"),
        "{}",
        outcome.message
    );
    assert_eq!(world.failure().await, Failure::new(Cause::Lost, "its node is gone"));
}

/// It waited for a place, or for its Pod.
#[tokio::test]
async fn a_clean_up_that_took_long_to_begin_has_not_taken_too_long() {
    let world = world_of(None, false).await;
    let clean_up = world.clean_up().await;
    world.attach_clean_up(&clean_up, clock::now_ms()).await;
    world.drive();
    assert_eq!(world.outcome(&clean_up).await.reason, Reason::Lost);

    let world = world_of(None, false).await;
    let clean_up = world.clean_up().await;
    world.drive();
    assert_eq!(world.outcome(&clean_up).await.reason, Reason::LaunchFailed, "it never began");
}

fn is_gap_of_lost_agent(payload: &Payload) -> bool {
    matches!(payload, Payload::Gap(gap) if gap.reason() == gap::Reason::AgentLost)
}

/// The driver's copy of the job says that there was never an agent; the store says otherwise by then.
#[tokio::test]
async fn an_agent_that_attached_while_it_was_looked_for_is_lost_and_not_missing() {
    let world = world_of(None, false).await;
    world.race(false);
    world.memory_peaks.note(&world.attempt, 900 << 20);
    world.drive();
    let outcome = world.outcome(&world.attempt).await;
    assert_eq!(outcome.reason, Reason::Lost, "{}", outcome.message);
    assert!(
        outcome.message.ends_with("; its processes had used up to 900 MiB of memory"),
        "{}",
        outcome.message
    );
    assert_eq!(world.count(is_gap_of_lost_agent).await, 1, "what is missing is said");
}

#[tokio::test]
async fn what_it_started_meanwhile_may_have_executed() {
    let world = world_of(None, false).await;
    world.race(true);
    world.drive();
    let failure = world.failure().await;
    assert_eq!(failure.cause, Cause::MayHaveExecuted, "{}", failure.message);
    assert_eq!(world.outcome(&world.attempt).await.reason, Reason::Lost);
    assert_eq!(world.count(is_gap_of_lost_agent).await, 1, "what is missing is said");
}

/// As after a backup of the state was restored: it knows nothing of the attempt's agent, or of the attempt.
#[tokio::test]
async fn what_a_restored_state_has_forgotten_is_not_executed_again() {
    for is_created in [true, false] {
        let world = world_of(None, false).await;
        world.launcher.gone.set(()).unwrap();
        world.log_of_a_newer_state().await;
        if is_created {
            world.update(World::created()).await;
        }
        world.drive();
        let failure = world.failure().await;
        assert_eq!(failure.cause, Cause::MayHaveExecuted, "{}", failure.message);
        assert_eq!(world.outcome(&world.attempt).await.reason, Reason::Lost);
        assert_eq!(world.launches(), 0);
        assert_eq!(world.count(is_gap_of_lost_agent).await, 1, "what is missing is said");
    }
}

/// It attaches again, and tells the rest.
#[tokio::test]
async fn an_agent_that_a_restored_state_has_forgotten_is_waited_for() {
    let world = world_of(Some(refusal(true)), false).await;
    world.log_of_a_newer_state().await;
    world.drive();
    assert_eq!(world.phase_after_many_looks().await, Phase::Launched);
    assert_eq!((world.launches(), world.stopped()), (0, Vec::new()));
}

#[tokio::test]
async fn a_job_that_waits_for_a_place_hears_a_cancel_through_another_server() {
    let world = world(None).await;
    world.launcher.full.set(()).unwrap();
    world.launcher.gone.set(()).unwrap();
    world.drive();
    world.said("waiting for a free place").await;
    let other = SqliteStore::open(&world.state_file()).await.unwrap();
    let cancel = Event::CancelRequested(Failure::new(Cause::Cancelled, "by a user"));
    other.update(&world.attempt.job, None, cancel, 0).await.unwrap();
    assert_eq!(world.failure().await.cause, Cause::Cancelled);
}

/// It would stand before others in the queue.
#[tokio::test]
async fn a_driver_that_lost_its_lease_does_not_wait_for_a_place() {
    let world = world(None).await;
    world.launcher.full.set(()).unwrap();
    world.drive();
    world.said("waiting for a free place").await;
    let claim = Claim {
        owner: ServerId::generate(),
        dead: vec![world.driver.server().clone()],
        except: Vec::new(),
        lease: Duration::from_secs(60),
        limit: 1,
    };
    assert_eq!(world.store.claim(claim).await.unwrap().len(), 1);
    world.drives_nothing().await;
}

/// Another server may be able to ask; if none is, this one takes the job again, and says nothing new.
#[tokio::test]
async fn a_job_whose_attempt_runs_elsewhere_is_left_to_others_until_it_changes() {
    let world = world(None).await;
    let place = Place::of("kubernetes");
    world.update(Event::AttemptCreated { step: 0, role: Role::Run, place }).await;
    world.drive();
    world.said("which this server cannot ask").await;
    tokio::spawn(Housekeeping::new(world.driver.clone()).run());
    let left = || world.driver.given_back.resting(Instant::now());
    let epoch = async || world.store.load(&world.attempt.job).await.unwrap().unwrap().lease_epoch;
    until("it is left", async || left() == [world.attempt.job.clone()]).await;
    assert_eq!(epoch().await, Lease::FIRST_EPOCH);
    world.update(Event::CancelRequested(Failure::new(Cause::Cancelled, "by a user"))).await;
    until("it is taken again", async || epoch().await > Lease::FIRST_EPOCH).await;
    until("it is left again", async || left() == [world.attempt.job.clone()]).await;
    assert_eq!(world.count(is_notice).await, 1, "it is said once");
    world.driver.shutdown.cancel();
}

/// As in a rolling upgrade: each of its writes would fail.
#[tokio::test]
async fn a_job_that_a_newer_server_wrote_is_left_to_newer_servers() {
    let world = world(None).await;
    let url = format!("sqlite://{}", world.state_file().display());
    let state = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::query("UPDATE jobs SET doc_version = 99").execute(&state).await.unwrap();
    world.drive();
    world.drives_nothing().await;
    assert_eq!(world.store.held(world.driver.server(), None, 1).await.unwrap(), []);
}

/// The store may fail between that and the record of the attempt's end, and a driver without a lease may come late.
#[tokio::test]
async fn what_is_missing_of_an_attempt_is_said_once() {
    let world = world(None).await;
    world.attach().await;
    for _ in 0..3 {
        let settled = world.job_driver().settle(world.attempt.clone(), Remains::default(), None).await;
        assert!(settled.is_ok());
    }
    assert_eq!(world.count(is_gap_of_lost_agent).await, 1);
}

/// A driver that died, or lost its lease, after it had closed the log.
#[tokio::test]
async fn a_log_that_was_closed_before_gets_no_second_end() {
    let world = world(None).await;
    world.update(Event::CancelRequested(Failure::new(Cause::Cancelled, "cancelled"))).await;
    let end = Notice { kind: notice::Kind::End.into(), text: "cancelled".to_owned() };
    let record = Record { payload: Some(Payload::Notice(end)), ..Record::default() };
    let entries = vec![Entry { producer: Producer::server(0), record }];
    world.log.append(&world.attempt.job, entries.clone()).await.unwrap();
    world.drive();
    assert_eq!(world.failure().await.cause, Cause::Cancelled);
    // It has not noticed yet that it lost its lease.
    world.log.append(&world.attempt.job, entries).await.unwrap();
    let is_end = |it: &Payload| matches!(it, Payload::Notice(it) if it.kind() == notice::Kind::End);
    assert_eq!(world.count(is_end).await, 1);
}

/// Where a framework runs several processes for one attempt, no agent comes, and none is waited for.
#[tokio::test]
async fn a_controllers_word_is_an_attempts_outcome_and_its_records_are_logged() {
    let world = world(None).await;
    let succeeded = agent::outcome::Reason::Succeeded.into();
    let outcome = agent::Outcome { reason: succeeded, last_seq: 1, ..agent::Outcome::default() };
    world.launcher.controlled.set(outcome).unwrap();
    world.drive();
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
