//! Records of an attempt that its agent did not deliver.

use std::fmt::Debug;
use std::io;

use async_trait::async_trait;
use sqlflow_proto::record::Record;

/// Source of the undelivered records of an attempt that has ended: a file that its agent left on this machine, or a
/// query to its platform.
#[async_trait]
pub trait RecordSource: Debug + Send + Sync {
    /// The next records, in order of their sequence numbers and bounded in size; empty at the end.
    ///
    /// # Errors
    /// `InvalidData` or `UnexpectedEof`: the rest is damaged and cannot be read. Any other error is retryable from the
    /// beginning.
    async fn batch(&mut self) -> io::Result<Vec<Record>>;
}
