//! The folder of a job's log, and its file names.
//!
//! ```text
//! <dir>/<last two characters of the job id>/<job id>/
//!     lock                        see the module `lock`
//!     <first>.log                 a segment; the last one is the tail, which gets new records
//!     <first>-<last>.kept         the records from first to last that retention or a repair kept
//!     kept.tmp                    a .kept file during its creation
//! ```
//!
//! Positions have 20 digits, so that names sort by position. The last characters of a job id are random, so 1,024
//! shards share the jobs evenly. A `.kept` file replaces all files that begin in its range. It is renamed when it is
//! complete, and then those files are removed. Readers that find both ignore the replaced files.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sqlflow_job::JobId;
use sqlflow_os::clock;

use super::LogError;
use super::file_io::{self, Disk};

/// Name of a file with records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentName {
    /// First position that may be in the file.
    pub(super) first: u64,
    /// Last position that the file stands for, if retention or a repair wrote it.
    pub(super) kept_to: Option<u64>,
}

impl SegmentName {
    pub(super) fn live(first: u64) -> Self {
        Self { first, kept_to: None }
    }

    pub(super) fn file_name(self) -> String {
        match self.kept_to {
            None => format!("{:020}.log", self.first),
            Some(last) => format!("{:020}-{last:020}.kept", self.first),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let segment = match name.strip_suffix(".log") {
            Some(first) => Self::live(first.parse().ok()?),
            None => {
                let (first, last) = name.strip_suffix(".kept")?.split_once('-')?;
                Self { first: first.parse().ok()?, kept_to: Some(last.parse().ok()?) }
            }
        };
        // Accept only names that this module creates.
        (segment.file_name() == name).then_some(segment)
    }
}

/// The files of a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// In order of positions.
    pub(super) segments: Vec<SegmentName>,
    /// Files that a `.kept` file replaces.
    pub(super) replaced: Vec<SegmentName>,
}

impl Listing {
    fn of(mut names: Vec<SegmentName>) -> Self {
        // Of files with the same first position, the one with the largest range comes first.
        names.sort_by_key(|name| (name.first, std::cmp::Reverse(name.kept_to)));
        let mut listing = Self::default();
        let mut covered = 0;
        for name in names {
            if name.first <= covered {
                listing.replaced.push(name);
            } else {
                covered = name.kept_to.unwrap_or(name.first);
                listing.segments.push(name);
            }
        }
        listing
    }
}

/// The folder of one job's log, which may not exist.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// Creation time of the job, in microseconds since the Unix epoch.
    pub(super) created_micros: i64,
    pub(super) disk: Disk,
}

impl Folder {
    pub(super) fn of(dir: &Path, job: &JobId, disk: Disk) -> Self {
        let id = job.as_str();
        let shard = id.get(id.len() - 2..).expect("a job id is 26 ASCII digits");
        let created_micros = job.created_ms().saturating_mul(1000);
        Self { path: dir.join(shard).join(id), created_micros, disk }
    }

