//! Adding to a log: one write and one sync for all that a group of appends adds.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use sqlflow_proto::record::StoredRecord;

use super::durability::Durability;
use super::folder::{Folder, SegmentName};
use super::frame::{self, HEADER};
use super::lock::{CommittedOffset, JobLock};
use super::log_state::LogState;
use super::plan::plan_append;
use super::scan::to_usize;
use super::shift;
use super::summary::{SealedAttempt, Summary, is_end};
use super::{Appended, Entry, LogError, Missing, Producer};

/// What to add.
#[derive(Debug, Clone)]
pub(super) enum Addition {
    Entries(Vec<Entry>),
    Seal(SealedAttempt, Option<Missing>),
}

impl Addition {
    /// Bytes of its records; a seal has hardly any.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Entries(entries) => {
                entries.iter().map(|entry| prost::Message::encoded_len(&entry.record)).sum()
            }
            Self::Seal(..) => 0,
        }
    }

    /// The job's end follows from what is durable already: who does not find it says it again.
    pub(super) fn durability(&self) -> Durability {
        match self {
            Self::Entries(entries) if entries.iter().all(|entry| is_end(&entry.record)) => {
                Durability::Unsynced
            }
            Self::Entries(_) | Self::Seal(..) => Durability::Synced,
        }
    }
}

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
    pub(super) fn new(view: &LogState, segment_bytes: u64, floor: u64) -> Self {
        let summary = view.summary.clone();
        let (birth, segment, offset) = match view.mark {
            // Without a record of its own the next segment would have the same name.
            Some(mark) if mark.length < segment_bytes || mark.last_position < mark.segment => {
                (mark.birth, mark.segment, mark.length)
            }
            Some(mark) => (mark.birth, summary.last_position + 1, 0),
            None => (rand::random(), 1, 0),
        };
        Self::at(summary, birth, segment, offset, floor)
    }

    /// An empty batch behind the first `length` bytes of the first segment, which add up to this summary.
    pub(super) fn of_first_segment(summary: Summary, length: u64, floor: u64) -> Self {
        Self::at(summary, 0, 1, length, floor)
    }

    fn at(summary: Summary, birth: u64, segment: u64, offset: u64, floor: u64) -> Self {
        let mut buffer = Vec::new();
        if offset == 0 {
            buffer.extend_from_slice(&HEADER);
            frame::push_summary(&mut buffer, &summary);
        }
        let segment = SegmentName::live(segment);
        Self { summary, birth, segment, offset, buffer, places: Vec::new(), has_frames: false, floor }
    }

    /// Plans an addition; returns the producers that it is about. `limit`: see [`plan_append`].
    pub(super) fn take(&mut self, addition: Addition, limit: u64) -> Result<Vec<Producer>, LogError> {
        match addition {
            Addition::Entries(entries) => {
                let producers = entries.iter().map(|it| it.producer);
                let mut producers: Vec<_> = producers.filter(Producer::is_agent).collect();
                producers.dedup();
                let records = plan_append(&self.summary, entries, limit)?;
                self.add(records);
                Ok(producers)
            }
            Addition::Seal(seal, missing) => {
                let producer = seal.producer();
                if !self.summary.is_sealed(producer) {
                    if let Some(Missing { gap, .. }) =
                        missing.filter(|it| self.summary.last_seq(producer) < it.said)
                    {
                        let gap = vec![Entry { producer, record: gap }];
                        self.add(plan_append(&self.summary, gap, limit)?);
                    }
                    self.seal(seal);
                }
                Ok(self.summary.last_seqs(producer).map(|(producer, _)| producer).collect())
            }
        }
    }

    /// Adds records that are planned for this place.
    fn add(&mut self, mut records: Vec<StoredRecord>) {
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

    fn seal(&mut self, seal: SealedAttempt) {
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
    pub(super) fn write(&self, folder: &Folder, lock: &JobLock) -> Result<CommittedOffset, LogError> {
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

    fn write_to(&self, file: &File, folder: &Folder, lock: &JobLock) -> Result<CommittedOffset, LogError> {
        let path = folder.file(self.segment);
        file.write_all_at(&self.buffer, self.offset).map_err(LogError::io("write", &path))?;
        folder.disk.sync_file(file, &path)?;
        if self.segment.first == 1 && self.begins_segment() {
            folder.sync_path()?;
        } else if self.begins_segment() {
            folder.disk.sync_folder(&folder.path)?;
        }
        let mark = CommittedOffset {
            birth: self.birth,
            segment: self.segment.first,
            length: self.end(),
            last_position: self.summary.last_position,
        };
        lock.set_committed(mark)?;
        Ok(mark)
    }

    /// The bytes to append.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.buffer
    }

    /// How many bytes the segment has with it.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    /// Takes what was written into the view of the log.
    pub(super) fn apply(self, mark: CommittedOffset, view: &mut LogState) {
        if view.mark == Some(mark) {
            // A reader of this process saw the committed offset first.
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

/// The committed offset of a log that is one segment of so many bytes.
pub(super) fn first_mark(summary: &Summary, length: u64) -> CommittedOffset {
    CommittedOffset { birth: rand::random(), segment: 1, length, last_position: summary.last_position }
}

impl Appended {
    /// What an append by these producers came to that led to this summary.
    pub(super) fn of(summary: &Summary, producers: Vec<Producer>) -> Self {
        let seqs = producers.into_iter().map(|producer| (producer, summary.last_seq(producer)));
        Self { last_position: summary.shown_last(), last_seqs: seqs.collect(), is_full: summary.is_full }
    }

    /// The last seqs of the producers of one attempt.
    pub(super) fn by_rank(self) -> BTreeMap<u32, u64> {
        self.last_seqs.into_iter().map(|(producer, seq)| (producer.rank, seq)).collect()
    }
}
