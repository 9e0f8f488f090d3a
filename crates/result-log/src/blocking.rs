//! Blocking work on its own threads.

use std::io;
use std::path::Path;

use sqlflow_sync::blocking;

use super::LogError;

/// Runs the closure on a blocking thread.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    blocking::run(work).await.unwrap_or_else(|ended| {
        Err(LogError::io("use", Path::new("the result log"))(io::Error::other(ended)))
    })
}
