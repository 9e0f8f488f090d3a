//! The order of frames in a whole file: a summary, then all positions up to the last one, except those that retention
//! removed. Pure.

use super::folder::SegmentName;
use super::frame::Content;

/// Checks the order of a file's frames.
pub(super) struct FrameOrder {
    name: SegmentName,
    /// The last position so far.
    end: u64,
    /// The last expected position.
    last: u64,
    has_summary: bool,
}

impl FrameOrder {
    /// For a file with this name that ends with position `last`, before its first frame.
    pub(super) fn new(name: SegmentName, last: u64) -> Self {
        Self { name, end: name.first.saturating_sub(1), last, has_summary: false }
    }

    /// The same, after the summary.
    pub(super) fn behind_summary(name: SegmentName, last: u64) -> Self {
        Self { has_summary: true, ..Self::new(name, last) }
    }

    /// Checks the next frame; the error describes the fault.
    pub(super) fn note(&mut self, content: &Content) -> Result<(), &'static str> {
        let is_first = !std::mem::replace(&mut self.has_summary, true);
        match content {
            Content::Summary(_) if is_first => Ok(()),
            Content::Summary(_) => Err("a summary is out of place"),
            _ if is_first => Err("it has no summary"),
            Content::Seal(_) => Ok(()),
            Content::Record(record) => {
                let is_next = match self.name.kept_to {
                    Some(_) => record.position > self.end,
                    None => record.position == self.end.saturating_add(1),
                };
                if !is_next || record.position > self.last {
                    return Err("a position is missing or repeated");
                }
                self.end = record.position;
                Ok(())
            }
        }
    }

    /// Checks the end of the file; the error describes the fault.
    pub(super) fn finish(&self) -> Result<(), &'static str> {
        match (self.has_summary, self.name.kept_to) {
            (false, _) => Err("it has no summary"),
            // Retention may have removed the last positions.
            (true, Some(_)) => Ok(()),
            (true, None) if self.end == self.last => Ok(()),
            (true, None) => Err("records are missing behind it"),
        }
    }
}
