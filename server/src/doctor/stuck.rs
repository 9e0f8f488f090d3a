//! Findings about jobs without progress, derived from jobs and servers. Pure.

use std::collections::BTreeMap;

use sqlflow_job::{Attempt, Job, JobId, LauncherId, Phase};
use sqlflow_job_store::{ServerId, Surveyed, SurveyedDocument};

use super::diagnose::NEEDS_REPAIR;
use super::finding::{Finding, Kind, Remedy};

/// Time after which an attempt without an agent was forgotten by its server: the longest pending timeout is half an
/// hour.
const LONGEST_WAIT_MS: i64 = 3_600_000;

/// A server's lease and lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServerState {
    /// End of its lease.
    pub(super) until_ms: i64,
    /// Whether its process lives.
    pub(super) is_held: bool,
}

/// The servers of a state folder at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Servers {
    states: BTreeMap<String, ServerState>,
    now_ms: i64,
}

/// State of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Runs,
    /// Its process lives, and its lease has expired.
    Silent(i64),
    /// It has ended; since when, if known.
    Gone(Option<i64>),
}

impl Servers {
    pub(super) fn new(states: BTreeMap<String, ServerState>, now_ms: i64) -> Self {
        Self { states, now_ms }
    }

    /// Number of running servers.
    pub(super) fn running(&self) -> usize {
        self.states.values().filter(|state| self.standing_of(**state) == Standing::Runs).count()
    }

    fn standing(&self, server: &ServerId) -> Standing {
        self.states.get(&server.0).map_or(Standing::Gone(None), |state| self.standing_of(*state))
    }

    fn standing_of(&self, state: ServerState) -> Standing {
        match (state.is_held, state.until_ms > self.now_ms) {
            (true, true) => Standing::Runs,
            (true, false) => Standing::Silent(state.until_ms),
            (false, _) => Standing::Gone(Some(state.until_ms.min(self.now_ms))),
        }
    }
}

/// Context for findings about stuck jobs.
#[derive(Debug)]
pub(super) struct StuckContext {
    pub(super) servers: Servers,
    /// Launcher id of a local launcher on this state folder.
    pub(super) here: LauncherId,
    /// Launcher ids with attached agents: other attempts there may wait for a run slot.
    pub(super) busy: Vec<LauncherId>,
}

impl StuckContext {
    /// Notes where the job's agents are attached.
    pub(super) fn note(&mut self, job: &Job) {
        if let Some(attempt) = live_attempt(job)
            && matches!(attempt.phase, Phase::Attached { .. })
            && !self.busy.contains(&attempt.launcher_id)
        {
            self.busy.push(attempt.launcher_id.clone());
        }
    }
}

/// A job without progress.
pub(super) fn stuck(row: &Surveyed, context: &StuckContext) -> Option<Finding> {
    let (None, SurveyedDocument::Whole(job)) = (row.ended_ms, &row.document) else { return None };
    let not_held = || not_held(row, &job.id, &context.servers);
    let elsewhere = || elsewhere(job, context);
    let found = if row.is_given_back() {
        // Servers release a job of a foreign launcher, and claim it again after a minute.
        elsewhere().or_else(not_held)
    } else {
        not_held().or_else(elsewhere)
    };
    found.or_else(|| waiting(job, context))
}

fn not_held(row: &Surveyed, id: &JobId, servers: &Servers) -> Option<Finding> {
    let owner = &row.lease.owner;
    let is_free = row.is_given_back();
    let standing = servers.standing(owner);
    let since_ms = match standing {
        _ if is_free => None,
        Standing::Runs => return None,
        Standing::Silent(since) => Some(since),
        Standing::Gone(since) => since,
    };
    let (what, fix) = match (servers.running(), standing) {
        (0, Standing::Silent(_)) => (
            format!(
                "server {owner} holds it and is silent: its process is stopped, or cannot reach its disk"
            ),
            "continue or end that process, or start another server".to_owned(),
        ),
        (0, _) => (
            "it is live, and no server runs on this state folder".to_owned(),
            "start one: it claims the job at once".to_owned(),
        ),
        (1.., _) if is_free => (
            "it is live and released, and no server has claimed it".to_owned(),
            "check the logs of the running servers; a restarted server claims it".to_owned(),
        ),
        (1.., Standing::Silent(_)) => (
            format!("server {owner} holds it and is silent, and no other server has claimed it"),
            format!("continue or end that process, then {NEEDS_REPAIR}, which releases the job"),
        ),
        (1.., _) => (
            format!("server {owner} held it and has ended, and no other server has claimed it"),
            format!("{NEEDS_REPAIR}, which releases the job"),
        ),
    };
    let remedy = if is_free { Remedy::None } else { Remedy::GiveBack(id.clone(), row.lease.clone()) };
    Some(Finding { kind: Kind::NotHeld, job: Some(id.to_string()), what, since_ms, fix, remedy })
}

