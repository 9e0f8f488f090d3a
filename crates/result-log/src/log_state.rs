//! The state of a job's log in this process: its files, the end of their durable part, and their summary.
//!
//! Bounds: 24 bytes for each file, the summary, and the indexes of the tail and [`CACHED_INDEXES`] other files; below
//! 16 KiB for all but the longest logs. It may be dropped at any time.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::LogError;
use super::contents::Contents;
use super::disk;
use super::folder::{self, Folder, SegmentName};
use super::index::Index;
use super::lock::{CommittedOffset, JobLock, Peek, peek};
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
    pub(super) mark: Option<CommittedOffset>,
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
        let mark = match peek(folder)? {
            Peek::Missing => {
                *slot = Some(Self::default());
                return Ok(Refreshed::Current);
            }
            Peek::Unclear => return Ok(Refreshed::NeedsLock),
            Peek::Committed(mark) => mark,
        };
        // A committed offset that follows one that this process saw is not from before a power failure. Another one may
        // be too small.
        let is_current = slot.as_ref().is_some_and(|view| view.is_of(mark)) || is_complete(folder, mark)?;
        if !is_current {
            return Ok(Refreshed::NeedsLock);
        }
        match Self::follow(slot, folder, mark) {
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
        let Peek::Committed(mark) = peek(folder)? else { return Ok(None) };
        match Self::load(folder, mark) {
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
        let mark = lock.mark()?;
        match Self::try_catch_up(slot, folder, lock, mark) {
            Err(error @ LogError::Corrupt { .. }) => {
                tracing::error!(%error, "a result log is damaged");
                *slot = None;
                // The end of the log may have been found only now.
                if lock.mark()?.is_none() {
                    commit_end_of_kept(folder, lock)?;
                }
                let Some(mark) = lock.mark()? else { return Err(error) };
                repair_end(folder, lock, mark)?;
                Self::try_catch_up(slot, folder, lock, lock.mark()?)?;
            }
            caught_up => caught_up?,
        }
        Ok(slot.as_mut().expect("it was put there above"))
    }

    fn try_catch_up(
        slot: &mut Option<Self>,
        folder: &Folder,
        lock: &JobLock,
        mark: Option<CommittedOffset>,
    ) -> Result<(), LogError> {
        let known = slot.as_ref().and_then(|view| view.mark);
        match mark {
            Some(mark)
                if known.is_some_and(|known| known.birth == mark.birth) && is_untouched(folder, mark)? =>
            {
                Self::follow(slot, folder, mark)
            }
            mark => {
                *slot = None;
                *slot = Some(Self::recover(folder, lock, mark)?);
                Ok(())
            }
        }
    }

    fn is_of(&self, mark: CommittedOffset) -> bool {
        self.mark.is_some_and(|known| known.birth == mark.birth)
    }

    /// Brings `slot` to the committed offset with as little reading as possible.
    fn follow(slot: &mut Option<Self>, folder: &Folder, mark: CommittedOffset) -> Result<(), LogError> {
        let known = slot.as_ref().and_then(|view| view.mark);
        if known == Some(mark) {
            return Ok(());
        }
        // Until this succeeds the state is unknown.
        let view = slot.take();
        let view = match (view, known) {
            (Some(view), Some(known))
                if known.birth == mark.birth
                    && known.segment == mark.segment
                    && known.length <= mark.length =>
            {
                view.read_on(folder, known.length, mark)?
            }
            _ => Self::load(folder, mark)?,
        };
        *slot = Some(view);
        Ok(())
    }

    /// Adds what another process appended to the tail.
    fn read_on(mut self, folder: &Folder, from: u64, mark: CommittedOffset) -> Result<Self, LogError> {
        let path = folder.file(SegmentName::live(mark.segment));
        let (file, _) = folder::open(&path)?;
        let part = folder::read_at(&file, &path, from, mark.length - from)?;
        let (good, bad) = note_frames(part, from, &mut self.summary, &mut self.tail_index);
        check_durable(&path, good, bad, mark.length)?;
        self.mark = Some(mark);
        Ok(self)
    }

    /// Reads the log as of `mark`: the names of all files, and the tail.
    fn load(folder: &Folder, mark: CommittedOffset) -> Result<Self, LogError> {
        let mut segments = folder.list()?.segments;
        segments.retain(|name| name.first <= mark.segment);
        let tail = SegmentName::live(mark.segment);
        let path = folder.file(tail);
        if segments.last() != Some(&tail) {
            return Err(LogError::corrupt(&path, 0, "the file is missing"));
        }
        let scan = Scan::of(Contents::read(&path)?, mark.length);
        check_durable(&path, scan.good, scan.bad, mark.length)?;
        Ok(Self::of(mark, segments, scan))
    }

    /// Finds the end of the log after any failure, and sets the committed offset to it.
    fn recover(folder: &Folder, lock: &JobLock, mark: Option<CommittedOffset>) -> Result<Self, LogError> {
        let mut segments = folder.list()?.segments;
        while let Some(tail) = segments.last().copied() {
            let path = folder.file(tail);
            if tail.kept_to.is_some() || mark.is_some_and(|mark| mark.segment > tail.first) {
                return Err(LogError::corrupt(&path, 0, "the file that follows it is missing"));
            }
            let durable = mark.filter(|mark| mark.segment == tail.first).map_or(0, |mark| mark.length);
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
                    birth: mark.map_or_else(rand::random, |mark| mark.birth),
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
            let mark = CommittedOffset {
                birth: mark.map_or_else(rand::random, |mark| mark.birth),
                segment: tail.first,
                length: scan.good,
                last_position: scan.summary.last_position,
            };
            lock.set_committed(mark)?;
            return Ok(Self::of(mark, segments, scan));
        }
        match mark {
            None => Ok(Self::default()),
            Some(mark) => {
                let path = folder.file(SegmentName::live(mark.segment));
                Err(LogError::corrupt(&path, 0, "the file is missing"))
            }
        }
    }

    fn of(mark: CommittedOffset, segments: Vec<SegmentName>, scan: Scan) -> Self {
        let Scan { summary, index, .. } = scan;
        Self { mark: Some(mark), segments, summary, tail_index: index, indexes: VecDeque::new() }
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
fn is_complete(folder: &Folder, mark: CommittedOffset) -> Result<bool, LogError> {
    let is_last = folder.list()?.segments.last() == Some(&SegmentName::live(mark.segment));
    Ok(is_last && is_untouched(folder, mark)?)
}

/// Whether nothing was written after the committed offset, which must not be from before a power failure.
fn is_untouched(folder: &Folder, mark: CommittedOffset) -> Result<bool, LogError> {
    let path = folder.file(SegmentName::live(mark.segment));
    let length = match std::fs::metadata(&path) {
        Ok(tail) => Some(tail.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        // Reading it shows the damage.
        Err(error) if disk::is_unreadable(&error) => None,
        Err(error) => return Err(LogError::io("check", &path)(error)),
    };
    // The only possible name of another segment.
    let next = SegmentName::live(mark.last_position + 1);
    Ok(length == Some(mark.length) && (next.first == mark.segment || !folder.file(next).exists()))
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
