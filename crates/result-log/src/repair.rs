//! Repair of a damaged log, under its lock. Damaged means: bytes changed, or the disk cannot read them. A damaged file
//! is kept beside the log as `<name>.damaged`. Its readable records stay, and a gap record stands for the others. The
//! repaired file is a `.kept` file, in which positions may be missing. The tail first gets a new, empty successor, so
//! that an interrupted repair leaves a log that can be repaired.
//!
//! Memory: twice the bytes of the damaged file.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bytes::Bytes;

use super::LogError;
use super::file_io;
use super::folder::{Folder, SegmentName};
use super::frame::{HEADER, SHORTEST_RECORD, push_record, push_summary, record_len};
use super::inspect::{Extent, parts};
use super::lock::{CommittedOffset, JobLock};
use super::partial_read::Contents;
use super::reader_positions;
use super::salvage::{Salvaged, last_good, salvage};
use super::scan::Scan;
use super::summary::Summary;

/// Writes gap records for missing files.
pub(super) fn fill_holes(folder: &Folder, held: &JobLock) -> Result<(), LogError> {
    for part in parts(folder, held.committed()?)? {
        if let Extent::Missing(last) = part.extent {
            fill_hole(folder, held, part.name.first, last)?;
        }
    }
    Ok(())
}

/// Sets the committed offset of a log that has neither one nor a tail. There was a tail, because retention keeps it.
/// One position stands for its content.
pub(super) fn commit_end_of_kept(folder: &Folder, held: &JobLock) -> Result<(), LogError> {
    let Some(kept_to) = folder.list()?.segments.last().and_then(|last| last.kept_to) else {
        return Ok(());
    };
    let segment = kept_to.saturating_add(1);
    held.set_committed(CommittedOffset {
        birth: rand::random(),
        segment,
        length: 0,
        last_position: segment,
    })?;
    Ok(())
}

/// Writes a gap record for the missing file of these positions.
fn fill_hole(folder: &Folder, held: &JobLock, first: u64, last: u64) -> Result<(), LogError> {
    let gap = salvage(&Bytes::new(), first, last, false).records;
    let kept = SegmentName { first, kept_to: Some(last) };
    install(folder, kept, &Summary::at(first.saturating_sub(1)), &gap)?;
    forget_files(held)?;
    tracing::error!(log = %folder.path.display(), first, last, "replaced a missing file of a result log by a gap record");
    Ok(())
}

/// Gives the log a new birth, so that each server with the old files in memory reads it again.
fn forget_files(held: &JobLock) -> Result<(), LogError> {
    match held.committed()? {
        Some(committed) => held.set_committed(CommittedOffset { birth: rand::random(), ..committed }),
        None => Ok(()),
    }
}

/// Repairs the end of a log whose tail does not match `committed`. No effect without damage.
pub(super) fn repair_end(
    folder: &Folder,
    held: &JobLock,
    committed: CommittedOffset,
) -> Result<(), LogError> {
    let segments: Vec<_> =
        folder.list()?.segments.into_iter().filter(|name| name.first <= committed.segment).collect();
    let tail = SegmentName::live(committed.segment);
    let contents = match segments.last() {
        Some(last) if *last == tail => {
            let contents = Contents::read(&folder.file(tail))?;
            let scan = Scan::of(contents.clone(), committed.length);
            if scan.good == committed.length && contents.unreadable.is_none() {
                return Ok(());
            }
            Some(contents)
        }
        Some(_) | None => None,
    };
    let is_missing = contents.is_none();
    let Contents { bytes, unreadable } = contents.unwrap_or_default();
    let last = last_position(&bytes, unreadable, committed);
    let Salvaged { head, mut records, seals, lost_last, .. } = salvage(&bytes, tail.first, last, false);
    let is_known = head.is_some() || !records.is_empty();
    let before = match head {
        Some(head) => head,
        None => summary_before(folder, &segments, tail)?,
    };
    let mut summary = before.clone();
    if let Some((at_end, others)) = records.split_last_mut() {
        others.iter().for_each(|record| summary.note(record, record_len(record)));
        if lost_last {
            // The position that readers saw is not known. A higher shift only repeats the record.
            at_end.shift = reader_positions::next_shift(&summary.shifts, at_end.position, folder.floor_now())
                .max(at_end.shift);
        }
        summary.note(at_end, record_len(at_end));
    }
    seals.into_iter().for_each(|seal| summary.note_seal(seal));
    summary.last_position = last.max(tail.first - 1);
    if !is_known {
        // The last position that readers saw is not known.
        let next = summary.last_position + 1;
        let shift = reader_positions::next_shift(&summary.shifts, next, folder.floor_now());
        reader_positions::add_shift(&mut summary.shifts, next, shift);
    }
    // The lost records may include the start of a statement, or rows.
    summary.is_damaged = true;

    let successor = SegmentName::live(summary.last_position + 1);
    if successor == tail && !is_missing {
        keep_aside(folder, tail)?;
    }
    let length = install(folder, successor, &summary, &[])?;
    held.set_committed(CommittedOffset {
        birth: committed.birth,
        segment: successor.first,
        length,
        last_position: summary.last_position,
    })?;
    if successor != tail {
        let kept = SegmentName { first: tail.first, kept_to: Some(summary.last_position) };
        replace(folder, (!is_missing).then_some(tail), kept, &before, &records)?;
    }
    tracing::error!(
        log = %folder.path.display(), last_position = summary.last_position,
        "repaired the damaged end of a result log; a gap record stands for the lost records"
    );
    Ok(())
}

