//! Findings of the doctor, as text and JSON. Pure.

use serde::Serialize;
use sqlflow_job::JobId;
use sqlflow_text::escape::escaped;

use sqlflow_job_store::Lease;

/// Kinds of findings. Their names are part of the interface: scripts use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// SQLite reports that `state.db` is damaged.
    DamagedDatabase,
    /// A job's document cannot be read.
    DamagedDocument,
    /// A newer server wrote a job's document.
    NewerDocument,
    /// Records of a log cannot be read.
    DamagedLog,
    /// All records of a job are lost.
    MissingLog,
    /// A log of an unknown job.
    OrphanLog,
    /// A log whose deletion was interrupted, and that no server will delete.
    HalfRemovedLog,
    /// A live job's data source is encrypted with another key, or damaged.
    UnreadableSecret,
    /// Something cannot be read.
    Unreadable,
    /// A live job without a server.
    NotHeld,
    /// A live job whose attempt no server of this state folder can observe.
    Elsewhere,
    /// An attempt that should have started long ago.
    Waiting,
    /// Run folders of an unknown job.
    OrphanRunFolder,
    /// Damaged files that repairs kept.
    KeptAside,
    /// Files and folders that repairs moved to lost+found.
    LostAndFound,
}

impl Kind {
    /// Whether it is a problem or a note.
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
            | Self::UnreadableSecret
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
            Self::UnreadableSecret => "unreadable-secret",
            Self::NotHeld => "not-held",
            Self::Elsewhere => "elsewhere",
            Self::Waiting => "waiting",
            Self::OrphanRunFolder => "orphan-run-folder",
            Self::KeptAside => "kept-aside",
            Self::LostAndFound => "lost-and-found",
        }
    }
}

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Level {
    /// Something is wrong.
    Problem,
    /// Nothing is wrong, and nothing must be done.
    Note,
}

/// What `--repair` does about a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing: it must be fixed by hand.
    None,
    /// Ends the job as FAILED.
    EndJob(JobId),
    /// Releases the job, if this is still its lease.
    GiveBack(JobId, Lease),
    /// Writes gap records where records of the job's log are lost.
    RepairLog(JobId),
    /// Moves a log from the database to a folder, and repairs it there.
    RepairSmallLog(JobId),
    /// Moves the log in this folder to lost+found.
    SetLogAside(std::path::PathBuf),
    /// Deletes the rest of this folder.
    FinishDeletion(std::path::PathBuf),
    /// Moves the job's run folder to lost+found.
    SetRunFolderAside(JobId),
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    /// The id of the job, as text.
    pub(super) job: Option<String>,
    /// What is wrong.
    pub(super) what: String,
    /// Since when, if known; milliseconds since the Unix epoch.
    pub(super) since_ms: Option<i64>,
    /// What to do about it.
    pub(super) fix: String,
    pub(super) remedy: Remedy,
}

/// Result of a remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Done {
    /// Whether the finding is resolved.
    pub(super) repaired: bool,
    /// What was done, or why nothing was.
    pub(super) what: String,
}

impl Finding {
    /// The finding as one line of text.
    pub(super) fn to_text(&self) -> String {
        let job = self.job.as_deref().unwrap_or("-");
        let since = self.since().map_or_else(String::new, |since| format!("since {since}: "));
        let line = format!("{:<18}{:<28}{since}{}; {}", self.kind.name(), job, self.what, self.fix);
        escaped(&line)
    }

    /// The finding as a JSON object, with the result of its remedy.
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
    /// The result as one line of text.
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
    fn text_line_contains_kind_job_time_fault_and_fix() {
        assert_eq!(
            finding().to_text(),
            "damaged-log       06fhx7k1                    since 2023-11-14T22:13:20Z: byte 7: a checksum\\ndoes not match; run with --repair"
        );
        let unknown = Finding { job: None, since_ms: None, ..finding() };
        assert!(!unknown.to_text().contains("since"), "{}", unknown.to_text());
    }

    #[test]
    fn json_line_contains_the_finding_and_the_repair() {
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
