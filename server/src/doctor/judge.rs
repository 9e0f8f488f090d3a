//! Findings, derived from what was read. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sqlflow_job::{Attempt, Job, JobId, LauncherId, Phase};
use sqlflow_job_store::{ServerId, Surveyed, SurveyedDocument};
use sqlflow_launcher::Agent;
use sqlflow_result_log::{Aside, Damage};

use super::finding::{Finding, Kind, Remedy};

/// Time after which an attempt without an agent was forgotten by its server: the longest pending timeout is half an
/// hour.
const LONGEST_WAIT_MS: i64 = 3_600_000;

const NEEDS_REPAIR: &str = "run with --repair";

/// A server's lease and lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sign {
    /// End of its lease.
    pub(super) until_ms: i64,
    /// Whether its process lives.
    pub(super) is_held: bool,
}

/// The servers of a state folder at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Servers {
    signs: BTreeMap<String, Sign>,
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
    pub(super) fn new(signs: BTreeMap<String, Sign>, now_ms: i64) -> Self {
        Self { signs, now_ms }
    }

    /// Number of running servers.
    pub(super) fn running(&self) -> usize {
        self.signs.values().filter(|sign| self.standing_of(**sign) == Standing::Runs).count()
    }

    fn standing(&self, server: &ServerId) -> Standing {
        self.signs.get(&server.0).map_or(Standing::Gone(None), |sign| self.standing_of(*sign))
    }

    fn standing_of(&self, sign: Sign) -> Standing {
        match (sign.is_held, sign.until_ms > self.now_ms) {
            (true, true) => Standing::Runs,
            (true, false) => Standing::Silent(sign.until_ms),
            (false, _) => Standing::Gone(Some(sign.until_ms.min(self.now_ms))),
        }
    }
}

/// Context for findings about stuck jobs.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) servers: Servers,
    /// Launcher id of a local launcher on this state folder.
    pub(super) here: LauncherId,
    /// Launcher ids with attached agents: other attempts there may wait for a run slot.
    pub(super) busy: Vec<LauncherId>,
}

