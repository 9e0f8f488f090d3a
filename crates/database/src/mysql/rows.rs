//! Rows of the text protocol, in batches.

use std::time::{Duration, Instant};

use super::failure::Failure;
use super::packets::Packets;
use crate::batcher::{Batcher, MAX_DELAY};
use crate::printed::{self, Decoder, PrintedColumn};
use crate::{Batch, Results};

/// Receives the rows of a result set. Returns whether another result follows.
pub(super) fn receive_rows(
    packets: &mut Packets,
    decoders: &[Decoder],
    results: &mut dyn Results,
) -> Result<bool, Failure> {
    let mut columns: Vec<PrintedColumn> = decoders.iter().map(|_| PrintedColumn::default()).collect();
    let mut batcher = Batcher::new();
    let mut since = Instant::now();
    let mut send = |columns: &mut [PrintedColumn], batcher: &mut Batcher| {
        let columns = columns
            .iter_mut()
            .zip(decoders)
            .map(|(column, decoder)| printed::decode(&column.take(), *decoder));
        let batch = Batch { rows: batcher.rows(), columns: columns.collect() };
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
        push_row(packet, &mut columns).ok_or(Failure::Protocol("a malformed row"))?;
        if batcher.rows() == 0 {
            since = Instant::now();
        }
        batcher.add(size);
        // Reading the clock costs as much as reading a value.
        let age = if batcher.rows().is_multiple_of(64) { since.elapsed() } else { Duration::ZERO };
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

/// Adds a row. `None`: it is malformed.
fn push_row(row: &[u8], columns: &mut [PrintedColumn]) -> Option<()> {
    let mut rest = row;
    for column in columns {
        let (&first, after) = rest.split_first()?;
        let (length, after) = match first {
            0..=250 => (usize::from(first), after),
            251 => {
                column.push_null();
                rest = after;
                continue;
            }
            252 => long_length::<2>(after)?,
            253 => long_length::<3>(after)?,
            254 => long_length::<8>(after)?,
            255 => return None,
        };
        let (value, after) = after.split_at_checked(length)?;
        column.push(value);
        rest = after;
    }
    rest.is_empty().then_some(())
}

/// A length of `N` bytes, and the bytes after it.
fn long_length<const N: usize>(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, after) = bytes.split_first_chunk::<N>()?;
    let mut number = [0; 8];
    number[..N].copy_from_slice(length);
    Some((usize::try_from(u64::from_le_bytes(number)).ok()?, after))
}
