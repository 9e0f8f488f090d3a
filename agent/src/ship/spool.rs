//! Records that no server took, on disk: length-delimited, in order, durable before the agent exits.

use std::io::{self, Write as _};
use std::path::Path;

use bytes::BytesMut;
use prost::Message as _;

use super::link::Unacked;
use super::overflow::Overflow;
use crate::durable;

/// Name in the run folder.
pub const FILE: &str = "spool";

/// Writes everything that is unacknowledged to `<dir>/spool`, whole or not at all.
///
/// # Errors
/// The file cannot be written durably.
pub fn write(dir: &Path, unacked: &Unacked, overflow: Option<&Overflow>) -> io::Result<()> {
    durable::replace(&dir.join(FILE), |file| {
        let mut encoded = BytesMut::new();
        for record in &unacked.records {
            record.encode_length_delimited(&mut encoded)?;
        }
        file.write_all(&encoded)?;
        if let Some(overflow) = overflow {
            overflow.copy_to(unacked.on_disk.clone(), file)?;
        }
        file.write_all(&unacked.encoded)
    })
}
