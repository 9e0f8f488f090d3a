//! Checks of a whole log against its checksums and positions, without its lock and without changes. Servers may append
//! at the same time: only the part up to the committed offset is checked, and damage is confirmed by a second check,
//! since a file may have been replaced or the log deleted.
//!
//! Memory: one chunk of [`CHUNK_BYTES`](super::frame_reader::CHUNK_BYTES), or one frame if that is longer, for a log of
//! any size. A tail without a committed offset is read as a whole.

use std::path::{Path, PathBuf};

use super::LogError;
use super::folder::{self, Folder, SegmentName};
use super::frame::HEADER;
use super::frame_order::FrameOrder;
use super::frame_reader::FrameReader;
use super::lock::{CommittedOffset, Peek, peek};
use super::salvage::last_good;
use super::scan::{scan_tail, to_usize};

/// Maximum number of checks of a log that keeps changing.
const TRIES: u32 = 8;

/// Result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// There is no log.
    Missing,
    /// Every durable record can be read.
    Good,
    /// Some cannot.
    Damaged(Damage),
}

/// The damage of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The first damaged or missing file.
    pub file: PathBuf,
    /// Offset of the damage in it.
    pub offset: u64,
    /// Description of the damage.
    pub what: &'static str,
    /// Number of damaged and missing files.
    pub files: usize,
}

/// Checks a log. `goes_on` is called before each file; `None`: it returned false.
pub(super) fn inspect(folder: &Folder, goes_on: &dyn Fn() -> bool) -> Result<Option<Health>, LogError> {
    let mut before = None;
    for _ in 0..TRIES {
        let health = match look(folder, goes_on)? {
            Some(Health::Damaged(damage)) => Health::Damaged(damage),
            settled => return Ok(settled),
        };
        if before.as_ref() == Some(&health) {
            return Ok(before);
        }
        before = Some(health);
    }
    Ok(before)
}

fn look(folder: &Folder, goes_on: &dyn Fn() -> bool) -> Result<Option<Health>, LogError> {
    let committed = match peek(folder)? {
        Peek::Missing => return Ok(Some(Health::Missing)),
        Peek::Unclear => None,
        Peek::Committed(committed) => Some(committed),
    };
    let mut faults = Faults::default();
    for part in parts(folder, committed)? {
        if !goes_on() {
            return Ok(None);
        }
        faults.note(part.check(folder))?;
    }
    Ok(Some(faults.0.map_or(Health::Good, Health::Damaged)))
}

/// The first fault, and the number of files with one.
#[derive(Default)]
struct Faults(Option<Damage>);

impl Faults {
    fn note(&mut self, checked: Result<(), LogError>) -> Result<(), LogError> {
        let (file, offset, what) = match checked {
            Err(LogError::Corrupt { file, offset, what }) => (file, offset, what),
            other => return other,
        };
        let damage = self.0.get_or_insert(Damage { file, offset, what, files: 0 });
        damage.files += 1;
        Ok(())
    }
}

/// A range of positions, and the file that should contain it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    /// The file's name; for a missing one, see [`Extent::Missing`].
    pub(super) name: SegmentName,
    pub(super) extent: Extent,
}

/// The part of a file that must be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// The whole file, which ends with this position.
    Whole(u64),
    /// The tail, up to the committed offset.
    Tail(CommittedOffset),
    /// Nothing. Without a committed offset, a torn end was not acknowledged.
    Open,
    /// The file is missing. It would end with this position.
    Missing(u64),
}

/// The expected files of a log, from their names and the committed offset.
pub(super) fn parts(folder: &Folder, committed: Option<CommittedOffset>) -> Result<Vec<Expected>, LogError> {
    Ok(expected(folder.list()?.segments, committed))
}

fn expected(mut segments: Vec<SegmentName>, committed: Option<CommittedOffset>) -> Vec<Expected> {
    // Data after the committed offset is being written.
    segments.retain(|name| committed.is_none_or(|committed| name.first <= committed.segment));
    let mut parts = Vec::with_capacity(segments.len());
    let mut next = 1;
    let missing =
        |first: u64, last: u64| Expected { name: SegmentName::live(first), extent: Extent::Missing(last) };
    for (index, &name) in segments.iter().enumerate() {
        if name.first > next {
            parts.push(missing(next, name.first.saturating_sub(1)));
        }
        let following = segments.get(index + 1);
        let extent = match (name.kept_to, following, committed) {
            (Some(last), ..) => Extent::Whole(last),
            (None, Some(following), _) => Extent::Whole(following.first.saturating_sub(1)),
            (None, None, Some(committed)) if committed.segment == name.first => Extent::Tail(committed),
            (None, None, Some(committed)) => Extent::Whole(committed.segment.saturating_sub(1)),
            (None, None, None) => Extent::Open,
        };
        next = match extent {
            Extent::Whole(last) | Extent::Missing(last) => last.saturating_add(1),
            Extent::Tail(_) | Extent::Open => u64::MAX,
        };
        parts.push(Expected { name, extent });
    }
    match committed {
        Some(committed) if next <= committed.segment => {
            if next < committed.segment {
                parts.push(missing(next, committed.segment - 1));
            }
            parts.push(missing(committed.segment, committed.last_position));
        }
        // Compaction never removes the tail.
        None if next > 1 && next < u64::MAX => parts.push(missing(next, next)),
        Some(_) | None => {}
    }
    parts
}

