//! The state of a job's log in this process: its files, the end of their durable part, and their summary.
//!
//! Bounds: 24 bytes for each file, the summary, and the indexes of the tail and [`CACHED_INDEXES`] other files; below
//! 16 KiB for all but the longest logs. It may be dropped at any time.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::LogError;
use super::file_io;
use super::folder::{self, Folder, SegmentName};
use super::index::Index;
use super::lock::{CommittedOffset, JobLock, Peek, peek};
use super::partial_read::Contents;
use super::repair::{commit_end_of_kept, repair_end};
use super::salvage::last_good;
use super::scan::{Scan, note_frames, scan_tail, to_usize};
use super::summary::Summary;

/// Maximum number of indexes in memory, besides that of the tail.
const CACHED_INDEXES: usize = 4;

/// The state of a log at its committed offset.
#[derive(Debug, Default)]
pub(super) struct LogState {
    /// The committed offset; `None`: it is empty.
    pub(super) committed: Option<CommittedOffset>,
    /// The files, in order; the last one is the tail.
    pub(super) segments: Vec<SegmentName>,
    /// Summary of all records up to the committed offset.
    pub(super) summary: Summary,
    /// Index of the tail.
    pub(super) tail_index: Index,
    indexes: VecDeque<(SegmentName, Index)>,
}

/// Result of [`LogState::refresh`].
#[derive(Debug, PartialEq)]
pub(super) enum Refreshed {
    /// The state is that of the committed offset.
    Current,
    /// It can be found out only under the lock.
    NeedsLock,
}

impl LogState {
    /// Brings `slot` up to the committed offset, without the lock.
    pub(super) fn refresh(slot: &mut Option<Self>, folder: &Folder) -> Result<Refreshed, LogError> {
        let committed = match peek(folder)? {
            Peek::Missing => {
                *slot = Some(Self::default());
                return Ok(Refreshed::Current);
            }
            Peek::Unclear => return Ok(Refreshed::NeedsLock),
            Peek::Committed(committed) => committed,
        };
        // A committed offset that follows one that this process saw is not from before a power failure. Another one may
        // be too small.
        let is_current =
            slot.as_ref().is_some_and(|view| view.is_of(committed)) || is_complete(folder, committed)?;
        if !is_current {
            return Ok(Refreshed::NeedsLock);
        }
        match Self::follow(slot, folder, committed) {
            Ok(()) => Ok(Refreshed::Current),
            // A file may have been replaced, or the log deleted, at this moment. Under the lock nothing changes.
            Err(LogError::Corrupt { .. }) => Ok(Refreshed::NeedsLock),
            Err(error) if error.is_not_found() => Ok(Refreshed::NeedsLock),
            Err(error) => Err(error),
        }
    }

    /// The log at its committed offset, which may be too small; `None`: there is none. Do not keep it: it would be
    /// mistaken for a state that follows the committed offset.
    pub(super) fn of_old_offset(folder: &Folder) -> Result<Option<Self>, LogError> {
        let Peek::Committed(committed) = peek(folder)? else { return Ok(None) };
        match Self::load(folder, committed) {
            Ok(view) => Ok(Some(view)),
            Err(LogError::Corrupt { .. }) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Brings `slot` up to the end of the log, under the lock. Bytes after the committed offset are made durable, or
    /// truncated where they are torn: these were not acknowledged, unless a power failure undid the committed offset.
    pub(super) fn catch_up<'a>(
        slot: &'a mut Option<Self>,
        folder: &Folder,
        lock: &JobLock,
    ) -> Result<&'a mut Self, LogError> {
        let committed = lock.committed()?;
        match Self::try_catch_up(slot, folder, lock, committed) {
            Err(error @ LogError::Corrupt { .. }) => {
                tracing::error!(%error, "a result log is damaged");
                *slot = None;
                // The end of the log may have been found only now.
                if lock.committed()?.is_none() {
                    commit_end_of_kept(folder, lock)?;
                }
                let Some(committed) = lock.committed()? else { return Err(error) };
                repair_end(folder, lock, committed)?;
                Self::try_catch_up(slot, folder, lock, lock.committed()?)?;
            }
            caught_up => caught_up?,
        }
        Ok(slot.as_mut().expect("it was put there above"))
    }

