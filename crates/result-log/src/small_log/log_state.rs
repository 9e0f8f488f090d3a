//! A small log as this process last saw it.

use bytes::Bytes;

use super::SmallLog;
use crate::index::Index;
use crate::scan::{head, note_frames, to_usize};
use crate::summary::Summary;
use crate::write::{Addition, Batch};
use crate::{Appended, LogError};

/// Result of planning an addition.
pub(crate) enum Planned {
    /// Append these bytes.
    Append {
        bytes: Vec<u8>,
        /// State of the log with them.
        next: SmallLogState,
        appended: Appended,
    },
    /// Nothing to append: all of it is a duplicate, or comes after the end.
    Nothing(Appended),
    /// The log must first move to a folder.
    TooLong,
}

/// Summary of the first bytes of a small log. Memory: that of a summary.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SmallLogState {
    /// Number of bytes.
    pub(crate) length: u64,
    pub(crate) summary: Summary,
}

impl SmallLogState {
    /// The state of a log with these bytes; the error describes the damage.
    pub(crate) fn of(bytes: &Bytes) -> Result<Self, &'static str> {
        let (mut view, length) = (Self::default(), bytes.len() as u64);
        view.follow(&SmallLog { length, bytes: bytes.clone(), is_frozen: false }).map(|()| view)
    }

    /// Adds the bytes read after the known ones. After an error the state is invalid.
    pub(crate) fn follow(&mut self, found: &SmallLog) -> Result<(), &'static str> {
        match found.length.checked_sub(self.length) {
            Some(0) => return Ok(()),
            Some(unknown) if unknown == found.bytes.len() as u64 => {}
            Some(_) | None => return Err("bytes are missing"),
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

    /// Plans an append to the log, whose maximum size is `small_bytes`. Readers see no new position below `floor`.
    /// `limit`: see [`plan_append`].
    pub(crate) fn plan(
        &self,
        addition: &Addition,
        floor: u64,
        small_bytes: u64,
        limit: u64,
    ) -> Result<Planned, LogError> {
        if self.length + addition.bytes() as u64 > small_bytes {
            return Ok(Planned::TooLong);
        }
        let mut batch = Batch::of_first_segment(self.summary.clone(), self.length, floor);
        let producers = batch.take(addition.clone(), limit)?;
        let appended = Appended::of(&batch.summary, producers);
        if batch.is_empty() {
            return Ok(Planned::Nothing(appended));
        }
        if batch.end() > small_bytes {
            return Ok(Planned::TooLong);
        }
        let next = Self { length: batch.end(), summary: batch.summary.clone() };
        Ok(Planned::Append { bytes: batch.into_bytes(), next, appended })
    }
}
