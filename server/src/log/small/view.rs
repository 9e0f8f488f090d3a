//! A small log as this process last saw it.

use bytes::Bytes;

use super::SmallLog;
use crate::log::index::Index;
use crate::log::scan::{head, note_frames, to_usize};
use crate::log::summary::Summary;
use crate::log::write::Batch;

/// What the first bytes of a small log add up to. Bounds: those of a summary.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::log) struct SmallView {
    /// How many bytes.
    pub(in crate::log) length: u64,
    pub(in crate::log) summary: Summary,
}

impl SmallView {
    /// What all bytes of a log add up to, or what is wrong with them.
    pub(in crate::log) fn of(bytes: &Bytes) -> Result<Self, &'static str> {
        let (mut view, length) = (Self::default(), bytes.len() as u64);
        view.follow(&SmallLog { length, bytes: bytes.clone(), is_frozen: false }).map(|()| view)
    }

    /// Takes in what was read behind the bytes that it knows. After an error it is of no more use.
    pub(in crate::log) fn follow(&mut self, found: &SmallLog) -> Result<(), &'static str> {
        if found.length < self.length {
            // It was deleted.
            *self = Self::default();
        }
        if found.length == self.length {
            return Ok(());
        }
        if found.length - self.length != found.bytes.len() as u64 {
            return Err("bytes are missing");
        }
        let mut rest = found.bytes.clone();
        if self.length == 0 {
            (self.summary, self.length) = head(&rest)?;
            rest = rest.slice(to_usize(self.length)..);
        }
        let (end, bad) = note_frames(rest, self.length, &mut self.summary, &mut Index::default());
        self.length = end;
        match bad {
            Some(what) => Err(what),
            None => Ok(()),
        }
    }

    /// An empty batch for the end of the log. Readers see no position of it below `floor`.
    pub(in crate::log) fn batch(&self, floor: u64) -> Batch {
        Batch::of_first_segment(self.summary.clone(), self.length, floor)
    }
}
