//! Findings about documents, logs and run folders, derived from what was read. Pure.

use std::path::{Path, PathBuf};

use sqlflow_job::{Attempt, JobId, Phase};
use sqlflow_job_store::{StoreError, Surveyed, SurveyedDocument};
use sqlflow_launcher::Agent;
use sqlflow_result_log::{Aside, Damage};

use super::finding::{Finding, Kind, Remedy};

pub(super) const NEEDS_REPAIR: &str = "run with --repair";

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
            fix: "servers ignore it, and it cannot be repaired: restore state.db from a backup".to_owned(),
            remedy: Remedy::None,
        }),
        (SurveyedDocument::Damaged(why), Some(id)) => Some(Finding {
            kind: Kind::DamagedDocument,
            job,
            what: format!("its document in state.db cannot be read ({why})"),
            since_ms,
            fix: match row.ended_ms {
                None => format!("{NEEDS_REPAIR}, which ends the job as FAILED and keeps its log"),
                Some(_) => format!("{NEEDS_REPAIR}, which keeps its outcome and its log"),
            },
            remedy: Remedy::EndJob(id.clone()),
        }),
        (SurveyedDocument::Newer { version, known }, Some(_)) => Some(Finding {
            kind: Kind::NewerDocument,
            job,
            what: format!(
                "its document has version {version}, and this program supports versions up to {known}"
            ),
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
        fix: "check that the server's user owns it, and that the disk has no errors".to_owned(),
        remedy: Remedy::None,
    }
}

/// The data source of a live job that cannot be decrypted.
pub(super) fn unreadable_secret(job: &JobId, error: &StoreError) -> Finding {
    let fix = match error {
        StoreError::OtherKey { .. } => "give that key to the server by --secrets-key-old",
        _ => "cancel the job and run its program again",
    };
    Finding {
        kind: Kind::UnreadableSecret,
        job: Some(job.to_string()),
        what: match error {
            StoreError::OtherKey { key, .. } => {
                format!("its data source is encrypted with the key {key}, which was not given")
            }
            _ => "its data source was changed since it was encrypted".to_owned(),
        },
        since_ms: None,
        fix: fix.to_owned(),
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
        what: format!("it has no log: state.db has none, and {} does not exist", folder.display()),
        since_ms: Some(row.ended_ms.unwrap_or(row.created_ms)),
        fix: "its records are lost: restore that folder from a backup while no server runs, or leave it to --retain-jobs"
            .to_owned(),
        remedy: Remedy::None,
    }
}

/// A log without a job.
pub(super) fn orphan_log(job: &JobId, folder: PathBuf, is_in_place: bool, since_ms: Option<i64>) -> Finding {
    let what = match is_in_place {
        true => format!("{} is the log of a job that state.db does not know", folder.display()),
        false => format!("{} is a log in a folder that no server reads", folder.display()),
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
            "{} is the rest of a log whose deletion, or move to a folder, was interrupted",
            folder.display()
        ),
        since_ms,
        fix: format!("{NEEDS_REPAIR}, which deletes the rest"),
        remedy: Remedy::FinishDeletion(folder),
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
        fix: "they are deleted with the job's log; delete them earlier if they are not needed".to_owned(),
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
            format!(
                "its agent, process {process}, ends by itself once it reaches a server; then run the doctor again"
            ),
            Remedy::None,
        ),
        Agent::Runs(None) => (
            "its agent still runs, in another container; end that, then run the doctor again".to_owned(),
            Remedy::None,
        ),
    };
    Finding { kind: Kind::OrphanRunFolder, job: Some(job.to_string()), what, since_ms, fix, remedy }
}
#[cfg(test)]
mod tests {
    use sqlflow_job::{LauncherId, LauncherKind};

    use super::super::stuck::tests::{job, row};
    use super::*;

    #[test]
    fn ended_job_must_have_a_log_unless_its_document_was_damaged() {
        let live = row(job(Some(LauncherId { kind: LauncherKind::Local, scope: Some("/s".into()) })), "a");
        assert!(!should_have_log(&live));
        let ended = Surveyed { ended_ms: Some(5), ..row(job(None), "") };
        assert!(should_have_log(&ended));
        assert!(!should_have_log(&Surveyed { was_buried: true, ..ended }));
    }

    #[test]
    fn only_damaged_documents_of_this_version_are_ended() {
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
    fn run_folder_with_a_running_agent_is_left_alone() {
        let id = JobId::generate();
        let remedy = |agent| orphan_run_folder(&id, Path::new("/s/run"), agent, None).remedy;
        assert_eq!(remedy(Agent::Gone), Remedy::SetRunFolderAside(id.clone()));
        assert_eq!((remedy(Agent::Runs(Some(7))), remedy(Agent::Runs(None))), (Remedy::None, Remedy::None));
    }
}
