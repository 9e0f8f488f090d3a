//! The state folder, for a process that is not a server.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{anyhow, bail};
use sqlflow_job::LauncherId;
use sqlflow_job_store::{Survey, SurveyError};
use sqlflow_os::clock;
use sqlflow_result_log::{LogOptions, Maintenance};

use sqlflow_launcher::{LocalLauncher, RunFolders};

/// Folder for what belongs to no job.
const LOST_AND_FOUND: &str = "lost+found";

/// An existing state folder.
#[derive(Debug, Clone)]
pub(super) struct State {
    dir: PathBuf,
    owner: u32,
}

impl State {
    /// Finds the folder. Creates nothing.
    pub(super) fn find(dir: &Path) -> anyhow::Result<Self> {
        let cannot = |why: String| anyhow!("cannot read the state folder {}: {why}", dir.display());
        let found = fs::canonicalize(dir).and_then(|dir| fs::metadata(&dir).map(|metadata| (dir, metadata)));
        let (dir, metadata) = found.map_err(|error| cannot(cause(&error)))?;
        // This also shows whether this user may read it.
        fs::read_dir(&dir).map_err(|error| cannot(cause(&error)))?;
        Ok(Self { dir, owner: metadata.uid() })
    }

    /// Opens its database for reading.
    pub(super) fn survey(&self) -> anyhow::Result<Survey> {
        let path = self.database();
        let error = match Survey::open(&path) {
            Ok(survey) => return Ok(survey),
            Err(SurveyError::Store(error)) => {
                return Err(anyhow::Error::new(error).context(format!("cannot read {}", path.display())));
            }
            Err(error @ SurveyError::Unseen { .. }) => return Err(error.into()),
            Err(error) => error,
        };
        let fix = match &error {
            SurveyError::Missing(_) | SurveyError::Foreign(_) => "name a server's folder with --state-dir",
            SurveyError::Newer { .. } => "use the doctor of the server that made it",
            SurveyError::Older { .. }
            | SurveyError::Other { .. }
            | SurveyError::InUse { .. }
            | SurveyError::Unseen { .. }
            | SurveyError::Store(_) => {
                "use the doctor of that server, or start this version's server on it first"
            }
        };
        bail!("cannot read the state folder {}: {error}; {fix}", self.dir.display())
    }

    /// Refuses a user whose files the server could not use.
    pub(super) fn may_repair(&self, user: u32) -> anyhow::Result<()> {
        if user == self.owner {
            return Ok(());
        }
        bail!(
            "cannot repair the state folder {}: it belongs to user {}, and files made by user {user} would be of no use \
             to the server; run it as that user, such as with `sudo -u '#{}'`",
            self.dir.display(),
            self.owner,
            self.owner
        )
    }

    pub(super) fn database(&self) -> PathBuf {
        self.dir.join("state.db")
    }

    /// Locks of servers.
    pub(super) fn servers(&self) -> PathBuf {
        self.dir.join("servers")
    }

    pub(super) fn logs(&self) -> Maintenance {
        Maintenance::of(&self.log_options().dir)
    }

    /// For logs that are read and repaired as by a server; nothing is appended to them.
    pub(super) fn log_options(&self) -> LogOptions {
        LogOptions {
            dir: self.dir.join("log"),
            segment_bytes: u64::MAX,
            retain_output_bytes_per_job: u64::MAX,
            max_bytes_per_job: u64::MAX,
            opened_micros: clock::now_micros(),
            fsync: true,
        }
    }

    pub(super) fn run_folders(&self) -> RunFolders {
        RunFolders::of(&self.dir.join("run"))
    }

    /// Launcher id of a server with the local launcher.
    pub(super) fn launcher_id(&self) -> LauncherId {
        LocalLauncher::launcher_id_of(&self.dir)
    }

    pub(super) fn lost_and_found(&self) -> PathBuf {
        self.dir.join(LOST_AND_FOUND)
    }

    /// The folder for what is moved to lost+found of this kind, `log` or `run`. Created if missing.
    pub(super) fn make_lost_and_found(&self, kind: &str) -> io::Result<PathBuf> {
        let folder = self.lost_and_found().join(kind);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(folder)
    }
}

/// Time of the last change of the file or folder, in milliseconds since the Unix epoch.
pub(super) fn modified_ms(path: &Path) -> Option<i64> {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
    i64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is none; name the server's with --state-dir".to_owned(),
        io::ErrorKind::PermissionDenied => format!("{error}; run it as the server's user"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_user_may_check_but_not_repair() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::find(dir.path()).unwrap();
        assert!(state.may_repair(state.owner).is_ok());
        let error = state.may_repair(state.owner + 1).unwrap_err().to_string();
        assert!(error.contains(&format!("sudo -u '#{}'", state.owner)), "{error}");
    }

    #[test]
    fn folder_without_state_is_refused_and_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert!(State::find(&missing).err().unwrap().to_string().contains("--state-dir"));
        assert!(!missing.exists());

        let open = || State::find(dir.path()).unwrap().survey().err().unwrap().to_string();
        assert!(open().contains("does not exist"), "{}", open());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(dir.path().join("state.db"), "no database, but long enough to be taken for one".repeat(20))
            .unwrap();
        assert!(open().contains("is not the database of a server"), "{}", open());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
