//! Blocking work, on tokio's threads for it.

use tokio::task::{JoinError, spawn_blocking};

/// Runs the work on a blocking thread. A panic in it is resumed here.
///
/// # Errors
/// The runtime shuts down.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    spawn_blocking(work).await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => error,
    })
}
