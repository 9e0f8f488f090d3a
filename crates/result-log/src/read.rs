//! Reading of a page. An index gives its offset, so that the cost is in proportion to the page.
//!
//! Memory: one chunk of [`CHUNK_BYTES`], or one record if that is longer, besides the page.

use std::ops::ControlFlow;

use sqlflow_proto::record::StoredRecord;

use super::folder::{self, Folder, SegmentName};
use super::frame::{Content, HEADER};
use super::frame_reader::{CHUNK_BYTES, FrameReader};
use super::index::{Index, SPACING};
use super::log_state::LogState;
use super::reader_positions::{self, Shift};
use super::summary::Summary;
use super::{LogError, Page};

/// A page to read, from one state of the log.
pub(super) struct PagePlan {
    /// `None`: there is nothing to read.
    pub(super) plan: Option<ReadPlan>,
    pub(super) wanted: Wanted,
}

impl PagePlan {
    /// Plans the page after `after`, a position that readers see.
    pub(super) fn new(view: &LogState, after: u64) -> Self {
        let wanted = Wanted::after(&view.summary, after);
        Self { plan: ReadPlan::new(view, wanted.after), wanted }
    }
}

/// The request of a reader, with the positions of one state of the log.
pub(super) struct Wanted {
    /// The position in the files after which the page begins.
    pub(super) after: u64,
    last_position: u64,
    shifts: Vec<Shift>,
}

impl Wanted {
    /// The records after `after`, a position that readers see.
    pub(super) fn after(summary: &Summary, after: u64) -> Self {
        let shifts = summary.shifts.clone();
        Self {
            after: reader_positions::to_files(&shifts, after),
            last_position: summary.last_position,
            shifts,
        }
    }

    /// Whether the log ends before the reader's cursor.
    pub(super) fn is_beyond_end(&self) -> bool {
        self.after > self.last_position
    }

    /// A page with these records.
    pub(super) fn page(&self, mut records: Vec<StoredRecord>, is_current: bool) -> Page {
        let end = records.last().map_or(self.after, |record| record.position);
        for record in &mut records {
            record.position = reader_positions::to_readers(&self.shifts, record.position);
            record.shift = 0;
        }
        Page {
            records,
            last_position: reader_positions::to_readers(&self.shifts, self.last_position),
            behind: self.last_position.saturating_sub(end),
            is_current,
        }
    }
}

/// The files and offset to read, from one state of the log. Its positions are those in the files.
pub(super) struct ReadPlan {
    after: u64,
    last_position: u64,
    /// The file with the first record, and all later ones; the last is the tail.
    segments: Vec<SegmentName>,
    /// Durable bytes of the tail.
    tail_length: u64,
    start: Start,
}

enum Start {
    /// At or shortly after this offset of the first file.
    Offset(u64),
    /// The first file has no index yet.
    Unknown,
}

/// Result of reading.
#[derive(Default)]
pub(super) struct Found {
    pub(super) records: Vec<StoredRecord>,
    /// An index that was made, for the cache.
    pub(super) index: Option<(SegmentName, Index)>,
}

impl ReadPlan {
    /// Plans the page after position `after`; `None`: there are no later records.
    fn new(view: &LogState, after: u64) -> Option<Self> {
        let last = view.summary.last_position;
        let committed = view.committed.filter(|_| after < last)?;
        let count = view.segments.partition_point(|name| name.first <= after + 1);
        let segments = view.segments[count.saturating_sub(1)..].to_vec();
        let begin = HEADER.len() as u64;
        let start = match segments.as_slice() {
            [_tail] => Start::Offset(view.tail_index.locate(after).unwrap_or(begin)),
            [name, ..] if after < name.first => Start::Offset(begin),
            [name, ..] => match view.cached_index(*name) {
                Some(index) => Start::Offset(index.locate(after).unwrap_or(begin)),
                None => Start::Unknown,
            },
            [] => return None,
        };
        Some(Self { after, last_position: last, segments, tail_length: committed.length, start })
    }

