//! The durable part of a file, read frame by frame.

use std::ops::ControlFlow;

use super::LogError;
use super::folder;
use super::frame::{Checked, Frame, Frames, HEADER, Next};
use super::index::Index;

/// Size of a read.
pub(super) const CHUNK_BYTES: u64 = 1024 * 1024;

/// The durable part of a file.
pub(super) struct FrameReader<'a> {
    pub(super) path: &'a std::path::Path,
    pub(super) file: &'a std::fs::File,
    pub(super) limit: u64,
}

impl FrameReader<'_> {
    /// Calls `take` with each frame from `start` on.
    pub(super) fn each_frame(
        &self,
        start: u64,
        mut take: impl FnMut(&Frame) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        self.frames_until(start, CHUNK_BYTES, |frame| take(frame).map(ControlFlow::Continue)).map(drop)
    }

    /// Calls `take` with each frame from `start` on, until it returns [`ControlFlow::Break`].
    pub(super) fn frames_until(
        &self,
        start: u64,
        chunk_bytes: u64,
        mut take: impl FnMut(&Frame) -> Result<ControlFlow<()>, LogError>,
    ) -> Result<ControlFlow<()>, LogError> {
        let mut offset = start;
        let mut wanted = chunk_bytes;
        while offset < self.limit {
            let length = wanted.min(self.limit - offset);
            let chunk = folder::read_at(self.file, self.path, offset, length)?;
            if (chunk.len() as u64) < length {
                return Err(LogError::corrupt(self.path, offset, "bytes that were durable are missing"));
            }
            let mut frames = Frames::new(chunk, offset);
            wanted = loop {
                offset = frames.offset();
                match frames.next() {
                    Next::Frame(frame) => {
                        if take(&frame)?.is_break() {
                            return Ok(ControlFlow::Break(()));
                        }
                    }
                    Next::End => break chunk_bytes,
                    Next::Partial(needed) if needed <= self.limit - offset => break needed.max(chunk_bytes),
                    Next::Partial(_) => {
                        return Err(LogError::corrupt(self.path, offset, "a frame is cut off"));
                    }
                    Next::Bad(what) => return Err(LogError::corrupt(self.path, offset, what)),
                }
            };
        }
        Ok(ControlFlow::Continue(()))
    }

    pub(super) fn make_index(&self) -> Result<Index, LogError> {
        let mut index = Index::default();
        self.each_frame(HEADER.len() as u64, |frame| {
            let position = frame
                .checked()
                .and_then(Checked::position)
                .map_err(|what| LogError::corrupt(self.path, frame.offset, what))?;
            if let Some(position) = position {
                index.note(position, frame.offset);
            }
            Ok(())
        })?;
        Ok(index)
    }
}
