//! What the doctor finds, and how it is written down: pure.

use serde::Serialize;
use sqlflow_job::JobId;
use sqlflow_text::escape::escaped;

use sqlflow_job_store::Lease;

/// Kinds of findings. Their names are part of the interface: scripts look for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// SQLite says that `state.db` is damaged.
    DamagedDatabase,
    /// A job's document cannot be read.
    DamagedDocument,
    /// A newer server wrote a job's document.
    NewerDocument,
    /// Records of a log cannot be read.
    DamagedLog,
    /// A job's records are gone, all of them.
    MissingLog,
    /// A log of no job.
    OrphanLog,
    /// A log whose deletion was broken off, and that nobody will delete.
    HalfRemovedLog,
    /// Something cannot be looked at.
    Unreadable,
    /// A live job that no server holds.
    NotHeld,
    /// A live job whose attempt no server of this state folder can ask after.
    Elsewhere,
    /// An attempt that should have begun long ago.
    Waiting,
    /// Run folders of no job.
    OrphanRunFolder,
    /// Damaged files that repairs kept.
    KeptAside,
    /// What repairs set aside.
    LostAndFound,
}

impl Kind {
    /// Whether something is wrong, or a person may only want to know.
    pub(super) fn level(self) -> Level {
        match self {
            Self::KeptAside | Self::LostAndFound => Level::Note,
            Self::DamagedDatabase
            | Self::DamagedDocument
            | Self::NewerDocument
            | Self::DamagedLog
            | Self::MissingLog
            | Self::OrphanLog
            | Self::HalfRemovedLog
            | Self::Unreadable
            | Self::NotHeld
            | Self::Elsewhere
            | Self::Waiting
            | Self::OrphanRunFolder => Level::Problem,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::DamagedDatabase => "damaged-database",
            Self::DamagedDocument => "damaged-document",
            Self::NewerDocument => "newer-document",
            Self::DamagedLog => "damaged-log",
            Self::MissingLog => "missing-log",
            Self::OrphanLog => "orphan-log",
            Self::HalfRemovedLog => "half-removed-log",
            Self::Unreadable => "unreadable",
            Self::NotHeld => "not-held",
            Self::Elsewhere => "elsewhere",
            Self::Waiting => "waiting",
            Self::OrphanRunFolder => "orphan-run-folder",
            Self::KeptAside => "kept-aside",
            Self::LostAndFound => "lost-and-found",
        }
    }
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Level {
    /// Something is wrong.
    Problem,
    /// Nothing is wrong, and there is nothing that must be done.
    Note,
}

/// What `--repair` does about a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing: a person must.
    None,
    /// Ends the job as FAILED.
    EndJob(JobId),
    /// Gives the job back, if this is still its lease.
    GiveBack(JobId, Lease),
    /// Puts gap records where records of the job's log are lost.
    RepairLog(JobId),
    /// Move a log out of the database into a folder, and repair it there.
    RepairSmallLog(JobId),
    /// Sets the log in this folder aside.
    SetLogAside(std::path::PathBuf),
    /// Deletes what is left in this folder.
    FinishRemoval(std::path::PathBuf),
    /// Sets the job's run folder aside.
    SetRunFolderAside(JobId),
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    /// The job that it is about, as its id is written.
    pub(super) job: Option<String>,
    /// What is wrong.
    pub(super) what: String,
    /// Since when, as far as that is known; milliseconds since the Unix epoch.
    pub(super) since_ms: Option<i64>,
    /// What can be done.
    pub(super) fix: String,
    pub(super) remedy: Remedy,
}

/// What a remedy came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Done {
    /// Whether the finding is done with.
    pub(super) repaired: bool,
    /// What was done, or why nothing could be.
    pub(super) what: String,
}

impl Finding {
    /// The finding in one line for a person.
    pub(super) fn to_text(&self) -> String {
        let job = self.job.as_deref().unwrap_or("-");
        let since = self.since().map_or_else(String::new, |since| format!("since {since}: "));
        let line = format!("{:<18}{:<28}{since}{}; {}", self.kind.name(), job, self.what, self.fix);
        escaped(&line)
    }

    /// The finding as a JSON object, with what was done about it.
    pub(super) fn to_json(&self, done: Option<&Done>) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            kind: &'a str,
            level: Level,
            job: Option<&'a str>,
            since: Option<String>,
            what: &'a str,
            fix: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            repair: Option<&'a Done>,
        }
        let line = Line {
            kind: self.kind.name(),
            level: self.kind.level(),
            job: self.job.as_deref(),
            since: self.since(),
            what: &self.what,
            fix: &self.fix,
            repair: done,
        };
        serde_json::to_string(&line).expect("plain data always serializes")
    }

    fn since(&self) -> Option<String> {
        jiff::Timestamp::from_second(self.since_ms?.div_euclid(1000)).ok().map(|time| time.to_string())
    }
}

impl Done {
    /// What was done, in one line for a person.
    pub(super) fn to_text(&self) -> String {
        let word = if self.repaired { "repaired" } else { "not repaired" };
        escaped(&format!("  {word}: {}", self.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding() -> Finding {
        Finding {
            kind: Kind::DamagedLog,
            job: Some("06fhx7k1".to_owned()),
            what: "byte 7: a checksum\ndoes not match".to_owned(),
            since_ms: Some(1_700_000_000_123),
            fix: "run with --repair".to_owned(),
            remedy: Remedy::None,
        }
    }

    #[test]
    fn a_line_names_kind_job_time_fault_and_fix() {
        assert_eq!(
            finding().to_text(),
            "damaged-log       06fhx7k1                    since 2023-11-14T22:13:20Z: byte 7: a checksum\\ndoes not match; run with --repair"
        );
        let unknown = Finding { job: None, since_ms: None, ..finding() };
        assert!(!unknown.to_text().contains("since"), "{}", unknown.to_text());
    }

    #[test]
    fn json_has_the_same_and_the_repair() {
        let done = Done { repaired: true, what: "gap".to_owned() };
        let line: serde_json::Value = serde_json::from_str(&finding().to_json(Some(&done))).unwrap();
        assert_eq!(line["kind"], finding().kind.name());
        assert_eq!(line["level"], "problem");
        assert_eq!(line["job"], "06fhx7k1");
        assert_eq!(line["since"], "2023-11-14T22:13:20Z");
        assert_eq!(line["repair"]["repaired"], true);
        assert!(!finding().to_json(None).contains("repair\":"));
    }
}
