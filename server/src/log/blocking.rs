//! Work for the threads that may block.

use super::LogError;

/// Does the work on such a thread.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => {
                Err(LogError::io("use", std::path::Path::new("the result log"))(std::io::Error::other(error)))
            }
        },
    }
}