fn elsewhere(job: &Job, context: &StuckContext) -> Option<Finding> {
    let attempt = live_attempt(job)?;
    // The clusters that servers can reach are not recorded.
    if attempt.launcher_id.kind != context.here.kind || context.here.covers(&attempt.launcher_id) {
        return None;
    }
    Some(Finding {
        kind: Kind::Elsewhere,
        job: Some(job.id.to_string()),
        what: format!(
            "its attempt was started at {}, and this state folder is {}",
            attempt.launcher_id, context.here
        ),
        since_ms: Some(attempt.created_ms),
        fix:
            "no server can observe it here: make the folder available at that path, and start a server there"
                .to_owned(),
        remedy: Remedy::None,
    })
}

fn waiting(job: &Job, context: &StuckContext) -> Option<Finding> {
    let attempt = live_attempt(job)?;
    let since_ms = match attempt.phase {
        // It may wait for a run slot; attempts with one are working.
        Phase::Created if context.busy.contains(&attempt.launcher_id) => return None,
        Phase::Created => attempt.created_ms,
        Phase::Launched => attempt.launched_ms.unwrap_or(attempt.created_ms),
        Phase::Attached { .. } | Phase::Ended { .. } => return None,
    };
    if context.servers.now_ms.saturating_sub(since_ms) < LONGEST_WAIT_MS {
        return None;
    }
    Some(Finding {
        kind: Kind::Waiting,
        job: Some(job.id.to_string()),
        what: format!(
            "its attempt is {} and has no agent, for longer than servers wait",
            attempt.phase.name()
        ),
        since_ms: Some(since_ms),
        fix: format!("`sqlflowctl fetch {}` shows its pending reason; `sqlflowctl cancel` ends it", job.id),
        remedy: Remedy::None,
    })
}

/// The attempt that has not ended, if there is one.
fn live_attempt(job: &Job) -> Option<&Attempt> {
    let step = job.steps.get(job.current_step()? as usize)?;
    step.attempts.last().filter(|attempt| attempt.outcome().is_none())
}
#[cfg(test)]
pub(super) mod tests {
    use sqlflow_job::{Event, LauncherKind, Role};
    use sqlflow_job_store::Lease;

    use super::*;
    use crate::fixture;

    const NOW: i64 = 10_000_000;

    fn launcher_id(scope: &str) -> LauncherId {
        LauncherId { kind: LauncherKind::Local, scope: Some(scope.into()) }
    }

    pub(in crate::doctor) fn job(at: Option<LauncherId>) -> Job {
        let mut job = fixture::job(true);
        if let Some(launcher_id) = at {
            job.apply(Event::AttemptCreated { step: 0, role: Role::Run, launcher_id }, 1000).unwrap();
        }
        job
    }

    pub(in crate::doctor) fn row(job: Job, owner: &str) -> Surveyed {
        Surveyed {
            key: job.id.to_string(),
            id: Some(job.id.clone()),
            document: SurveyedDocument::Whole(job),
            created_ms: 1000,
            ended_ms: None,
            lease: Lease { owner: ServerId(owner.to_owned()), epoch: 3 },
            was_buried: false,
        }
    }

    fn scene(servers: &[(&str, i64, bool)]) -> StuckContext {
        let sign = |&(name, until_ms, is_held): &(&str, i64, bool)| {
            (name.to_owned(), ServerState { until_ms, is_held })
        };
        let servers = Servers::new(servers.iter().map(sign).collect(), NOW);
        StuckContext { servers, here: launcher_id("/s"), busy: Vec::new() }
    }

