//! Records that no server took, on disk: length-delimited, in order, durable before the agent exits.

use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use prost::Message as _;
use sqlflow_proto::record::Record;

use crate::durable;

/// Name in the run folder.
pub const FILE: &str = "spool";

/// Writes `records` to `<dir>/spool`, whole or not at all.
///
/// # Errors
/// The file cannot be written durably.
pub fn write(dir: &Path, records: &[Record]) -> io::Result<()> {
    durable::replace(&dir.join(FILE), |file| {
        let mut file = BufWriter::new(file);
        for record in records {
            file.write_all(&record.encode_length_delimited_to_vec())?;
        }
        file.flush()
    })
}