/// The last position of a tail. After a power failure the committed offset may be too small.
fn last_position(bytes: &Bytes, unreadable: Option<Range<usize>>, committed: CommittedOffset) -> u64 {
    let good = last_good(bytes, 0, committed.last_position);
    let last = good.map_or(committed.last_position, |good| good.position);
    let end = good.map_or(committed.length, |good| committed.length.max(good.end as u64));
    match unreadable {
        // The number of lost records is not known. Their maximum number is used, so that no position is used twice.
        Some(unreadable) if unreadable.end as u64 > end => {
            last + (bytes.len() as u64 - end).div_ceil(SHORTEST_RECORD)
        }
        Some(_) | None => last,
    }
}

/// Repairs this file, if it belongs to the log and is not its tail. No effect without damage.
pub(super) fn repair_file(folder: &Folder, held: &JobLock, path: &Path) -> Result<(), LogError> {
    let segments = folder.list()?.segments;
    let Some(index) = segments.iter().position(|name| folder.file(*name) == path) else { return Ok(()) };
    let (name, Some(next)) = (segments[index], segments.get(index + 1)) else { return Ok(()) };
    let last = name.kept_to.unwrap_or(next.first - 1);
    let contents = Contents::read(path)?;
    let salvaged = salvage(&contents.bytes, name.first, last, name.kept_to.is_some());
    if !salvaged.is_damaged && contents.unreadable.is_none() {
        return Ok(());
    }
    // Only retention uses this value, and it takes it from the tail's summary.
    let before = salvaged.head.unwrap_or_else(|| Summary::at(name.first - 1));
    let kept = SegmentName { first: name.first, kept_to: Some(last) };
    replace(folder, Some(name), kept, &before, &salvaged.records)?;
    forget_files(held)?;
    tracing::error!(file = %path.display(), "repaired a damaged file of a result log; a gap record stands for the lost records");
    Ok(())
}

/// Summary of all records before the tail, from the files before it.
fn summary_before(folder: &Folder, segments: &[SegmentName], tail: SegmentName) -> Result<Summary, LogError> {
    let Some(&previous) = segments.iter().rev().find(|name| **name != tail) else {
        return Ok(Summary::default());
    };
    let last = previous.kept_to.unwrap_or(tail.first - 1);
    let contents = Contents::read(&folder.file(previous))?;
    let found = salvage(&contents.bytes, previous.first, last, previous.kept_to.is_some());
    let mut summary = found.head.unwrap_or_default();
    for record in &found.records {
        summary.note(record, record_len(record));
    }
    found.seals.into_iter().for_each(|seal| summary.note_seal(seal));
    summary.last_position = tail.first - 1;
    Ok(summary)
}

/// Puts `kept` in place of `damaged`, which is kept beside the log.
fn replace(
    folder: &Folder,
    damaged: Option<SegmentName>,
    kept: SegmentName,
    before: &Summary,
    records: &[sqlflow_proto::record::StoredRecord],
) -> Result<(), LogError> {
    if let Some(damaged) = damaged {
        keep_aside(folder, damaged)?;
    }
    install(folder, kept, before, records)?;
    match damaged.filter(|damaged| *damaged != kept) {
        Some(damaged) => {
            let path = folder.file(damaged);
            match fs::remove_file(&path) {
                // The new file already replaces it.
                Err(error) if file_io::is_unreadable(&error) => {
                    tracing::warn!(file = %path.display(), %error, "cannot remove a damaged file; check the file system");
                    Ok(())
                }
                removed => removed.map_err(LogError::io("remove", &path)),
            }
        }
        None => Ok(()),
    }
}

/// Writes a file of these records; returns its length.
fn install(
    folder: &Folder,
    name: SegmentName,
    before: &Summary,
    records: &[sqlflow_proto::record::StoredRecord],
) -> Result<u64, LogError> {
    let mut bytes = HEADER.to_vec();
    push_summary(&mut bytes, before);
    records.iter().for_each(|record| push_record(&mut bytes, record));
    folder.install(name, &bytes)?;
    Ok(bytes.len() as u64)
}

/// Gives the file a second name, which no cleanup removes.
fn keep_aside(folder: &Folder, name: SegmentName) -> Result<(), LogError> {
    let path = folder.file(name);
    for number in 0_u32.. {
        let suffix = if number == 0 { String::new() } else { format!("-{number}") };
        let aside = folder.path.join(format!("{}{suffix}.damaged", name.file_name()));
        match fs::hard_link(&path, &aside) {
            Ok(()) => return Ok(()),
            // An interrupted repair has done this.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_same_file(&path, &aside) => {
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // The file is missing.
            Err(error) if file_io::is_unreadable(&error) => {
                tracing::warn!(file = %path.display(), %error, "cannot keep a damaged file aside; check the file system");
                return Ok(());
            }
            Err(error) => return Err(LogError::io("keep aside", &path)(error)),
        }
    }
    Ok(())
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}
