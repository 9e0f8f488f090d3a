//! Reading a tail from its beginning: its summary, and the end of its good part.

use std::path::Path;

use bytes::Bytes;

use super::LogError;
use super::error::UNREADABLE;
use super::frame::{Content, Frames, HEADER, Next};
use super::index::Index;
use super::partial_read::Contents;
use super::summary::Summary;

/// The good part of a tail.
#[derive(Default)]
pub(super) struct Scan {
    /// Summary at its end.
    pub(super) summary: Summary,
    pub(super) index: Index,
    /// Its size; 0: even the beginning is damaged.
    pub(super) good: u64,
    /// The damage after it, if any.
    pub(super) bad: Option<&'static str>,
    /// The whole content.
    pub(super) contents: Contents,
}

/// Reads and scans a whole tail.
pub(super) fn scan_tail(path: &Path) -> Result<Scan, LogError> {
    Contents::read(path).map(|contents| Scan::of(contents, u64::MAX))
}

impl Scan {
    /// Scans the content of a tail up to `limit`.
    pub(super) fn of(contents: Contents, limit: u64) -> Self {
        let beginning = contents.beginning();
        let part =
            beginning.slice(..usize::try_from(limit).map_or(beginning.len(), |it| it.min(beginning.len())));
        let mut scan = Self::default();
        match head(&part) {
            Ok((summary, end)) => {
                scan.summary = summary;
                let rest = part.slice(to_usize(end)..);
                (scan.good, scan.bad) = note_frames(rest, end, &mut scan.summary, &mut scan.index);
            }
            Err(what) => scan.bad = Some(what),
        }
        if contents.unreadable.as_ref().is_some_and(|it| it.start == part.len()) {
            scan.bad = Some(UNREADABLE);
        }
        scan.contents = contents;
        scan
    }
}

/// The summary at the beginning of a file, and its end.
pub(super) fn head(bytes: &Bytes) -> Result<(Summary, u64), &'static str> {
    if !bytes.starts_with(&HEADER) {
        return Err("it does not begin as a segment does");
    }
    let mut frames = Frames::new(bytes.slice(HEADER.len()..), HEADER.len() as u64);
    let Next::Frame(frame) = frames.next() else { return Err("it has no summary") };
    match frame.content()? {
        Content::Summary(summary) => Ok((summary, frame.end())),
        Content::Record(_) | Content::Seal(_) => Err("it has no summary"),
    }
}

/// Adds the frames of a part of a tail, which is at `offset`, to the summary and index. Returns the end of the good
/// part, and the damage there.
pub(super) fn note_frames(
    part: Bytes,
    offset: u64,
    summary: &mut Summary,
    index: &mut Index,
) -> (u64, Option<&'static str>) {
    let mut frames = Frames::new(part, offset);
    loop {
        let good = frames.offset();
        let frame = match frames.next() {
            Next::Frame(frame) => frame,
            Next::End => return (good, None),
            Next::Partial(_) => return (good, Some("a frame is cut off")),
            Next::Bad(what) => return (good, Some(what)),
        };
        match frame.content() {
            Ok(Content::Record(record)) if record.position == summary.last_position + 1 => {
                summary.note(&record, frame.len());
                index.note(record.position, frame.offset);
            }
            Ok(Content::Seal(seal)) => summary.note_seal(seal),
            Ok(Content::Record(_)) => return (good, Some("a position is missing or repeated")),
            Ok(Content::Summary(_)) => return (good, Some("a summary is out of place")),
            Err(what) => return (good, Some(what)),
        }
    }
}

pub(super) fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a part of a segment fits in memory")
}