impl Scene {
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

/// A document that cannot be read, or not by this version.
pub(super) fn document(row: &Surveyed) -> Option<Finding> {
    let since_ms = Some(row.ended_ms.unwrap_or(row.created_ms));
    let job = Some(row.key.clone());
    match (&row.document, &row.id) {
        (SurveyedDocument::Whole(_), Some(_)) => None,
        (_, None) => Some(Finding {
            kind: Kind::DamagedDocument,
            job,
            what: "its id in state.db is damaged".to_owned(),
            since_ms,
            fix: "servers leave it out, and it cannot be repaired: restore state.db from a backup".to_owned(),
            remedy: Remedy::None,
        }),
        (SurveyedDocument::Damaged(why), Some(id)) => Some(Finding {
            kind: Kind::DamagedDocument,
            job,
            what: format!("its document in state.db cannot be read ({why})"),
            since_ms,
            fix: match row.ended_ms {
                None => format!("{NEEDS_REPAIR}, which ends the job as FAILED; what it said stays"),
                Some(_) => format!("{NEEDS_REPAIR}, which keeps how it ended and what it said"),
            },
            remedy: Remedy::EndJob(id.clone()),
        }),
        (SurveyedDocument::Newer { version, known }, Some(_)) => Some(Finding {
            kind: Kind::NewerDocument,
            job,
            what: format!("its document is of version {version}, and this program knows up to {known}"),
            since_ms,
            fix: "servers of this version leave it alone: upgrade the server".to_owned(),
            remedy: Remedy::None,
        }),
    }
}

/// A log with unreadable records.
pub(super) fn damaged_log(job: &JobId, damage: &Damage, written_ms: Option<i64>) -> Finding {
    let Damage { file, offset, what, files } = damage;
    let more = match files {
        0 | 1 => String::new(),
        more => format!(", and {} more files", more - 1),
    };
    let what = format!("{}, byte {offset}: {what}{more}", file.display());
    damaged(job, what, written_ms, Remedy::RepairLog(job.clone()))
}

/// A damaged small log.
pub(super) fn damaged_small_log(job: &JobId, database: &Path, what: &str) -> Finding {
    let what = format!("the log in {}: {what}", database.display());
    damaged(job, what, None, Remedy::RepairSmallLog(job.clone()))
}

fn damaged(job: &JobId, what: String, since_ms: Option<i64>, remedy: Remedy) -> Finding {
    let fix = format!("check the disk, then {NEEDS_REPAIR}, which keeps all that can be read");
    Finding { kind: Kind::DamagedLog, job: Some(job.to_string()), what, since_ms, fix, remedy }
}

/// Something that cannot be read.
pub(super) fn unreadable(job: Option<&JobId>, why: String) -> Finding {
    Finding {
        kind: Kind::Unreadable,
        job: job.map(ToString::to_string),
        what: why,
        since_ms: None,
        fix: "see that it is the server's user's, and that the disk is well".to_owned(),
        remedy: Remedy::None,
    }
}

/// Whether the job must have a log with records.
pub(super) fn should_have_log(row: &Surveyed) -> bool {
    let SurveyedDocument::Whole(job) = &row.document else { return false };
    let has_reported = |attempt: &Attempt| matches!(attempt.phase, Phase::Ended { instance: Some(_), .. });
    let attempts = || job.steps.iter().flat_map(|step| &step.attempts);
    // One that ended because of its document may have no records.
    !row.was_buried && (row.ended_ms.is_some() || attempts().any(has_reported))
}

/// A job without a log.
pub(super) fn missing_log(row: &Surveyed, folder: &Path) -> Finding {
    Finding {
        kind: Kind::MissingLog,
        job: Some(row.key.clone()),
        what: format!("it has no log: state.db has none, and {} is not there", folder.display()),
        since_ms: Some(row.ended_ms.unwrap_or(row.created_ms)),
        fix: "what it said is lost: restore that folder from a backup while no server runs, or leave it to --retain-jobs"
            .to_owned(),
        remedy: Remedy::None,
    }
}

/// A log without a job.
pub(super) fn orphan_log(job: &JobId, folder: PathBuf, is_in_place: bool, since_ms: Option<i64>) -> Finding {
    let what = match is_in_place {
        true => format!("{} is the log of a job that state.db does not know", folder.display()),
        false => format!("{} is a log where no server looks for it", folder.display()),
    };
    Finding {
        kind: Kind::OrphanLog,
        job: Some(job.to_string()),
        what,
        since_ms,
        fix: format!("{NEEDS_REPAIR}, which moves it to lost+found, or deletes it with --delete-orphans"),
        remedy: Remedy::SetLogAside(folder),
    }
}

/// The rest of a log.
pub(super) fn half_removed(folder: PathBuf, since_ms: Option<i64>) -> Finding {
    Finding {
        kind: Kind::HalfRemovedLog,
        job: folder.file_stem().map(|name| name.to_string_lossy().into_owned()),
        what: format!(
            "{} is what is left of a log whose deletion, or move to a folder, was broken off",
            folder.display()
        ),
        since_ms,
        fix: format!("{NEEDS_REPAIR}, which deletes the rest"),
        remedy: Remedy::FinishRemoval(folder),
    }
}

/// Files that repairs kept beside a log.
pub(super) fn kept_aside(job: &JobId, files: &[Aside], since_ms: Option<i64>) -> Option<Finding> {
    let first = files.first()?;
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    Some(Finding {
        kind: Kind::KeptAside,
        job: Some(job.to_string()),
        what: format!(
            "a repair kept {} damaged files of {bytes} bytes, such as {}",
            files.len(),
            first.path.display()
        ),
        since_ms,
        fix: "they go with the job's log; delete them when nobody wants to look into them".to_owned(),
        remedy: Remedy::None,
    })
}

/// Folders in lost+found.
pub(super) fn lost_and_found(folder: &Path, entries: usize) -> Finding {
    Finding {
        kind: Kind::LostAndFound,
        job: None,
        what: format!("{} holds {entries} folders that a repair set aside", folder.display()),
        since_ms: None,
        fix: "no server reads them; move back or delete them".to_owned(),
        remedy: Remedy::None,
    }
}

/// Run folders of a job that the store does not know.
pub(super) fn orphan_run_folder(job: &JobId, folder: &Path, agent: Agent, since_ms: Option<i64>) -> Finding {
    let what = format!("{} is the run folder of a job that state.db does not know", folder.display());
    let (fix, remedy) = match agent {
        Agent::Gone => (
            format!("a server with the local launcher deletes it; {NEEDS_REPAIR} to move it to lost+found"),
            Remedy::SetRunFolderAside(job.clone()),
        ),
        Agent::Runs(Some(process)) => (
            format!("its agent, process {process}, ends by itself once it reaches a server; then look again"),
            Remedy::None,
        ),
        Agent::Runs(None) => {
            ("its agent still runs, in another container; end that, then look again".to_owned(), Remedy::None)
        }
    };
    Finding { kind: Kind::OrphanRunFolder, job: Some(job.to_string()), what, since_ms, fix, remedy }
}

/// A job without progress.
pub(super) fn stuck(row: &Surveyed, scene: &Scene) -> Option<Finding> {
    let (None, SurveyedDocument::Whole(job)) = (row.ended_ms, &row.document) else { return None };
    let not_held = || not_held(row, &job.id, &scene.servers);
    let elsewhere = || elsewhere(job, scene);
    let found = if row.is_given_back() {
        // Servers release a job of a foreign launcher, and claim it again after a minute.
        elsewhere().or_else(not_held)
    } else {
        not_held().or_else(elsewhere)
    };
    found.or_else(|| waiting(job, scene))
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
            "start one: it takes the job up at once".to_owned(),
        ),
        (1.., _) if is_free => (
            "it is live and given back, and no server has taken it".to_owned(),
            "look into the logs of the servers that run; a restart of one takes it up".to_owned(),
        ),
        (1.., Standing::Silent(_)) => (
            format!("server {owner} holds it and is silent, and no other server has taken it"),
            format!("continue or end that process, then {NEEDS_REPAIR}, which gives the job back"),
        ),
        (1.., _) => (
            format!("server {owner} held it and has ended, and no other server has taken it"),
            format!("{NEEDS_REPAIR}, which gives the job back"),
        ),
    };
    let remedy = if is_free { Remedy::None } else { Remedy::GiveBack(id.clone(), row.lease.clone()) };
    Some(Finding { kind: Kind::NotHeld, job: Some(id.to_string()), what, since_ms, fix, remedy })
}