    fn try_catch_up(
        slot: &mut Option<Self>,
        folder: &Folder,
        lock: &JobLock,
        committed: Option<CommittedOffset>,
    ) -> Result<(), LogError> {
        let known = slot.as_ref().and_then(|view| view.committed);
        match committed {
            Some(committed)
                if known.is_some_and(|known| known.birth == committed.birth)
                    && is_untouched(folder, committed)? =>
            {
                Self::follow(slot, folder, committed)
            }
            committed => {
                *slot = None;
                *slot = Some(Self::recover(folder, lock, committed)?);
                Ok(())
            }
        }
    }

    fn is_of(&self, committed: CommittedOffset) -> bool {
        self.committed.is_some_and(|known| known.birth == committed.birth)
    }

    /// Brings `slot` to the committed offset with as little reading as possible.
    fn follow(slot: &mut Option<Self>, folder: &Folder, committed: CommittedOffset) -> Result<(), LogError> {
        let known = slot.as_ref().and_then(|view| view.committed);
        if known == Some(committed) {
            return Ok(());
        }
        // Until this succeeds the state is unknown.
        let view = slot.take();
        let view = match (view, known) {
            (Some(view), Some(known))
                if known.birth == committed.birth
                    && known.segment == committed.segment
                    && known.length <= committed.length =>
            {
                view.read_on(folder, known.length, committed)?
            }
            _ => Self::load(folder, committed)?,
        };
        *slot = Some(view);
        Ok(())
    }

    /// Adds what another process appended to the tail.
    fn read_on(mut self, folder: &Folder, from: u64, committed: CommittedOffset) -> Result<Self, LogError> {
        let path = folder.file(SegmentName::live(committed.segment));
        let (file, _) = folder::open(&path)?;
        let part = folder::read_at(&file, &path, from, committed.length - from)?;
        let (good, bad) = note_frames(part, from, &mut self.summary, &mut self.tail_index);
        check_durable(&path, good, bad, committed.length)?;
        self.committed = Some(committed);
        Ok(self)
    }

    /// Reads the log as of `committed`: the names of all files, and the tail.
    fn load(folder: &Folder, committed: CommittedOffset) -> Result<Self, LogError> {
        let mut segments = folder.list()?.segments;
        segments.retain(|name| name.first <= committed.segment);
        let tail = SegmentName::live(committed.segment);
        let path = folder.file(tail);
        if segments.last() != Some(&tail) {
            return Err(LogError::corrupt(&path, 0, "the file is missing"));
        }
        let scan = Scan::of(Contents::read(&path)?, committed.length);
        check_durable(&path, scan.good, scan.bad, committed.length)?;
        Ok(Self::of(committed, segments, scan))
    }

    /// Finds the end of the log after any failure, and sets the committed offset to it.
    fn recover(
        folder: &Folder,
        lock: &JobLock,
        committed: Option<CommittedOffset>,
    ) -> Result<Self, LogError> {
        let mut segments = folder.list()?.segments;
        while let Some(tail) = segments.last().copied() {
            let path = folder.file(tail);
            if tail.kept_to.is_some() || committed.is_some_and(|committed| committed.segment > tail.first) {
                return Err(LogError::corrupt(&path, 0, "the file that follows it is missing"));
            }
            let durable = committed
                .filter(|committed| committed.segment == tail.first)
                .map_or(0, |committed| committed.length);
            let scan = scan_tail(&path)?;
            check_durable(&path, scan.good, scan.bad, durable)?;
            let known = scan.summary.last_position.max(tail.first - 1);
            let good = last_good(&scan.contents.bytes, to_usize(scan.good), known);
            if good.is_some() || scan.contents.unreadable.is_some() {
                // It is no torn write: later bytes are valid, so it was acknowledged; or unreadable bytes may have
                // been. The committed offset that covered it is lost, or older than a power failure.
                let (length, last_position) =
                    good.map_or((scan.good, known), |good| (good.end as u64, good.position));
                lock.set_committed(CommittedOffset {
                    birth: committed.map_or_else(rand::random, |committed| committed.birth),
                    segment: tail.first,
                    length,
                    last_position,
                })?;
                return Err(LogError::corrupt(&path, scan.good, scan.bad.unwrap_or("it is damaged")));
            }
            if scan.good == 0 {
                // The write that made it was torn.
                std::fs::remove_file(&path).map_err(LogError::io("remove", &path))?;
                segments.pop();
                continue;
            }
            if scan.bad.is_some() || scan.good > durable {
                complete(folder, &path, &scan, durable)?;
            }
            let committed = CommittedOffset {
                birth: committed.map_or_else(rand::random, |committed| committed.birth),
                segment: tail.first,
                length: scan.good,
                last_position: scan.summary.last_position,
            };
            lock.set_committed(committed)?;
            return Ok(Self::of(committed, segments, scan));
        }
        match committed {
            None => Ok(Self::default()),
            Some(committed) => {
                let path = folder.file(SegmentName::live(committed.segment));
                Err(LogError::corrupt(&path, 0, "the file is missing"))
            }
        }
    }

