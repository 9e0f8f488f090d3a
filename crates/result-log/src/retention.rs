//! Retention: limits the output of a job. The oldest segments lose their output, and a gap record stands for it. The
//! tail is not changed, so a log may exceed the limit by up to one segment.
//!
//! Disk: besides the kept records, one gap record for each run of output between two of them. A compacted file below
//! half a segment is joined with the next one. Memory: the files that are joined.

use std::fs;

use super::LogError;
use super::compact::Compactor;
use super::folder::{self, Folder, SegmentName};
use super::frame::{Content, Frames, HEADER, Next, push_record, push_summary};
use super::frame_order::FrameOrder;
use super::scan::{head, to_usize};
use super::summary::Summary;

/// Limits of a log's removable records.
pub(super) struct Retention {
    /// Maximum size of the frames that can be removed.
    pub(super) limit: u64,
    pub(super) segment_bytes: u64,
}

impl Retention {
    /// Compacts the log, under its lock, down to its limit. `removable_bytes` comes from its summary.
    pub(super) fn apply(&self, folder: &Folder, removable_bytes: u64) -> Result<(), LogError> {
        loop {
            let listing = folder.list()?;
            // An interrupted compaction may have left them.
            for name in listing.replaced {
                remove(folder, name)?;
            }
            let segments = listing.segments;
            let kept = segments.iter().take_while(|name| name.kept_to.is_some()).count();
            let [oldest, next, ..] = segments[kept..] else { return Ok(()) };
            let (summary, _) = read_head(folder, oldest)?;
            if removable_bytes.saturating_sub(summary.removable_bytes) <= self.limit {
                return Ok(());
            }
            let previous = kept.checked_sub(1).map(|index| segments[index]);
            self.compact(folder, previous, oldest, next.first - 1)?;
        }
    }

    /// Compacts a segment that ends with position `last`, and joins it with the file before it if that is short.
    fn compact(
        &self,
        folder: &Folder,
        previous: Option<SegmentName>,
        segment: SegmentName,
        last: u64,
    ) -> Result<(), LogError> {
        let mut sources = vec![segment];
        let before = previous.and_then(|previous| previous.kept_to).unwrap_or(0);
        if before + 1 != segment.first {
            // After the join the hole would not be noticed.
            let missing = folder.file(SegmentName::live(before + 1));
            return Err(LogError::corrupt(&missing, 0, "the file is missing"));
        }
        if let Some(previous) = previous {
            let path = folder.file(previous);
            let length = fs::metadata(&path).map_err(LogError::reading("check", &path, 0))?.len();
            if length <= self.segment_bytes / 2 {
                sources.insert(0, previous);
            }
        }
        let first = sources[0];
        let (summary, _) = read_head(folder, first)?;
        let mut buffer = HEADER.to_vec();
        push_summary(&mut buffer, &summary);
        let mut compactor = Compactor::default();
        for &source in &sources {
            feed(folder, source, last, &mut compactor)?;
        }
        for record in compactor.finish() {
            push_record(&mut buffer, &record);
        }
        folder.install(SegmentName { first: first.first, kept_to: Some(last) }, &buffer)?;
        sources.into_iter().try_for_each(|source| remove(folder, source))
    }
}

fn remove(folder: &Folder, name: SegmentName) -> Result<(), LogError> {
    let path = folder.file(name);
    fs::remove_file(&path).map_err(LogError::io("remove", &path))
}

fn read_head(folder: &Folder, name: SegmentName) -> Result<(Summary, u64), LogError> {
    /// Longer than any summary, except for jobs with thousands of steps.
    const ENOUGH: u64 = 4096;
    let path = folder.file(name);
    let (file, length) = folder::open(&path)?;
    let read = |bytes| folder::read_at(&file, &path, 0, bytes);
    let parsed = head(&read(ENOUGH.min(length))?);
    let parsed = if parsed.is_err() { head(&read(length)?) } else { parsed };
    parsed.map_err(|what| LogError::corrupt(&path, 0, what))
}

/// Reads all records of a file. It ends with position `last`, unless it is compacted.
fn feed(folder: &Folder, name: SegmentName, last: u64, compactor: &mut Compactor) -> Result<(), LogError> {
    let path = folder.file(name);
    let (file, length) = folder::open(&path)?;
    let bytes = folder::read_at(&file, &path, 0, length)?;
    let (_, start) = head(&bytes).map_err(|what| LogError::corrupt(&path, 0, what))?;
    let mut frames = Frames::new(bytes.slice(to_usize(start)..), start);
    let mut order = FrameOrder::behind_summary(name, name.kept_to.unwrap_or(last));
    loop {
        let offset = frames.offset();
        let corrupt = |what| LogError::corrupt(&path, offset, what);
        match frames.next() {
            Next::Frame(frame) => {
                let content = frame.content().map_err(corrupt)?;
                order.note(&content).map_err(corrupt)?;
                match content {
                    Content::Record(record) => compactor.take(record),
                    // All later summaries contain the seal.
                    Content::Seal(_) | Content::Summary(_) => {}
                }
            }
            Next::End => return order.finish().map_err(corrupt),
            Next::Partial(_) => return Err(corrupt("a frame is cut off")),
            Next::Bad(what) => return Err(corrupt(what)),
        }
    }
}
