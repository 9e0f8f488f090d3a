//! Appends to a log: one write and one sync for a group of appends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use sqlflow_proto::record::StoredRecord;

use super::append_plan::plan_append;
use super::durability::Durability;
use super::file_io;
use super::folder::{Folder, SegmentName};
use super::frame::{self, HEADER};
use super::lock::{CommittedOffset, JobLock};
use super::log_state::LogState;
use super::reader_positions;
use super::scan::to_usize;
use super::summary::{SealedAttempt, Summary, is_end};
use super::{Appended, Entry, LogError, Missing, Producer};

/// Records or a seal to append.
#[derive(Debug, Clone)]
pub(super) enum Addition {
    Entries(Vec<Entry>),
    Seal(SealedAttempt, Option<Missing>),
}

impl Addition {
    /// Size of its records; a seal counts as 0.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Entries(entries) => {
                entries.iter().map(|entry| prost::Message::encoded_len(&entry.record)).sum()
            }
            Self::Seal(..) => 0,
        }
    }

    /// The job's end needs no sync: it follows from durable records, and a reconciler that does not find it appends it
    /// again.
    pub(super) fn durability(&self) -> Durability {
        match self {
            Self::Entries(entries) if entries.iter().all(|entry| is_end(&entry.record)) => {
                Durability::Unsynced
            }
            Self::Entries(_) | Self::Seal(..) => Durability::Synced,
        }
    }
}

/// Encoded frames for the end of a log.
pub(super) struct Batch {
    /// Summary after the batch.
    pub(super) summary: Summary,
    birth: u64,
    segment: SegmentName,
    /// Offset in the segment; 0: the segment is new.
    offset: u64,
    buffer: Vec<u8>,
    /// Position and offset of each record.
    places: Vec<(u64, u64)>,
    has_frames: bool,
    /// Readers see no lower position for records of the batch.
    floor: u64,
}

impl Batch {
    /// An empty batch for the end of this log. A tail of `segment_bytes` or more gets no further records.
    pub(super) fn new(view: &LogState, segment_bytes: u64, floor: u64) -> Self {
        let summary = view.summary.clone();
        let (birth, segment, offset) = match view.committed {
            // A new segment after a tail without records would have the tail's name.
            Some(committed)
                if committed.length < segment_bytes || committed.last_position < committed.segment =>
            {
                (committed.birth, committed.segment, committed.length)
            }
            Some(committed) => (committed.birth, summary.last_position + 1, 0),
            None => (rand::random(), 1, 0),
        };
        Self::at(summary, birth, segment, offset, floor)
    }

    /// An empty batch after the first `length` bytes of the first segment, which have this summary.
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

    /// Plans an addition; returns its producers. `limit`: see [`plan_append`].
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

    /// Adds planned records.
    fn add(&mut self, mut records: Vec<StoredRecord>) {
        if let Some(first) = records.first() {
            let shift = reader_positions::next_shift(&self.summary.shifts, first.position, self.floor);
            // Each record has the shift, since damage or retention may remove any of them.
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

    /// Makes the batch durable. After an error the log is unchanged. If the undo fails too, part of the batch may be in
    /// the log.
    pub(super) fn write(&self, folder: &Folder, lock: &JobLock) -> Result<CommittedOffset, LogError> {
        let path = folder.file(self.segment);
        let file = if self.begins_segment() {
            file_io::options().write(true).create_new(true).open(&path)
        } else {
            File::options().write(true).open(&path)
        };
        let file = file.map_err(LogError::io("open", &path))?;
        let written = self.write_to(&file, folder, lock);
        if written.is_err() {
            let undone =
                if self.begins_segment() { fs::remove_file(&path) } else { file.set_len(self.offset) };
            if let Err(error) = undone {
                tracing::warn!(file = %path.display(), %error, "cannot undo a failed append; the next append will");
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
        let committed = CommittedOffset {
            birth: self.birth,
            segment: self.segment.first,
            length: self.end(),
            last_position: self.summary.last_position,
        };
        lock.set_committed(committed)?;
        Ok(committed)
    }

    /// The bytes to append.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.buffer
    }

    /// Size of the segment with the batch.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    /// Updates the state of the log after the write.
    pub(super) fn apply(self, committed: CommittedOffset, view: &mut LogState) {
        if view.committed == Some(committed) {
            // A reader in this process has read the new committed offset already.
            return;
        }
        if self.begins_segment() {
            view.begin_segment(self.segment);
        }
        for (position, offset) in self.places {
            view.tail_index.note(position, offset);
        }
        view.summary = self.summary;
        view.committed = Some(committed);
    }
}

/// The committed offset of a log with one segment of `length` bytes.
pub(super) fn first_committed_offset(summary: &Summary, length: u64) -> CommittedOffset {
    CommittedOffset { birth: rand::random(), segment: 1, length, last_position: summary.last_position }
}

impl Appended {
    /// Result of an append by these producers, after which the log has this summary.
    pub(super) fn of(summary: &Summary, producers: Vec<Producer>) -> Self {
        let seqs = producers.into_iter().map(|producer| (producer, summary.last_seq(producer)));
        Self {
            last_position: summary.reader_last_position(),
            last_seqs: seqs.collect(),
            is_full: summary.is_full,
        }
    }

    /// The last seqs of the producers of one attempt.
    pub(super) fn by_rank(self) -> BTreeMap<u32, u64> {
        self.last_seqs.into_iter().map(|(producer, seq)| (producer.rank, seq)).collect()
    }
}