impl Expected {
    /// Reads and checks the part. Damage is [`LogError::Corrupt`].
    fn check(self, folder: &Folder) -> Result<(), LogError> {
        let path = folder.file(self.name);
        let missing = || LogError::corrupt(&path, 0, "the file is missing");
        let (limit, last) = match self.extent {
            Extent::Missing(_) => return Err(missing()),
            Extent::Open => return check_open(&path, self.name),
            Extent::Whole(last) => (None, last),
            Extent::Tail(committed) => (Some(committed.length), committed.last_position),
        };
        let (file, length) = match folder::open(&path) {
            Err(error) if error.is_not_found() => return Err(missing()),
            opened => opened?,
        };
        let header = folder::read_at(&file, &path, 0, HEADER.len() as u64)?;
        if header != HEADER.as_slice() {
            return Err(LogError::corrupt(&path, 0, "it does not begin as a segment does"));
        }
        let part = FrameReader { path: &path, file: &file, limit: limit.unwrap_or(length) };
        let mut order = FrameOrder::new(self.name, last);
        part.each_frame(HEADER.len() as u64, |frame| {
            let noted = frame.content().and_then(|content| order.note(&content));
            noted.map_err(|what| LogError::corrupt(&path, frame.offset, what))
        })?;
        order.finish().map_err(|what| LogError::corrupt(&path, part.limit, what))
    }
}

/// Checks a tail without a committed offset. A torn end was not acknowledged and is no damage, unless a good record
/// follows it, or the disk cannot read it.
fn check_open(path: &Path, name: SegmentName) -> Result<(), LogError> {
    let scan = match scan_tail(path) {
        Err(error) if error.is_not_found() => return Err(LogError::corrupt(path, 0, "the file is missing")),
        scan => scan?,
    };
    let after = scan.summary.last_position.max(name.first.saturating_sub(1));
    if scan.contents.unreadable.is_some()
        || last_good(&scan.contents.bytes, to_usize(scan.good), after).is_some()
    {
        return Err(LogError::corrupt(path, scan.good, scan.bad.unwrap_or("it is damaged")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(segment: u64, last_position: u64) -> CommittedOffset {
        CommittedOffset { birth: 1, segment, length: 100, last_position }
    }

    fn kept(first: u64, last: u64) -> SegmentName {
        SegmentName { first, kept_to: Some(last) }
    }

    fn extents(segments: &[SegmentName], committed: Option<CommittedOffset>) -> Vec<(u64, Extent)> {
        expected(segments.to_vec(), committed).into_iter().map(|it| (it.name.first, it.extent)).collect()
    }

    #[test]
    fn file_ends_before_next_file() {
        let tail = committed(9, 12);
        assert_eq!(
            extents(&[kept(1, 4), SegmentName::live(5), SegmentName::live(9)], Some(tail)),
            [(1, Extent::Whole(4)), (5, Extent::Whole(8)), (9, Extent::Tail(tail))]
        );
        assert_eq!(extents(&[SegmentName::live(1)], None), [(1, Extent::Open)]);
        assert_eq!(extents(&[], None), []);
    }

    #[test]
    fn positions_without_file_are_missing() {
        let tail = committed(9, 12);
        let missing = Extent::Missing;
        assert_eq!(
            extents(&[kept(3, 4), SegmentName::live(9)], Some(tail)),
            [(1, missing(2)), (3, Extent::Whole(4)), (5, missing(8)), (9, Extent::Tail(tail))]
        );
        assert_eq!(extents(&[SegmentName::live(1)], Some(tail)), [(1, Extent::Whole(8)), (9, missing(12))]);
        assert_eq!(
            extents(&[kept(1, 3)], Some(tail)),
            [(1, Extent::Whole(3)), (4, missing(8)), (9, missing(12))]
        );
        assert_eq!(extents(&[], Some(tail)), [(1, missing(8)), (9, missing(12))]);
        assert_eq!(extents(&[kept(1, 3)], None), [(1, Extent::Whole(3)), (4, missing(4))]);
    }

    #[test]
    fn files_after_committed_offset_are_not_checked() {
        let tail = committed(1, 4);
        let segments = [SegmentName::live(1), SegmentName::live(5)];
        assert_eq!(extents(&segments, Some(tail)), [(1, Extent::Tail(tail))]);
    }
}