fn elsewhere(job: &Job, scene: &Scene) -> Option<Finding> {
    let attempt = live_attempt(job)?;
    // The clusters that servers can reach are not recorded.
    if attempt.launcher_id.launcher != scene.here.launcher || scene.here.covers(&attempt.launcher_id) {
        return None;
    }
    Some(Finding {
        kind: Kind::Elsewhere,
        job: Some(job.id.to_string()),
        what: format!("its attempt was started at {}, and this state folder is {}", attempt.launcher_id, scene.here),
        since_ms: Some(attempt.created_ms),
        fix: "no server can ask after it here: make the folder available at that path, and start a server there"
            .to_owned(),
        remedy: Remedy::None,
    })
}

fn waiting(job: &Job, scene: &Scene) -> Option<Finding> {
    let attempt = live_attempt(job)?;
    let since_ms = match attempt.phase {
        // It may wait for a run slot; attempts with one are working.
        Phase::Created if scene.busy.contains(&attempt.launcher_id) => return None,
        Phase::Created => attempt.created_ms,
        Phase::Launched => attempt.launched_ms.unwrap_or(attempt.created_ms),
        Phase::Attached { .. } | Phase::Ended { .. } => return None,
    };
    if scene.servers.now_ms.saturating_sub(since_ms) < LONGEST_WAIT_MS {
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
        fix: format!("`sqlflowctl fetch {}` says what it waits for; `sqlflowctl cancel` ends it", job.id),
        remedy: Remedy::None,
    })
}

/// The attempt that has not ended, if there is one.
fn live_attempt(job: &Job) -> Option<&Attempt> {
    let step = job.steps.get(job.current_step()? as usize)?;
    step.attempts.last().filter(|attempt| attempt.outcome().is_none())
}

#[cfg(test)]
mod tests {
    use sqlflow_job::{Event, Role};
    use sqlflow_job_store::Lease;

    use super::*;
    use crate::fixture;

    const NOW: i64 = 10_000_000;

    fn launcher_id(scope: &str) -> LauncherId {
        LauncherId { launcher: "local".into(), scope: Some(scope.into()) }
    }

    fn job(at: Option<LauncherId>) -> Job {
        let mut job = fixture::job(true);
        if let Some(launcher_id) = at {
            job.apply(Event::AttemptCreated { step: 0, role: Role::Run, launcher_id }, 1000).unwrap();
        }
        job
    }

