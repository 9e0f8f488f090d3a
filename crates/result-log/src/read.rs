//! Reading a page: where it begins comes from an index, so that the work is in proportion to the page.
//!
//! Bounds: one chunk of [`CHUNK_BYTES`] (or one record, if it is longer) beyond the page itself.

use sqlflow_proto::record::StoredRecord;

use super::folder::{self, Folder, SegmentName};
use super::frame::{Content, HEADER};
use super::index::{Index, SPACING};
use super::log_state::LogState;
use super::part::{CHUNK_BYTES, Part, Progress};
use super::shift::{self, Shift};
use super::summary::Summary;
use super::{LogError, Page};

/// A page that is to be read, as of one moment.
pub(super) struct PagePlan {
    /// `None`: there is nothing to read.
    pub(super) plan: Option<ReadPlan>,
    pub(super) wanted: Wanted,
}

impl PagePlan {
    /// Of what is behind `after`, a position as readers see it.
    pub(super) fn new(view: &LogState, after: u64) -> Self {
        let wanted = Wanted::after(&view.summary, after);
        Self { plan: ReadPlan::new(view, wanted.after), wanted }
    }
}

/// What a reader wants, as of one moment.
pub(super) struct Wanted {
    /// The records behind this position.
    pub(super) after: u64,
    last_position: u64,
    shifts: Vec<Shift>,
}

impl Wanted {
    /// What is behind `after`, a position as readers see it.
    pub(super) fn after(summary: &Summary, after: u64) -> Self {
        let shifts = summary.shifts.clone();
        Self { after: shift::stored(&shifts, after), last_position: summary.last_position, shifts }
    }

    /// Whether the log ends before what the reader has read.
    pub(super) fn is_beyond_end(&self) -> bool {
        self.after > self.last_position
    }

    /// The page of these records.
    pub(super) fn page(&self, mut records: Vec<StoredRecord>, is_current: bool) -> Page {
        let end = records.last().map_or(self.after, |record| record.position);
        for record in &mut records {
            record.position = shift::shown(&self.shifts, record.position);
            record.shift = 0;
        }
        Page {
            records,
            last_position: shift::shown(&self.shifts, self.last_position),
            behind: self.last_position.saturating_sub(end),
            is_current,
        }
    }
}

/// Where to read, as of one moment. Its positions are those of the files.
pub(super) struct ReadPlan {
    after: u64,
    last_position: u64,
    /// The file with the first record, and those that follow; the last one is the tail.
    segments: Vec<SegmentName>,
    /// Durable bytes of the tail.
    tail_length: u64,
    start: Start,
}

enum Start {
    /// At this offset of the first file, or a little later.
    Offset(u64),
    /// The first file has no index yet.
    Unknown,
}

/// What reading came to.
#[derive(Default)]
pub(super) struct Found {
    pub(super) records: Vec<StoredRecord>,
    /// An index that had to be made, to be kept.
    pub(super) index: Option<(SegmentName, Index)>,
}

impl ReadPlan {
    /// How to read what is after position `after`; `None`: nothing is.
    fn new(view: &LogState, after: u64) -> Option<Self> {
        let last = view.summary.last_position;
        let mark = view.mark.filter(|_| after < last)?;
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
        Some(Self { after, last_position: last, segments, tail_length: mark.length, start })
    }

    /// Reads at least one record, and no more than `max_bytes` otherwise. A file may have been replaced since the plan
    /// was made: then the error is one of a file that is not there, and a new plan is needed.
    pub(super) fn read(&self, folder: &Folder, max_bytes: u64) -> Result<Found, LogError> {
        let mut found = Found::default();
        let mut page = PageReader {
            after: self.after,
            budget: max_bytes,
            records: Vec::new(),
            seen: self.after,
            order: Order::Gaps,
        };
        if self.segments.first().is_some_and(|name| name.first > self.after + 1) {
            return Err(missing(folder, self.after + 1));
        }
        for (index, &name) in self.segments.iter().enumerate() {
            let path = folder.file(name);
            let (file, length) = folder::open(&path)?;
            let next = self.segments.get(index + 1);
            let part = Part {
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
                return Err(LogError::corrupt(
                    &path,
                    part.limit,
                    "it ends before the records that are asked for",
                ));
            }
            // Retention leaves out positions.
            page.order = match (name.kept_to, start == HEADER.len() as u64) {
                (Some(_), _) => Order::Gaps,
                (None, true) => Order::Next(name.first),
                (None, false) => Order::NotBehind(self.after + 1),
            };
            if page.read(&part, start)? == Progress::PageIsFull {
                break;
            }
            let end = match next {
                Some(next) if name.kept_to.is_none() => next.first - 1,
                Some(next) => match name.kept_to {
                    Some(last) if last + 1 < next.first => return Err(missing(folder, last + 1)),
                    // What it stands for may have been removed from its end on.
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

/// A page that is being filled.
struct PageReader {
    after: u64,
    budget: u64,
    records: Vec<StoredRecord>,
    /// The last position that was met, in the page or skipped.
    seen: u64,
    order: Order,
}

/// Which position comes next in a file.
#[derive(Clone, Copy)]
enum Order {
    /// Any: retention left some out.
    Gaps,
    /// This one.
    Next(u64),
    /// This one or one before it: reading began somewhere in the file.
    NotBehind(u64),
}

impl Order {
    /// What comes after this position, or what is wrong with it.
    fn after(self, position: u64) -> Result<Self, &'static str> {
        match self {
            Self::Gaps => Ok(self),
            Self::Next(next) if position == next => Ok(Self::Next(next + 1)),
            Self::NotBehind(most) if position <= most => Ok(Self::Next(position + 1)),
            Self::Next(_) | Self::NotBehind(_) => Err("a position is missing or repeated"),
        }
    }
}

/// The file that should hold this position is not there.
fn missing(folder: &Folder, first: u64) -> LogError {
    LogError::corrupt(&folder.file(SegmentName::live(first)), 0, "the file is missing")
}

impl PageReader {
    fn read(&mut self, part: &Part<'_>, start: u64) -> Result<Progress, LogError> {
        let chunk_bytes = self.budget.saturating_add(SPACING).min(CHUNK_BYTES);
        part.each_frame(start, chunk_bytes, |frame| {
            let corrupt = |what| LogError::corrupt(part.path, frame.offset, what);
            let checked = frame.checked().map_err(corrupt)?;
            let Some(position) = checked.position().map_err(corrupt)? else {
                return Ok(Progress::PartIsRead);
            };
            let order = self.order.after(position).map_err(corrupt)?;
            if position <= self.after {
                (self.seen, self.order) = (position, order);
                return Ok(Progress::PartIsRead);
            }
            let Content::Record(record) = checked.content().map_err(corrupt)? else {
                return Ok(Progress::PartIsRead);
            };
            if !self.records.is_empty() && frame.len() > self.budget {
                return Ok(Progress::PageIsFull);
            }
            self.budget = self.budget.saturating_sub(frame.len());
            (self.seen, self.order) = (position, order);
            self.records.push(record);
            Ok(Progress::PartIsRead)
        })
    }
}
