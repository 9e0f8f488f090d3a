//! For how long calls of a failing storage are retried, and with which backoff.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};

#[cfg(any(feature = "hdfs", feature = "http"))]
pub(super) use calls::Calls;

/// Doubles from 100 ms to 5 s. The timeout is checked apart from it, since it can be cut short.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(Duration::from_secs(5))
    .without_max_times();
/// Longest delay until a pause notices that it was hurried or abandoned.
const PAUSE_STEP: Duration = Duration::from_millis(50);
/// Minimum duration of a failure that the job's log reports. Shorter failures are common.
const NOTICE_DELAY: Duration = Duration::from_secs(2);

/// Retry policy of one attempt for its storages: the timeout, and whether it was cut short.
pub struct RetryPolicy {
    timeout: Duration,
    /// Receives a message about a storage that keeps failing.
    notify: OnceLock<Box<dyn Fn(String) + Send + Sync>>,
    /// Failures are final from now on.
    hurried: AtomicBool,
    /// No result is needed any more.
    abandoned: AtomicBool,
}

impl RetryPolicy {
    /// Retries until `timeout` has passed since the first failure.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            notify: OnceLock::new(),
            hurried: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Sets the receiver of a message, one for each call, that a storage keeps failing and is retried. Only the first is kept.
    pub fn on_failing(&self, notify: impl Fn(String) + Send + Sync + 'static) {
        let _ = self.notify.set(Box::new(notify));
    }

    /// Makes failures final from now on.
    pub fn hurry(&self) {
        self.hurried.store(true, Ordering::Relaxed);
    }

    /// Ends all calls with an error as soon as possible.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::abandon`] was called.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Repeats the work with exponential backoff while it fails with a retryable error.
    ///
    /// # Errors
    /// The last one of `work`.
    pub fn retry<T, E: std::fmt::Display>(
        &self,
        mut work: impl FnMut() -> Result<T, E>,
        is_retryable: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        let mut backoff = BACKOFF.build();
        let (mut failing_since, mut is_reported) = (None, false);
        loop {
            let error = match work() {
                Err(error) if is_retryable(&error) => error,
                other => return other,
            };
            let since = *failing_since.get_or_insert_with(Instant::now);
            let Some(pause) = backoff.next().filter(|_| !self.is_over(since)) else { return Err(error) };
            tracing::warn!(%error, pause_ms = pause.as_millis(), "storage failed; retrying");
            if !is_reported && since.elapsed() >= NOTICE_DELAY {
                is_reported = true;
                self.report(&error);
            }
            let next = Instant::now() + pause;
            while Instant::now() < next && !self.is_over(since) {
                std::thread::sleep(PAUSE_STEP.min(pause));
            }
        }
    }

    fn report(&self, error: &impl std::fmt::Display) {
        if let Some(notify) = self.notify.get() {
            let timeout = self.timeout.as_secs();
            notify(format!("the model storage fails: {error}; it is tried again for up to {timeout} s"));
        }
    }

    fn is_over(&self, failing_since: Instant) -> bool {
        failing_since.elapsed() >= self.timeout || self.hurried.load(Ordering::Relaxed) || self.is_abandoned()
    }

    /// The error of an abandoned call.
    pub fn abandoned_error() -> io::Error {
        io::Error::other("the attempt was ended")
    }
}

impl std::fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RetryPolicy").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

#[cfg(any(feature = "hdfs", feature = "http"))]
mod calls {
    use std::future::Future;
    use std::io;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use tokio::runtime::Handle;

    use super::{PAUSE_STEP, RetryPolicy};

    /// Timeout for one call: a server that neither answers nor closes the connection must not block an attempt forever.
    const CALL_TIMEOUT: Duration = Duration::from_secs(300);
    /// Timeout for a cleanup. A later attempt removes what is left: see `staging` and `abandoned_uploads`.
    const CLEANUP_TIMEOUT: Duration = Duration::from_secs(5);

    /// Runs asynchronous calls of a storage on a thread that may block, within the limits of a retry policy.
    #[derive(Debug, Clone)]
    pub struct Calls {
        runtime: Handle,
        retry: Arc<RetryPolicy>,
    }

