//! Keeping a job's output within its limit: the oldest segments give up their output, and a gap record says so. The
//! tail is left alone, so up to one segment more than the limit may be there.
//!
//! Bounds: what is left of a log besides kept records is one gap for each run of output between two of them;
//! compacted files below half a segment are joined with the next. Memory: the files that are joined.

use std::fs::{self, File};
use std::io::Write as _;

use super::LogError;
use super::compact::Compactor;
use super::folder::{self, Folder, SegmentName};
use super::frame::{Content, Frames, HEADER, Next, push_record, push_summary};
use super::order::Order;
use super::scan::{head, to_usize};
use super::summary::Summary;

/// What a log may hold of what can be removed.
pub(super) struct Retention {
    /// Bytes of frames that can be removed.
    pub(super) limit: u64,
    pub(super) segment_bytes: u64,
}

impl Retention {
    /// Compacts the log, whose lock is held, as far as needed. `removable_bytes` is what its summary says.
    pub(super) fn apply(&self, folder: &Folder, removable_bytes: u64) -> Result<(), LogError> {
        loop {
            let listing = folder.list()?;
            // A compaction was broken off before it came to this.
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

    /// Compacts one segment, which ends with position `last`, and joins it with the file before if that is short.
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
            // Joined with what is before it nobody could tell any more.
            let missing = folder.file(SegmentName::live(before + 1));
            return Err(LogError::corrupt(&missing, 0, "the file is missing"));
        }
        if let Some(previous) = previous {
            let path = folder.file(previous);
            let length = fs::metadata(&path).map_err(LogError::reading("look at", &path, 0))?.len();
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
        install(folder, SegmentName { first: first.first, kept_to: Some(last) }, &buffer)?;
        sources.into_iter().try_for_each(|source| remove(folder, source))
    }
}

/// Writes a file that appears complete or not at all.
fn install(folder: &Folder, name: SegmentName, bytes: &[u8]) -> Result<(), LogError> {
    let unfinished = folder.path.join("kept.tmp");
    let mut file = File::create(&unfinished).map_err(LogError::io("make", &unfinished))?;
    let written = file.write_all(bytes).map_err(LogError::io("write", &unfinished));
    if let Err(error) = written.and_then(|()| folder.disk.sync_file(&file, &unfinished)) {
        // It may hold the space that is wanting.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    fs::rename(&unfinished, folder.file(name)).map_err(LogError::io("rename", &unfinished))?;
    folder.disk.sync_folder(&folder.path)
}

fn remove(folder: &Folder, name: SegmentName) -> Result<(), LogError> {
    let path = folder.file(name);
    fs::remove_file(&path).map_err(LogError::io("remove", &path))
}

fn read_head(folder: &Folder, name: SegmentName) -> Result<(Summary, u64), LogError> {
    /// Summaries are far shorter, but for jobs of thousands of steps.
    const ENOUGH: u64 = 4096;
    let path = folder.file(name);
    let (file, length) = folder::open(&path)?;
    let read = |bytes| folder::read_at(&file, &path, 0, bytes);
    let parsed = head(&read(ENOUGH.min(length))?);
    let parsed = if parsed.is_err() { head(&read(length)?) } else { parsed };
    parsed.map_err(|what| LogError::corrupt(&path, 0, what))
}

/// Gives all records of a file, which ends with position `last` if it was not compacted before.
fn feed(folder: &Folder, name: SegmentName, last: u64, compactor: &mut Compactor) -> Result<(), LogError> {
    let path = folder.file(name);
    let (file, length) = folder::open(&path)?;
    let bytes = folder::read_at(&file, &path, 0, length)?;
    let (_, start) = head(&bytes).map_err(|what| LogError::corrupt(&path, 0, what))?;
    let mut frames = Frames::new(bytes.slice(to_usize(start)..), start);
    let mut order = Order::behind_summary(name, name.kept_to.unwrap_or(last));
    loop {
        let offset = frames.offset();
        let corrupt = |what| LogError::corrupt(&path, offset, what);
        match frames.next() {
            Next::Frame(frame) => {
                let content = frame.content().map_err(corrupt)?;
                order.note(&content).map_err(corrupt)?;
                match content {
                    Content::Record(record) => compactor.take(record),
                    // Every later summary tells of them.
                    Content::Seal(_) | Content::Summary(_) => {}
                }
            }
            Next::End => return order.finish().map_err(corrupt),
            Next::Partial(_) => return Err(corrupt("a frame is cut off")),
            Next::Bad(what) => return Err(corrupt(what)),
        }
    }
}
