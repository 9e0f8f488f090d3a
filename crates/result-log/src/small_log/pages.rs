//! Reads a page of a small log, whose bytes are in memory: pure.

use bytes::Bytes;
use sqlflow_proto::record::StoredRecord;

use crate::Page;
use crate::frame::{Content, Frames, HEADER, Next};
use crate::read::Wanted;
use crate::summary::Summary;

/// The records after `after`, a position that readers see: up to `max_bytes`, but at least one if there is one.
/// `summary` is that of the bytes.
pub(crate) fn page(
    summary: &Summary,
    bytes: &Bytes,
    after: u64,
    max_bytes: u64,
) -> Result<Page, &'static str> {
    let wanted = Wanted::after(summary, after);
    let records = if bytes.is_empty() { Vec::new() } else { records(bytes, wanted.after, max_bytes)? };
    Ok(wanted.page(records, true))
}

fn records(bytes: &Bytes, after: u64, max_bytes: u64) -> Result<Vec<StoredRecord>, &'static str> {
    let mut frames = Frames::new(bytes.slice(HEADER.len()..), HEADER.len() as u64);
    let (mut records, mut budget) = (Vec::new(), max_bytes);
    loop {
        let frame = match frames.next() {
            Next::Frame(frame) => frame,
            Next::End => return Ok(records),
            Next::Partial(_) => return Err("a frame is cut off"),
            Next::Bad(what) => return Err(what),
        };
        let checked = frame.checked()?;
        if checked.position()?.is_none_or(|position| position <= after) {
            continue;
        }
        let Content::Record(record) = checked.content()? else { continue };
        if !records.is_empty() && frame.len() > budget {
            return Ok(records);
        }
        budget = budget.saturating_sub(frame.len());
        records.push(record);
    }
}