    impl Calls {
        /// # Errors
        /// There is no runtime around the caller.
        pub fn new(retry: Arc<RetryPolicy>) -> Result<Self, String> {
            let runtime = Handle::try_current().map_err(|error| error.to_string())?;
            Ok(Self { runtime, retry })
        }

        /// Waits for the response.
        ///
        /// # Errors
        /// That of the storage, a timeout, or the attempt was ended.
        pub fn wait<T>(&self, call: impl Future<Output = io::Result<T>>) -> io::Result<T> {
            self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    response = call => response,
                    error = self.cut() => Err(error),
                }
            })
        }

        /// Waits for a cleanup, also after the attempt was ended.
        ///
        /// # Errors
        /// That of the storage, or a timeout.
        pub fn wait_for_cleanup<T>(&self, call: impl Future<Output = io::Result<T>>) -> io::Result<T> {
            self.runtime.block_on(async { tokio::time::timeout(CLEANUP_TIMEOUT, call).await? })
        }

        /// Waits for the response, with retries.
        ///
        /// # Errors
        /// The last one.
        #[cfg(feature = "http")]
        pub fn wait_with_retries<T>(
            &self,
            mut call: impl AsyncFnMut() -> opendal::Result<T>,
        ) -> io::Result<T> {
            let mut call = || -> Result<T, Failure> { Ok(self.wait(async { Ok(call().await) })??) };
            let is_retryable =
                |failure: &Failure| matches!(failure, Failure::Storage(error) if error.is_temporary());
            self.retry.retry(&mut call, is_retryable).map_err(|failure| match failure {
                Failure::Storage(error) => super::super::http::io_error(error),
                Failure::Cut(error) => error,
            })
        }

        /// Ends when the call has to end without a response.
        async fn cut(&self) -> io::Error {
            let begun = Instant::now();
            loop {
                tokio::time::sleep(PAUSE_STEP).await;
                if self.retry.is_abandoned() {
                    return RetryPolicy::abandoned_error();
                }
                if begun.elapsed() > CALL_TIMEOUT {
                    return io::Error::new(io::ErrorKind::TimedOut, "the storage did not answer in time");
                }
            }
        }
    }

    #[cfg(feature = "http")]
    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("{}: {}", .0.kind(), .0.message())]
        Storage(#[from] opendal::Error),
        #[error("{0}")]
        Cut(#[from] io::Error),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Calls that fail, each with the error's number.
    fn failing(policy: &RetryPolicy, is_retryable: impl Fn(&u32) -> bool, before: impl Fn(u32)) -> u32 {
        let calls = Cell::new(0);
        let work = || {
            calls.set(calls.get() + 1);
            before(calls.get());
            Err::<(), _>(calls.get())
        };
        policy.retry(work, is_retryable).unwrap_err()
    }

    #[test]
    fn errors_are_retried_until_the_timeout_or_a_final_error() {
        let policy = RetryPolicy::new(Duration::from_secs(600));
        assert_eq!(failing(&policy, |call| *call < 3, |_| ()), 3);
        assert_eq!(failing(&RetryPolicy::new(Duration::ZERO), |_| true, |_| ()), 1);
    }

    #[test]
    fn hurry_and_abandon_cut_the_backoff() {
        for cut in [RetryPolicy::hurry, RetryPolicy::abandon] {
            let policy = RetryPolicy::new(Duration::from_secs(600));
            let cut_second = |call| {
                if call == 2 {
                    cut(&policy);
                }
            };
            assert_eq!(failing(&policy, |_| true, cut_second), 2);
        }
    }

    #[test]
    fn user_is_reported_once_of_a_storage_that_keeps_failing() {
        let policy = RetryPolicy::new(Duration::from_secs(60));
        let told = Arc::new(Mutex::new(Vec::new()));
        let tells = Arc::clone(&told);
        policy.on_failing(move |text| tells.lock().unwrap().push(text));
        let mut tries_after = 0;
        let ended: Result<(), &str> = policy.retry(
            || {
                tries_after += usize::from(!told.lock().unwrap().is_empty());
                if tries_after == 2 { Ok(()) } else { Err("connection refused") }
            },
            |_| true,
        );
        ended.unwrap();
        let expected = "the model storage fails: connection refused; it is tried again for up to 60 s";
        assert_eq!(*told.lock().unwrap(), [expected]);
    }
}