    /// Writes a file atomically. Its caller holds the log's lock, so one temporary name is enough.
    pub(super) fn install(&self, name: SegmentName, bytes: &[u8]) -> Result<(), LogError> {
        let unfinished = self.path.join("kept.tmp");
        let created = file_io::options().write(true).create(true).truncate(true).open(&unfinished);
        let mut file = created.map_err(LogError::io("create", &unfinished))?;
        let written = file.write_all(bytes).map_err(LogError::io("write", &unfinished));
        if let Err(error) = written.and_then(|()| self.disk.sync_file(&file, &unfinished)) {
            // It uses space, which may be what is missing.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        fs::rename(&unfinished, self.file(name)).map_err(LogError::io("rename", &unfinished))?;
        self.disk.sync_folder(&self.path)
    }

    /// The floor of a process that started at this time; see `reader_positions`.
    pub(super) fn floor(&self, begun_micros: i64) -> u64 {
        u64::try_from(begun_micros.saturating_sub(self.created_micros)).unwrap_or(0)
    }

    /// A floor above all positions that readers have seen.
    pub(super) fn floor_now(&self) -> u64 {
        self.floor(clock::now_micros())
    }

    pub(super) fn file(&self, name: SegmentName) -> PathBuf {
        self.path.join(name.file_name())
    }

    /// Bytes of all files of the log; 0 if there is no folder.
    pub(super) fn bytes(&self) -> Result<u64, LogError> {
        let mut sum = 0_u64;
        for entry in read_dir_if_there(&self.path)? {
            let entry = entry.map_err(LogError::io("list", &self.path))?;
            // Retention may remove it meanwhile.
            sum = sum.saturating_add(entry.metadata().map_or(0, |it| it.len()));
        }
        Ok(sum)
    }

    /// The files of the log; none if there is no folder.
    pub(super) fn list(&self) -> Result<Listing, LogError> {
        let mut names = Vec::new();
        for entry in read_dir_if_there(&self.path)? {
            let entry = entry.map_err(LogError::io("list", &self.path))?;
            names.extend(entry.file_name().to_str().and_then(SegmentName::parse));
        }
        Ok(Listing::of(names))
    }

    /// Makes the paths of the files in this folder durable: its own name, and those of its parents.
    pub(super) fn sync_path(&self) -> Result<(), LogError> {
        self.disk.sync_folder(&self.path)?;
        match self.path.parent() {
            Some(shard) => {
                self.disk.sync_folder(shard)?;
                // Shards are never removed, so one sync per process is enough.
                self.disk.sync_name_once(shard)
            }
            None => Ok(()),
        }
    }

    /// Removes the folder, atomically for other processes.
    pub(super) fn remove(&self) -> Result<(), LogError> {
        let removed = self.removed_path();
        // A rename cannot replace a folder that is not empty.
        self.sweep_removed()?;
        match fs::rename(&self.path, &removed) {
            // Otherwise a power failure could restore the log after its job is deleted.
            Ok(()) => self.path.parent().map_or(Ok(()), |shard| self.disk.sync_folder(shard))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(LogError::io("remove", &self.path)(error)),
        }
        self.sweep_removed()
    }

    /// Removes what an interrupted deletion left.
    pub(super) fn sweep_removed(&self) -> Result<(), LogError> {
        let removed = self.removed_path();
        match fs::remove_dir_all(&removed) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(LogError::io("remove", &removed)(error))
            }
            _ => Ok(()),
        }
    }

    fn removed_path(&self) -> PathBuf {
        self.path.with_extension("removed")
    }
}

/// The jobs with a folder below `dir`.
pub(super) fn jobs(dir: &Path) -> Result<Vec<JobId>, LogError> {
    let mut jobs = Vec::new();
    for shard in read_dir_if_there(dir)? {
        let shard = shard.map_err(LogError::io("list", dir))?.path();
        if !shard.is_dir() {
            continue;
        }
        for job in read_dir_if_there(&shard)? {
            let job = job.map_err(LogError::io("list", &shard))?.file_name();
            jobs.extend(job.to_str().and_then(|name| name.parse::<JobId>().ok()));
        }
    }
    Ok(jobs)
}

pub(super) fn read_dir_if_there(
    path: &Path,
) -> Result<impl Iterator<Item = io::Result<fs::DirEntry>> + use<>, LogError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => Some(entries),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(LogError::io("list", path)(error)),
    };
    Ok(entries.into_iter().flatten())
}

/// Opens a file for reading; returns its length. An unreadable file is damage.
pub(super) fn open(path: &Path) -> Result<(File, u64), LogError> {
    let file = file_io::open(path).map_err(LogError::reading("open", path, 0))?;
    let length = file.metadata().map_err(LogError::reading("check", path, 0))?.len();
    Ok((file, length))
}

/// Reads `length` bytes from `offset`, or fewer at the end of the file. Unreadable bytes are damage.
pub(super) fn read_at(file: &File, path: &Path, offset: u64, length: u64) -> Result<Bytes, LogError> {
    let length = usize::try_from(length).expect("a part of a segment fits in memory");
    let mut buffer = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file_io::read_at(file, &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(LogError::reading("read", path, offset + filled as u64)(error)),
        }
    }
    buffer.truncate(filled);
    Ok(buffer.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(first: u64, last: u64) -> SegmentName {
        SegmentName { first, kept_to: Some(last) }
    }

    #[test]
    fn names_round_trip_and_others_are_ignored() {
        for name in [SegmentName::live(1), kept(1, u64::MAX)] {
            assert_eq!(SegmentName::parse(&name.file_name()), Some(name));
        }
        for other in ["lock", "kept.tmp", "1.log", "00000000000000000001-2.kept", "+0000000000000000001.log"]
        {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn kept_file_replaces_all_in_its_range() {
        let listing = Listing::of(vec![
            SegmentName::live(1),
            kept(1, 10),
            SegmentName::live(11),
            kept(1, 20),
            SegmentName::live(21),
            SegmentName::live(30),
        ]);
        assert_eq!(listing.segments, [kept(1, 20), SegmentName::live(21), SegmentName::live(30)]);
        assert_eq!(listing.replaced, [kept(1, 10), SegmentName::live(1), SegmentName::live(11)]);
    }
}
