//! Rows in batches, and those of the text protocol.

use std::time::{Duration, Instant};

use super::failure::Failure;
use super::packets::Packets;
use crate::batcher::{Batcher, CLOCK_ROWS, MAX_DELAY};
use crate::printed::{self, Decoder, PrintedColumn};
use crate::{Batch, Results, Values};

/// The columns of the batch that is being filled.
pub(super) trait Columns {
    /// Adds a row. `None`: it is malformed.
    fn push_row(&mut self, row: &[u8]) -> Option<()>;

    /// Takes the values, and begins the next batch.
    fn take(&mut self) -> Vec<Values>;
}

/// Receives the rows of a result set. Returns whether another result follows.
pub(super) fn receive_rows(
    packets: &mut Packets,
    mut columns: impl Columns,
    results: &mut dyn Results,
) -> Result<bool, Failure> {
    let mut batcher = Batcher::new(results.limits());
    let mut since = Instant::now();
    let mut send = |columns: &mut dyn Columns, batcher: &mut Batcher| {
        let batch = Batch { rows: batcher.rows(), columns: columns.take() };
        batcher.next();
        results.batch(batch)
    };
    loop {
        let Some(packet) = packets.poll()? else {
            // The query is slow.
            if batcher.rows() > 0 && since.elapsed() >= MAX_DELAY {
                send(&mut columns, &mut batcher)?;
            }
            continue;
        };
        if let Some(has_more) = end(packet)? {
            if batcher.rows() > 0 {
                send(&mut columns, &mut batcher)?;
            }
            return Ok(has_more);
        }
        let size = packet.len();
        columns.push_row(packet).ok_or(Failure::Protocol("a malformed row"))?;
        if batcher.rows() == 0 {
            since = Instant::now();
        }
        batcher.add(size);
        // Always while the query is slow.
        let reads_clock = !packets.has_next() || batcher.rows().is_multiple_of(CLOCK_ROWS);
        let age = if reads_clock { since.elapsed() } else { Duration::ZERO };
        if batcher.is_full(age) {
            send(&mut columns, &mut batcher)?;
        }
    }
}

/// Whether another result follows, if the packet ends the rows.
fn end(packet: &[u8]) -> Result<Option<bool>, Failure> {
    match packet {
        [0xff, ..] => Err(Failure::from_packet(packet)),
        [0xfe, ..] if packet.len() < 9 => Ok(Some(has_more_results(packet))),
        _ => Ok(None),
    }
}

/// Whether another result follows this packet without columns.
pub(super) fn has_more_results(end: &[u8]) -> bool {
    const MORE_RESULTS: u8 = 8;

    // Two bytes of warnings, two of the status.
    end.get(3).is_some_and(|status| status & MORE_RESULTS != 0)
}

/// Columns of the text protocol.
impl Columns for Vec<(PrintedColumn, Decoder)> {
    fn push_row(&mut self, row: &[u8]) -> Option<()> {
        const NULL: u8 = 251;

        let mut rest = row;
        for (column, _) in self {
            if let [NULL, after @ ..] = rest {
                column.push_null();
                rest = after;
            } else {
                let (value, after) = length_encoded(rest)?;
                column.push(value);
                rest = after;
            }
        }
        rest.is_empty().then_some(())
    }

    fn take(&mut self) -> Vec<Values> {
        self.iter_mut().map(|(column, decoder)| printed::decode(&column.take(), *decoder)).collect()
    }
}

/// The value with which the bytes begin, after its length, and the bytes after it.
pub(super) fn length_encoded(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, after) = bytes.split_first()?;
    let (length, after) = match first {
        0..=250 => (usize::from(first), after),
        251 | 255 => return None,
        252 => long_length::<2>(after)?,
        253 => long_length::<3>(after)?,
        254 => long_length::<8>(after)?,
    };
    after.split_at_checked(length)
}

/// A length of `N` bytes, and the bytes after it.
fn long_length<const N: usize>(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, after) = bytes.split_first_chunk::<N>()?;
    let mut number = [0; 8];
    number[..N].copy_from_slice(length);
    Some((usize::try_from(u64::from_le_bytes(number)).ok()?, after))
}
