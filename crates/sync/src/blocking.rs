//! Work for the threads that may block.

use tokio::task::{JoinError, spawn_blocking};

/// Does the work on such a thread; a panic in it goes on here.
///
/// # Errors
/// The runtime ends.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    spawn_blocking(work).await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => error,
    })
}