    fn of(committed: CommittedOffset, segments: Vec<SegmentName>, scan: Scan) -> Self {
        let Scan { summary, index, .. } = scan;
        Self { committed: Some(committed), segments, summary, tail_index: index, indexes: VecDeque::new() }
    }

    /// Makes another file the tail.
    pub(super) fn begin_segment(&mut self, name: SegmentName) {
        let index = std::mem::take(&mut self.tail_index);
        if let Some(closed) = self.segments.last().copied() {
            self.cache_index(closed, index);
        }
        self.segments.push(name);
    }

    /// The index of a file other than the tail, if it is in memory.
    pub(super) fn cached_index(&self, name: SegmentName) -> Option<&Index> {
        self.indexes.iter().find(|(known, _)| *known == name).map(|(_, index)| index)
    }

    /// Stores the index of a file other than the tail, in place of the oldest one.
    pub(super) fn cache_index(&mut self, name: SegmentName, index: Index) {
        if self.cached_index(name).is_some() {
            return;
        }
        if self.indexes.len() >= CACHED_INDEXES {
            self.indexes.pop_front();
        }
        self.indexes.push_back((name, index));
    }
}

fn check_durable(path: &Path, good: u64, bad: Option<&'static str>, durable: u64) -> Result<(), LogError> {
    if good < durable {
        return Err(LogError::corrupt(path, good, bad.unwrap_or("bytes that were durable are missing")));
    }
    Ok(())
}

/// Whether the log ends at the committed offset.
fn is_complete(folder: &Folder, committed: CommittedOffset) -> Result<bool, LogError> {
    let is_last = folder.list()?.segments.last() == Some(&SegmentName::live(committed.segment));
    Ok(is_last && is_untouched(folder, committed)?)
}

/// Whether nothing was written after the committed offset, which must not be from before a power failure.
fn is_untouched(folder: &Folder, committed: CommittedOffset) -> Result<bool, LogError> {
    let path = folder.file(SegmentName::live(committed.segment));
    let length = match std::fs::metadata(&path) {
        Ok(tail) => Some(tail.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        // Reading it shows the damage.
        Err(error) if file_io::is_unreadable(&error) => None,
        Err(error) => return Err(LogError::io("check", &path)(error)),
    };
    // The only possible name of another segment.
    let next = SegmentName::live(committed.last_position + 1);
    Ok(length == Some(committed.length) && (next.first == committed.segment || !folder.file(next).exists()))
}

/// Truncates a torn tail, and makes durable what may not be. Those bytes are written again, because after a failed sync
/// the kernel may mark pages clean that never reached the disk.
fn complete(folder: &Folder, path: &Path, scan: &Scan, durable: u64) -> Result<(), LogError> {
    tracing::info!(
        file = %path.display(), durable, found = scan.contents.bytes.len(), kept = scan.good, torn = scan.bad,
        "recovered the end of a result log"
    );
    let file = File::options().write(true).open(path).map_err(LogError::io("open", path))?;
    file.set_len(scan.good).map_err(LogError::io("truncate", path))?;
    let again = &scan.contents.bytes[to_usize(durable)..to_usize(scan.good)];
    file.write_all_at(again, durable).map_err(LogError::io("write", path))?;
    folder.disk.sync_file(&file, path)?;
    folder.sync_path()
}
