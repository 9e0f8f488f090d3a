//! Adding to a log: one write and one sync for all that a group of appends adds.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use sqlflow_proto::record::StoredRecord;

use super::LogError;
use super::folder::{Folder, SegmentName};
use super::frame::{self, HEADER};
use super::lock::{JobLock, Mark};
use super::scan::to_usize;
use super::shift;
use super::summary::{SealedAttempt, Summary};
use super::view::View;

/// Frames that belong at the end of a log, encoded once.
pub(super) struct Batch {
    /// The state behind them.
    pub(super) summary: Summary,
    birth: u64,
    segment: SegmentName,
    /// Where in the segment they begin; 0: the segment is a new one.
    offset: u64,
    buffer: Vec<u8>,
    /// Position and offset of each record.
    places: Vec<(u64, u64)>,
    has_frames: bool,
    /// Readers see no position of the batch below this.
    floor: u64,
}

impl Batch {
    /// An empty batch for the end of this log. A tail that has reached `segment_bytes` gets no more.
    pub(super) fn new(view: &View, segment_bytes: u64, floor: u64) -> Self {
        let summary = view.summary.clone();
        let (birth, segment, offset) = match view.mark {
            // Without a record of its own the next segment would have the same name.
            Some(mark) if mark.length < segment_bytes || mark.last_position < mark.segment => {
                (mark.birth, mark.segment, mark.length)
            }
            Some(mark) => (mark.birth, summary.last_position + 1, 0),
            None => (rand::random(), 1, 0),
        };
        let mut buffer = Vec::new();
        if offset == 0 {
            buffer.extend_from_slice(&HEADER);
            frame::push_summary(&mut buffer, &summary);
        }
        let segment = SegmentName::live(segment);
        Self { summary, birth, segment, offset, buffer, places: Vec::new(), has_frames: false, floor }
    }

    /// Adds records that are planned for this place.
    pub(super) fn add(&mut self, mut records: Vec<StoredRecord>) {
        if let Some(first) = records.first() {
            let shift = shift::of_next(&self.summary.shifts, first.position, self.floor);
            // Each has it: damage or retention may take any of them.
            records.iter_mut().for_each(|record| record.shift = shift);
        }
        self.buffer.reserve(to_usize(records.iter().map(frame::record_len).sum()));
        for record in &records {
            let before = self.buffer.len();
            frame::push_record(&mut self.buffer, record);
            self.summary.note(record, (self.buffer.len() - before) as u64);
            self.places.push((record.position, self.offset + before as u64));
            self.has_frames = true;
        }
    }

    pub(super) fn seal(&mut self, seal: SealedAttempt) {
        frame::push_seal(&mut self.buffer, &seal);
        self.summary.note_seal(seal);
        self.has_frames = true;
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.has_frames
    }

    /// Whether it begins a segment.
    pub(super) fn begins_segment(&self) -> bool {
        self.offset == 0
    }

    /// Makes the batch durable. After an error the log is as it was before; only when even that cannot be done may a
    /// part of the batch be found in it.
    pub(super) fn write(&self, folder: &Folder, lock: &JobLock) -> Result<Mark, LogError> {
        let path = folder.file(self.segment);
        let file = if self.begins_segment() {
            File::options().write(true).create_new(true).open(&path)
        } else {
            File::options().write(true).open(&path)
        };
        let file = file.map_err(LogError::io("open", &path))?;
        let written = self.write_to(&file, folder, lock);
        if written.is_err() {
            let undone =
                if self.begins_segment() { fs::remove_file(&path) } else { file.set_len(self.offset) };
            if let Err(error) = undone {
                tracing::warn!(file = %path.display(), %error, "could not undo a failed append; the next one will");
            }
        }
        written
    }

    fn write_to(&self, file: &File, folder: &Folder, lock: &JobLock) -> Result<Mark, LogError> {
        let path = folder.file(self.segment);
        file.write_all_at(&self.buffer, self.offset).map_err(LogError::io("write", &path))?;
        folder.disk.sync_file(file, &path)?;
        if self.segment.first == 1 && self.begins_segment() {
            folder.sync_path()?;
        } else if self.begins_segment() {
            folder.disk.sync_folder(&folder.path)?;
        }
        let mark = Mark {
            birth: self.birth,
            segment: self.segment.first,
            length: self.offset + self.buffer.len() as u64,
            last_position: self.summary.last_position,
        };
        lock.set_mark(mark)?;
        Ok(mark)
    }

    /// Takes what was written into the view of the log.
    pub(super) fn apply(self, mark: Mark, view: &mut View) {
        if view.mark == Some(mark) {
            // A reader of this process saw the mark first.
            return;
        }
        if self.begins_segment() {
            view.begin_segment(self.segment);
        }
        for (position, offset) in self.places {
            view.tail_index.note(position, offset);
        }
        view.summary = self.summary;
        view.mark = Some(mark);
    }
}