    fn kind(row: &Surveyed, scene: &StuckContext) -> Option<Kind> {
        stuck(row, scene).map(|finding| finding.kind)
    }

    #[test]
    fn job_without_a_live_server_is_not_held() {
        let alive = ("a", NOW + 1, true);
        assert_eq!(kind(&row(job(None), "a"), &scene(&[alive])), None);
        for (held_by, servers) in [
            ("a", vec![]),
            ("a", vec![("a", NOW + 1, false)]),
            ("a", vec![("a", NOW - 1, false)]),
            ("a", vec![("a", NOW - 1, true)]),
            ("", vec![]),
            ("b", vec![alive]),
            ("b", vec![alive, ("b", NOW - 1, true)]),
            ("", vec![alive]),
        ] {
            let row = row(job(None), held_by);
            let finding = stuck(&row, &scene(&servers)).unwrap();
            assert_eq!((finding.kind, finding.job), (Kind::NotHeld, Some(row.key.clone())), "{servers:?}");
            let is_given_back = finding.remedy == Remedy::GiveBack(row.id.unwrap(), row.lease);
            assert_eq!(is_given_back, !held_by.is_empty(), "{servers:?}");
        }
    }

    #[test]
    fn fix_for_a_job_without_server_depends_on_running_servers() {
        let fix = |servers: &[(&str, i64, bool)]| stuck(&row(job(None), "a"), &scene(servers)).unwrap().fix;
        assert!(fix(&[]).contains("start one"));
        assert!(fix(&[("a", NOW - 1, true)]).contains("continue or end that process"));
        assert!(fix(&[("b", NOW + 1, true)]).contains("--repair"));
        let gone = stuck(&row(job(None), "a"), &scene(&[("a", NOW - 500, false)])).unwrap();
        assert_eq!(gone.since_ms, Some(NOW - 500));
    }

    #[test]
    fn attempt_of_another_folder_is_elsewhere() {
        let scene = scene(&[("a", NOW + 1, true)]);
        let young = |at: LauncherId| {
            let mut job = job(Some(at));
            job.steps[0].attempts[0].created_ms = NOW;
            row(job, "a")
        };
        assert_eq!(kind(&young(launcher_id("/s")), &scene), None);
        assert_eq!(
            kind(&young(LauncherId::of(LauncherKind::Local)), &scene),
            None,
            "from before scopes were recorded"
        );
        assert_eq!(kind(&young(launcher_id("/old")), &scene), Some(Kind::Elsewhere));
        assert_eq!(kind(&young(LauncherId::of(LauncherKind::Kubernetes)), &scene), None);
    }

    /// Servers without the launcher release it repeatedly.
    #[test]
    fn released_job_of_a_foreign_launcher_is_elsewhere() {
        let scene = scene(&[("a", NOW + 1, true)]);
        let released = |at| row(job(Some(launcher_id(at))), "");
        assert_eq!(kind(&released("/old"), &scene), Some(Kind::Elsewhere));
        assert_eq!(kind(&released("/s"), &scene), Some(Kind::NotHeld));
        let of_the_dead = row(job(Some(launcher_id("/old"))), "gone");
        let finding = stuck(&of_the_dead, &scene).unwrap();
        assert_eq!(finding.kind, Kind::NotHeld, "it can be released");
        assert!(matches!(finding.remedy, Remedy::GiveBack(..)));
    }

    #[test]
    fn attempt_without_agent_is_reported_unless_run_slots_are_in_use() {
        let mut scene = scene(&[("a", NOW + 1, true)]);
        let row = row(job(Some(launcher_id("/s"))), "a");
        assert_eq!(kind(&row, &scene), Some(Kind::Waiting));
        scene.busy.push(launcher_id("/s"));
        assert_eq!(kind(&row, &scene), None);
    }

    #[test]
    fn ended_job_is_not_stuck() {
        let ended = Surveyed { ended_ms: Some(5), ..row(job(None), "") };
        assert_eq!(kind(&ended, &scene(&[])), None);
    }
}
