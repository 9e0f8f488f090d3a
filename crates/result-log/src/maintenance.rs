//! Logs for an operator's tool: list, check, repair and set aside folders, one at a time. Nothing is kept in memory
//! between calls. Changes take the log's lock, with the same timeout as servers.
//!
//! All methods block.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sqlflow_job::JobId;

use super::LogError;
use super::file_io::Disk;
use super::folder::{Folder, read_dir_if_there};
use super::inspect::{Extent, parts};
use super::inspect::{Health, inspect};
use super::lock::{JobLock, Tried};
use super::log_state::LogState;
use super::move_to_folder::MOVING;
use super::repair::{commit_end_of_kept, fill_holes, repair_file};

/// Extension of a job's folder during its deletion.
const REMOVED: &str = "removed";

/// The logs below one folder, which may not exist.
#[derive(Debug, Clone)]
pub struct Maintenance {
    dir: PathBuf,
    disk: Disk,
}

/// An entry of the folder of logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A job's log.
    Log {
        /// The job.
        job: JobId,
        /// Its folder.
        path: PathBuf,
        /// Whether servers look for it there.
        is_in_place: bool,
    },
    /// Remainder of an interrupted deletion, or of an interrupted move to a folder.
    HalfRemoved(PathBuf),
}

/// A file beside the segments of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// Result of moving a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// Its new path.
    To(PathBuf),
    /// There is no log.
    Missing,
}

impl Maintenance {
    /// The logs below this folder.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), disk: Disk::new(true) }
    }

    /// The folder of a job's log, which may not exist.
    #[must_use]
    pub fn path(&self, job: &JobId) -> PathBuf {
        self.folder(job).path
    }

    /// The shards: the folders that contain the folders of logs.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn shards(&self) -> Result<Vec<PathBuf>, LogError> {
        let mut shards = Vec::new();
        for shard in read_dir_if_there(&self.dir)? {
            let shard = shard.map_err(LogError::io("list", &self.dir))?.path();
            if shard.is_dir() {
                shards.push(shard);
            }
        }
        shards.sort();
        Ok(shards)
    }

    /// The entries of a shard.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn entries(&self, shard: &Path) -> Result<Vec<Found>, LogError> {
        let mut entries = Vec::new();
        for entry in read_dir_if_there(shard)? {
            let path = entry.map_err(LogError::io("list", shard))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Ok(job) = name.parse::<JobId>() {
                let is_in_place = self.path(&job) == path;
                entries.push(Found::Log { job, path, is_in_place });
            } else if path.extension().is_some_and(|it| it == REMOVED || it == MOVING) {
                entries.push(Found::HalfRemoved(path));
            }
        }
        Ok(entries)
    }

    /// Checks a log without its lock. `goes_on` is called before each file; `None`: it returned false.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn inspect(&self, job: &JobId, goes_on: &dyn Fn() -> bool) -> Result<Option<Health>, LogError> {
        inspect(&self.folder(job), goes_on)
    }

    /// The damaged files that repairs kept beside a job's log.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn kept_aside(&self, job: &JobId) -> Result<Vec<Aside>, LogError> {
        let folder = self.folder(job).path;
        let mut found = Vec::new();
        for entry in read_dir_if_there(&folder)? {
            let entry = entry.map_err(LogError::io("list", &folder))?;
            let path = entry.path();
            if path.extension().is_some_and(|it| it == "damaged")
                && let Ok(metadata) = entry.metadata()
            {
                found.push(Aside { path, bytes: metadata.len() });
            }
        }
        Ok(found)
    }

    /// Repairs a log, under its lock. Readable records stay, gap records stand for the others, and damaged files are
    /// kept beside the log. Returns the health of the repaired log.
    ///
    /// # Errors
    /// Its lock is held for too long, or a file cannot be read or written.
    pub fn repair(&self, job: &JobId) -> Result<Health, LogError> {
        let folder = self.folder(job);
        let Some(held) = wait_for_lock(&folder)? else { return Ok(Health::Missing) };
        repair_all(&folder, &held)?;
        Ok(inspect(&folder, &|| true)?.unwrap_or(Health::Missing))
    }

    /// Moves a log into the folder `to`, under its lock.
    ///
    /// # Errors
    /// Its lock is held for too long, or it cannot be moved.
    pub fn set_aside(&self, log: &Path, to: &Path) -> Result<Moved, LogError> {
        let folder = Folder { path: log.to_owned(), created_micros: 0, disk: self.disk.clone() };
        let Some(_held) = wait_for_lock(&folder)? else { return Ok(Moved::Missing) };
        let free = free_name(to, log);
        match fs::rename(log, &free) {
            Ok(()) => Ok(Moved::To(free)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !log.exists() => Ok(Moved::Missing),
            Err(error) => Err(LogError::io("move", log)(error)),
        }
    }

    /// Deletes a log, under its lock.
    ///
    /// # Errors
    /// Its lock is held for too long, or it cannot be deleted.
    pub fn delete(&self, log: &Path) -> Result<(), LogError> {
        let folder = Folder { path: log.to_owned(), created_micros: 0, disk: self.disk.clone() };
        match wait_for_lock(&folder)? {
            Some(_held) => folder.remove(),
            None => Ok(()),
        }
    }

    #[cfg(test)]
    pub(super) fn fail_syncs(&self, count: u32) {
        self.disk.syncs_to_fail.store(count, std::sync::atomic::Ordering::SeqCst);
    }

    fn folder(&self, job: &JobId) -> Folder {
        Folder::of(&self.dir, job, self.disk.clone())
    }
}

/// Repairs the whole log. Without damage it only sets a missing committed offset.
fn repair_all(folder: &Folder, held: &JobLock) -> Result<(), LogError> {
    if held.committed()?.is_none() {
        commit_end_of_kept(folder, held)?;
    }
    let mut view = None;
    LogState::catch_up(&mut view, folder, held)?;
    fill_holes(folder, held)?;
    for part in parts(folder, held.committed()?)? {
        match part.extent {
            Extent::Whole(_) => repair_file(folder, held, &folder.file(part.name))?,
            Extent::Tail(_) | Extent::Open | Extent::Missing(_) => {}
        }
    }
    Ok(())
}

/// An unused path in the folder `to`, with the name of `path` or a number after it.
#[must_use]
pub fn free_name(to: &Path, path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let numbered = (1_u32..).map(|number| {
        let mut name = name.to_owned();
        name.push(format!("-{number}"));
        to.join(name)
    });
    std::iter::once(to.join(name))
        .chain(numbered)
        .find(|free| !free.exists())
        .unwrap_or_else(|| to.join(name))
}

/// Waits for the log's lock; `None`: there is no log.
fn wait_for_lock(folder: &Folder) -> Result<Option<JobLock>, LogError> {
    let mut tried = JobLock::try_if_there(folder)?;
    loop {
        let mut waiting = match tried {
            Tried::Held(held) => return Ok(Some(held)),
            Tried::NoFolder => return Ok(None),
            Tried::Busy(waiting) => waiting,
        };
        if waiting.was_long_enough() {
            return Err(waiting.busy());
        }
        std::thread::sleep(waiting.next_pause());
        tried = match waiting.try_again()? {
            Some(tried) => tried,
            None => JobLock::try_if_there(folder)?,
        };
    }
}
