//! Launcher of the tests, whose answers a test sets.

use std::io;
use std::sync::{Mutex, OnceLock};

use async_trait::async_trait;
use sqlflow_job::{InstanceHash, LauncherKind};
use sqlflow_job_store::{SqliteStore, Store};
use sqlflow_launcher::{
    AgentArtifacts, Cleanup, End, LaunchError, LaunchRequirements, Launched, Launcher, Observation,
    PendingReason, RecordSource, Supervision, Target,
};
use sqlflow_proto::agent;
use sqlflow_proto::record::StatementEnded;
use sqlflow_proto::v1::Head;
use sqlflow_result_log::{ResultLog, TieredLog};
use tokio::sync::watch;

use super::super::*;
use super::{MANY, started};
use crate::attach_errors::{AttachError, AttachErrors};

/// Number of first cleanups that fail.
const BAD_CLEANUPS: usize = 2;

/// Answers that every agent runs, and signals changes all the time. The attach timeout is shorter than one
/// observation.
#[derive(Default)]
pub(super) struct AlwaysRunning {
    pub(super) looks: watch::Sender<usize>,
    pub(super) stopped: Mutex<Vec<(AttemptId, bool)>>,
    pub(super) attach_errors: AttachErrors,
    /// Each observation finds the effects of another agent.
    pub(super) refusal: Option<AttachError>,
    /// If set, agents have attached and ended.
    pub(super) race: OnceLock<Race>,
    /// If set, nothing runs.
    pub(super) gone: OnceLock<()>,
    /// If set, no run slot is free.
    pub(super) full: OnceLock<()>,
    /// If set, there are no agents: a framework's controller runs attempts until this outcome; `None`: until they are
    /// stopped.
    pub(super) controlled: OnceLock<Option<agent::Outcome>>,
    /// If set, the state of every attempt is unknown, for this reason.
    pub(super) unknown: OnceLock<&'static str>,
    /// If set, nothing of this attempt runs.
    pub(super) dead: OnceLock<AttemptId>,
    /// If set, an agent starts between an observation that finds nothing and the cleanup.
    pub(super) late: OnceLock<()>,
    /// If set, it signals no change, and is polled rarely.
    pub(super) silent: OnceLock<()>,
    /// Launches and cleanups, in order.
    pub(super) calls: Mutex<Vec<Call>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Launch,
    Cleanup,
}

/// What a controller has kept of one attempt.
#[derive(Debug)]
pub(super) struct Kept(pub(super) Vec<Record>);

#[async_trait]
impl RecordSource for Kept {
    async fn batch(&mut self) -> io::Result<Vec<Record>> {
        Ok(std::mem::take(&mut self.0))
    }
}

/// While an attempt is observed, its agent attaches through another server, and dies.
pub(super) struct Race {
    pub(super) store: Arc<SqliteStore>,
    pub(super) log: Arc<TieredLog>,
    /// It also starts a statement.
    pub(super) starts: bool,
}

impl Race {
    async fn observe(&self, attempt: &AttemptId) -> Observation {
        let event = Event::AgentAttached {
            attempt: attempt.clone(),
            instance: InstanceHash::of(b"elsewhere"),
            server: "s".to_owned(),
            is_local: false,
        };
        // Later observations come after the attempt's end.
        let _ = self.store.update(&attempt.job, None, event, 0).await;
        if self.starts {
            self.log.append(&attempt.job, vec![started(attempt)]).await.unwrap();
        }
        Observation::Gone(Box::default())
    }
}

#[async_trait]
impl Launcher for AlwaysRunning {
    fn kind(&self) -> LauncherKind {
        LauncherKind::Local
    }

    async fn launch(&self, _: &Target, requirements: &LaunchRequirements) -> Result<Launched, LaunchError> {
        assert_eq!(requirements.assignment.is_some(), self.controlled.get().is_some());
        self.calls.lock().unwrap().push(Call::Launch);
        if self.full.get().is_some() && !requirements.cleans_up {
            return Err(LaunchError::NoFreeSlot { before: 0 });
        }
        Ok(Launched { tracker_url: Some("http://platform/1".to_owned()), ..Launched::default() })
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
            self.attach_errors.note(attempt, refusal.clone());
        }
        self.looks.send_modify(|looks| *looks += 1);
        if self.gone.get().is_some() || self.dead.get() == Some(attempt) {
            return Observation::Gone(Box::default());
        }
        match self.controlled.get() {
            Some(Some(outcome)) if *self.looks.borrow() > MANY => {
                let payload = Some(Payload::Head(Head::default()));
                let head = Record { seq: 1, payload, ..Record::default() };
                let payload = Some(Payload::Ended(StatementEnded::default()));
                let ended = Record { seq: 2, statement: Some(0), payload, ..Record::default() };
                let kept = Kept(vec![head, ended]);
                let end = End::Reported(outcome.clone());
                let artifacts =
                    AgentArtifacts { end, records: Some(Box::new(kept)), ..AgentArtifacts::default() };
                Observation::Gone(Box::new(artifacts))
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

    fn attach_pending(&self) -> PendingStatus {
        PendingStatus {
            reason: PendingReason::Attach,
            message: "nothing was heard".to_owned(),
            timeout: Duration::ZERO,
        }
    }

    async fn stop(&self, target: &Target, forced: bool) {
        self.stopped.lock().unwrap().push((target.attempt.clone(), forced));
    }

    async fn cleanup(&self, _: &Target, _: bool) -> anyhow::Result<Cleanup> {
        let mut calls = self.calls.lock().unwrap();
        calls.push(Call::Cleanup);
        if self.late.get().is_some() {
            return Ok(Cleanup::StillRuns);
        }
        let cleanups = calls.iter().filter(|call| **call == Call::Cleanup).count();
        anyhow::ensure!(cleanups > BAD_CLEANUPS, "it cannot be removed now");
        Ok(Cleanup::Done)
    }

    async fn collect_garbage(&self, _: &Target) -> anyhow::Result<()> {
        Ok(())
    }

    async fn attempts(&self) -> Vec<Target> {
        Vec::new()
    }

    async fn changed(&self, _: &Target) {
        if self.silent.get().is_some() {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
    }

    fn poll_interval(&self) -> Duration {
        if self.silent.get().is_some() { RELOAD_PERIOD } else { POLL_PERIOD }
    }
}
