//! Agents that run and do not attach, and agents that come and go while the driver looks: real store and log, and a
//! launcher that says what the test wants.

mod agents;
mod cleaning;
mod news;
mod servers;
mod verdicts;

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
use crate::job::{Basis, Cause, Failure, InstanceHash, JobState, Outcome, Phase, Place, Reason};
use crate::launch::{
    End, LaunchError, Launched, Launcher, Launchers, Needs, Observation, RecordSource, Remains, Supervision,
    Target,
};
use crate::log::{ResultLog, SegmentLog};
use crate::memory_peaks::MemoryPeaks;
use crate::metrics::Metrics;
use crate::presence::Presence;
use crate::refusals::{Refusal, Refusals};
use crate::store::{Claim, NewJob, Secret, ServerId, SqliteStore, Store};
use crate::trace::Tracer;

/// Looks after which what was to happen has happened.
const MANY: usize = 5;
/// So many of the first clean-ups fail.
const BAD_CLEAN_UPS: usize = 2;

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
    /// If set, there are no agents: a framework's controller runs attempts to this end; `None`: until they are stopped.
    controlled: OnceLock<Option<agent::Outcome>>,
    /// If set, it knows nothing of any agent, for this reason.
    unknown: OnceLock<&'static str>,
    /// If set, nothing runs of this attempt.
    dead: OnceLock<AttemptId>,
    /// If set, it tells of no change, and is to be looked at seldom.
    silent: OnceLock<()>,
    /// Launches and clean-ups, in order.
    calls: Mutex<Vec<Call>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Launch,
    CleanUp,
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
        self.calls.lock().unwrap().push(Call::Launch);
        if self.full.get().is_some() && !needs.cleans_up {
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
        if self.gone.get().is_some() || self.dead.get() == Some(attempt) {
            return Observation::Gone(Box::default());
        }
        match self.controlled.get() {
            Some(Some(outcome)) if *self.looks.borrow() > MANY => {
                let payload = Some(Payload::Head(Head::default()));
                let kept = Kept(vec![Record { seq: 1, payload, ..Record::default() }]);
                let end = End::Reported(outcome.clone());
                let remains = Remains { end, records: Some(Box::new(kept)), ..Remains::default() };
                Observation::Gone(Box::new(remains))
            }
            Some(None) if !self.stopped.lock().unwrap().is_empty() => Observation::Gone(Box::default()),
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
        let mut calls = self.calls.lock().unwrap();
        calls.push(Call::CleanUp);
        let clean_ups = calls.iter().filter(|call| **call == Call::CleanUp).count();
        anyhow::ensure!(clean_ups > BAD_CLEAN_UPS, "it cannot be removed now");
        Ok(())
    }

    async fn clean_up_orphan(&self, _: &Target) -> anyhow::Result<()> {
        Ok(())
    }

    async fn leftovers(&self) -> Vec<Target> {
        Vec::new()
    }

    async fn changed(&self, _: &Target) {
        if self.silent.get().is_some() {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
    }

    fn look_period(&self) -> Duration {
        if self.silent.get().is_some() { SAFETY_PERIOD } else { LOOK_PERIOD }
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
        dead: OnceLock::new(),
        silent: OnceLock::new(),
        calls: Mutex::default(),
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

    /// Waits until it was looked often at the attempt as it is now.
    async fn looks_often(&self) {
        let mut looks = self.launcher.looks.subscribe();
        let before = *looks.borrow_and_update();
        looks.wait_for(|looks| *looks > before + MANY).await.unwrap();
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
        self.clean_up_that_runs().await
    }

    /// The same, and its launcher says how it stands.
    async fn clean_up_that_runs(&self) -> AttemptId {
        let clean_up = self.clean_up_to_launch().await;
        self.update(Event::AttemptLaunched { attempt: clean_up.clone(), tracker_url: None }).await;
        clean_up
    }

    /// The same, and it is not launched yet.
    async fn clean_up_to_launch(&self) -> AttemptId {
        self.attach().await;
        let lost = Outcome::by_server(Reason::Lost, "its node is gone", false);
        let attempt = self.attempt.clone();
        self.update(Event::AttemptFoundEnded { attempt, outcome: lost, basis: Basis::Attached }).await;
        let place = Place::of("local");
        self.update(Event::AttemptCreated { step: 0, role: Role::CleanUp, place }).await;
        AttemptId { number: 2, ..self.attempt.clone() }
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

    fn calls(&self) -> Vec<Call> {
        self.launcher.calls.lock().unwrap().clone()
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

fn is_notice(payload: &Payload) -> bool {
    matches!(payload, Payload::Notice(_))
}

fn is_gap_of_lost_agent(payload: &Payload) -> bool {
    matches!(payload, Payload::Gap(gap) if gap.reason() == gap::Reason::AgentLost)
}

fn refusal(may_pass: bool) -> Refusal {
    Refusal { why: "its token could not be checked".to_owned(), may_pass }
}
