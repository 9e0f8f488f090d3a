//! Run folders for operators' tools: which jobs have one, and whether an agent runs there.

use std::io;
use std::path::{Path, PathBuf};

use sqlflow_job::{ExecutorRef, JobId};

use super::lock::{Holder, holder};
use super::processes;
use super::run_folder::{self, attempts_of};

/// The run folders below one folder, which need not exist.
#[derive(Debug, Clone)]
pub struct RunFolders {
    dir: PathBuf,
}

/// Whether agents of a job run on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    /// No agent runs.
    Gone,
    /// An agent runs, with this process id if it has one here.
    Runs(Option<i32>),
}

impl RunFolders {
    /// Opens the run folders below this folder.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The jobs that have a folder, unordered.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn jobs(&self) -> io::Result<Vec<JobId>> {
        run_folder::jobs_in(&self.dir)
    }

    /// The job's folder.
    #[must_use]
    pub fn path(&self, job: &JobId) -> PathBuf {
        self.dir.join(job.as_str())
    }

    /// Whether an agent of the job runs.
    ///
    /// # Errors
    /// The job's folder cannot be listed, or a lock cannot be queried.
    pub fn agent(&self, job: &JobId) -> io::Result<Agent> {
        for attempt in attempts_of(job, &self.path(job))? {
            let dir = run_folder::of(&self.dir, &ExecutorRef::of_attempt(&attempt));
            match holder(&dir.join("lock"))? {
                Holder::Nobody => {}
                Holder::Process(pid) => return Ok(Agent::Runs(Some(pid))),
                Holder::Unseen => return Ok(Agent::Runs(None)),
            }
        }
        Ok(Agent::Gone)
    }

    /// Ends processes that the job's dead agents left.
    ///
    /// # Errors
    /// Some processes may still run.
    pub fn end_processes(&self, job: &JobId) -> io::Result<()> {
        for attempt in attempts_of(job, &self.path(job))? {
            processes::kill_marked(&attempt.to_string())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_folder_is_an_error_not_an_absent_agent() {
        let dir = tempfile::tempdir().unwrap();
        let (runs, job) = (RunFolders::of(dir.path()), JobId::generate());
        assert_eq!(runs.agent(&job).unwrap(), Agent::Gone, "there is no folder");
        // Listing it fails with ENOTDIR.
        std::fs::write(runs.path(&job), "").unwrap();
        assert!(runs.agent(&job).is_err() && runs.end_processes(&job).is_err());
    }
}