    fn row(job: Job, owner: &str) -> Surveyed {
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

    fn scene(servers: &[(&str, i64, bool)]) -> Scene {
        let sign =
            |&(name, until_ms, is_held): &(&str, i64, bool)| (name.to_owned(), Sign { until_ms, is_held });
        let servers = Servers::new(servers.iter().map(sign).collect(), NOW);
        Scene { servers, here: launcher_id("/s"), busy: Vec::new() }
    }

    fn kind(row: &Surveyed, scene: &Scene) -> Option<Kind> {
        stuck(row, scene).map(|finding| finding.kind)
    }

    #[test]
    fn a_job_is_held_by_a_server_that_lives_and_says_so() {
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
    fn what_to_do_about_a_job_that_is_not_held_depends_on_who_runs() {
        let fix = |servers: &[(&str, i64, bool)]| stuck(&row(job(None), "a"), &scene(servers)).unwrap().fix;
        assert!(fix(&[]).contains("start one"));
        assert!(fix(&[("a", NOW - 1, true)]).contains("continue or end that process"));
        assert!(fix(&[("b", NOW + 1, true)]).contains("--repair"));
        let gone = stuck(&row(job(None), "a"), &scene(&[("a", NOW - 500, false)])).unwrap();
        assert_eq!(gone.since_ms, Some(NOW - 500));
    }

    #[test]
    fn an_attempt_of_another_folder_is_elsewhere_and_one_of_a_cluster_is_not_judged() {
        let scene = scene(&[("a", NOW + 1, true)]);
        let young = |at: LauncherId| {
            let mut job = job(Some(at));
            job.steps[0].attempts[0].created_ms = NOW;
            row(job, "a")
        };
        assert_eq!(kind(&young(launcher_id("/s")), &scene), None);
        assert_eq!(kind(&young(LauncherId::of("local")), &scene), None, "from before scopes were recorded");
        assert_eq!(kind(&young(launcher_id("/old")), &scene), Some(Kind::Elsewhere));
        assert_eq!(kind(&young(LauncherId::of("kubernetes")), &scene), None);
    }

    /// Servers without the launcher release it repeatedly.
    #[test]
    fn a_job_that_was_given_back_because_it_runs_elsewhere_is_elsewhere() {
        let scene = scene(&[("a", NOW + 1, true)]);
        let released = |at| row(job(Some(launcher_id(at))), "");
        assert_eq!(kind(&released("/old"), &scene), Some(Kind::Elsewhere));
        assert_eq!(kind(&released("/s"), &scene), Some(Kind::NotHeld));
        let of_the_dead = row(job(Some(launcher_id("/old"))), "gone");
        let finding = stuck(&of_the_dead, &scene).unwrap();
        assert_eq!(finding.kind, Kind::NotHeld, "it can be given back");
        assert!(matches!(finding.remedy, Remedy::GiveBack(..)));
    }

    #[test]
    fn an_attempt_waits_too_long_unless_its_place_is_busy() {
        let mut scene = scene(&[("a", NOW + 1, true)]);
        let row = row(job(Some(launcher_id("/s"))), "a");
        assert_eq!(kind(&row, &scene), Some(Kind::Waiting));
        scene.busy.push(launcher_id("/s"));
        assert_eq!(kind(&row, &scene), None);
    }

    #[test]
    fn a_job_that_ended_is_not_stuck() {
        let ended = Surveyed { ended_ms: Some(5), ..row(job(None), "") };
        assert_eq!(kind(&ended, &scene(&[])), None);
    }

    #[test]
    fn a_log_is_missed_once_a_job_has_ended_unless_its_document_was_damaged() {
        let live = row(job(Some(launcher_id("/s"))), "a");
        assert!(!should_have_log(&live));
        let ended = Surveyed { ended_ms: Some(5), ..row(job(None), "") };
        assert!(should_have_log(&ended));
        assert!(!should_have_log(&Surveyed { was_buried: true, ..ended }));
    }

    #[test]
    fn a_document_is_ended_only_where_this_version_may() {
        let with = |document| Surveyed { document, ..row(job(None), "a") };
        assert_eq!(document(&row(job(None), "a")), None);
        let damaged = with(SurveyedDocument::Damaged("no JSON".to_owned()));
        let id = damaged.id.clone().unwrap();
        assert_eq!(document(&damaged).unwrap().remedy, Remedy::EndJob(id));
        let newer = document(&with(SurveyedDocument::Newer { version: 9, known: 2 })).unwrap();
        assert_eq!((newer.kind, newer.remedy), (Kind::NewerDocument, Remedy::None));
        let nameless = Surveyed { id: None, ..damaged };
        assert_eq!(document(&nameless).unwrap().remedy, Remedy::None);
    }

    #[test]
    fn a_run_folder_is_left_alone_while_an_agent_runs_in_it() {
        let id = JobId::generate();
        let remedy = |agent| orphan_run_folder(&id, Path::new("/s/run"), agent, None).remedy;
        assert_eq!(remedy(Agent::Gone), Remedy::SetRunFolderAside(id.clone()));
        assert_eq!((remedy(Agent::Runs(Some(7))), remedy(Agent::Runs(None))), (Remedy::None, Remedy::None));
    }
}