    /// Reads up to `max_bytes`, but at least one record. If a file was replaced after the plan was made, this fails
    /// because the file does not exist; plan again.
    pub(super) fn read(&self, folder: &Folder, max_bytes: u64) -> Result<Found, LogError> {
        let mut found = Found::default();
        let mut page = PageReader {
            after: self.after,
            budget: max_bytes,
            records: Vec::new(),
            seen: self.after,
            next: NextPosition::Gaps,
        };
        if self.segments.first().is_some_and(|name| name.first > self.after + 1) {
            return Err(missing(folder, self.after + 1));
        }
        for (index, &name) in self.segments.iter().enumerate() {
            let path = folder.file(name);
            let (file, length) = folder::open(&path)?;
            let next = self.segments.get(index + 1);
            let part = FrameReader {
                path: &path,
                file: &file,
                limit: if next.is_some() { length } else { self.tail_length },
            };
            let start = match self.start {
                Start::Offset(offset) if index == 0 => offset,
                Start::Unknown if index == 0 => {
                    let made = part.make_index()?;
                    let offset = made.locate(self.after).unwrap_or(HEADER.len() as u64);
                    found.index = Some((name, made));
                    offset
                }
                Start::Offset(_) | Start::Unknown => HEADER.len() as u64,
            };
            if start > part.limit {
                return Err(LogError::corrupt(&path, part.limit, "it ends before the requested records"));
            }
            // Retention removes positions.
            page.next = match (name.kept_to, start == HEADER.len() as u64) {
                (Some(_), _) => NextPosition::Gaps,
                (None, true) => NextPosition::Next(name.first),
                (None, false) => NextPosition::NotBehind(self.after + 1),
            };
            if page.read(&part, start)?.is_break() {
                break;
            }
            let end = match next {
                Some(next) if name.kept_to.is_none() => next.first - 1,
                Some(next) => match name.kept_to {
                    Some(last) if last + 1 < next.first => return Err(missing(folder, last + 1)),
                    // Retention may have removed the last records of this file.
                    Some(last) => {
                        page.seen = page.seen.max(last);
                        continue;
                    }
                    None => continue,
                },
                None => self.last_position,
            };
            if page.seen != end {
                return Err(LogError::corrupt(&path, part.limit, "records are missing behind it"));
            }
        }
        found.records = page.records;
        Ok(found)
    }
}

/// A page during its reading.
struct PageReader {
    after: u64,
    budget: u64,
    records: Vec<StoredRecord>,
    /// The last position, read or skipped.
    seen: u64,
    next: NextPosition,
}

/// The expected next position in a file.
#[derive(Clone, Copy)]
enum NextPosition {
    /// Any: retention removed some.
    Gaps,
    /// This one.
    Next(u64),
    /// This one or an earlier one: reading began within the file.
    NotBehind(u64),
}

impl NextPosition {
    /// The expectation after this position, or the fault.
    fn after(self, position: u64) -> Result<Self, &'static str> {
        match self {
            Self::Gaps => Ok(self),
            Self::Next(next) if position == next => Ok(Self::Next(next + 1)),
            Self::NotBehind(most) if position <= most => Ok(Self::Next(position + 1)),
            Self::Next(_) | Self::NotBehind(_) => Err("a position is missing or repeated"),
        }
    }
}

/// The error for a missing file that should contain this position.
fn missing(folder: &Folder, first: u64) -> LogError {
    LogError::corrupt(&folder.file(SegmentName::live(first)), 0, "the file is missing")
}

impl PageReader {
    fn read(&mut self, part: &FrameReader<'_>, start: u64) -> Result<ControlFlow<()>, LogError> {
        let chunk_bytes = self.budget.saturating_add(SPACING).min(CHUNK_BYTES);
        part.frames_until(start, chunk_bytes, |frame| {
            let corrupt = |what| LogError::corrupt(part.path, frame.offset, what);
            let checked = frame.checked().map_err(corrupt)?;
            let Some(position) = checked.position().map_err(corrupt)? else {
                return Ok(ControlFlow::Continue(()));
            };
            let order = self.next.after(position).map_err(corrupt)?;
            if position <= self.after {
                (self.seen, self.next) = (position, order);
                return Ok(ControlFlow::Continue(()));
            }
            let Content::Record(record) = checked.content().map_err(corrupt)? else {
                return Ok(ControlFlow::Continue(()));
            };
            if !self.records.is_empty() && frame.len() > self.budget {
                return Ok(ControlFlow::Break(()));
            }
            self.budget = self.budget.saturating_sub(frame.len());
            (self.seen, self.next) = (position, order);
            self.records.push(record);
            Ok(ControlFlow::Continue(()))
        })
    }
}
