//! Records of an attempt that did not come on an agent's stream.

use std::fmt::Debug;
use std::io;

use async_trait::async_trait;
use sqlflow_proto::record::Record;

/// Where the records are of an attempt that ended before they were delivered: a file that its agent left on this machine, or
/// a place at its platform that has to be asked.
#[async_trait]
pub trait RecordSource: Debug + Send + Sync {
    /// The records that follow, in order of their numbers and a bounded amount at a time; none at the end.
    ///
    /// # Errors
    /// `InvalidData` or `UnexpectedEof`: what follows is no record, and nothing more can be had. Any other: it cannot be read
    /// now; begin anew later.
    async fn batch(&mut self) -> io::Result<Vec<Record>>;
}
