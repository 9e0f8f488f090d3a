//! How long a storage that fails is waited for.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[cfg(any(feature = "hdfs", feature = "http"))]
pub(super) use wait::Waiting;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a pause may go on after it was hurried or abandoned.
const PAUSE_STEP: Duration = Duration::from_millis(50);

/// The patience of one attempt with its storages: how long they may fail, and whether that was cut short.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    /// Failures are final from now on.
    hurried: AtomicBool,
    /// Nothing is wanted any more.
    abandoned: AtomicBool,
}

impl Patience {
    /// A storage may fail for `limit`, counted from its first failure.
    pub fn new(limit: Duration) -> Self {
        Self { limit, hurried: AtomicBool::new(false), abandoned: AtomicBool::new(false) }
    }

    /// Failures are final from now on.
    pub fn hurry(&self) {
        self.hurried.store(true, Ordering::Relaxed);
    }

    /// Whatever is under way ends with an error as soon as can be.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Whether nothing is wanted any more.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Does the work again while it fails and `may_pass` says that the error may pass, with growing pauses.
    ///
    /// # Errors
    /// The last one of `work`.
    pub fn retry<T, E: std::fmt::Display>(
        &self,
        mut work: impl FnMut() -> Result<T, E>,
        may_pass: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        let mut pause = FIRST_PAUSE;
        let mut failing_since = None;
        loop {
            let error = match work() {
                Err(error) if may_pass(&error) => error,
                other => return other,
            };
            let since = *failing_since.get_or_insert_with(Instant::now);
            if self.is_over(since) {
                return Err(error);
            }
            tracing::warn!(%error, pause_ms = pause.as_millis(), "storage failed; trying again");
            let next = Instant::now() + pause;
            while Instant::now() < next && !self.is_over(since) {
                std::thread::sleep(PAUSE_STEP.min(pause));
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn is_over(&self, failing_since: Instant) -> bool {
        failing_since.elapsed() >= self.limit || self.hurried.load(Ordering::Relaxed) || self.is_abandoned()
    }

    /// The error of what was abandoned.
    pub fn abandoned_error() -> io::Error {
        io::Error::other("the attempt was ended")
    }
}

#[cfg(any(feature = "hdfs", feature = "http"))]
mod wait {
    use std::future::Future;
    use std::io;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use tokio::runtime::Handle;

    use super::{PAUSE_STEP, Patience};

    /// Nothing that is asked of a storage once takes longer than this: a server that neither answers nor closes must
    /// not hold an attempt for ever.
    const LONGEST_ANSWER: Duration = Duration::from_secs(300);
    /// What is left to be cleared after this time is somebody else's: see `staging` and `uploads`.
    const CLEARED: Duration = Duration::from_secs(5);

    /// Lets a thread that may block wait for a storage's answer, no longer than patience allows.
    #[derive(Debug, Clone)]
    pub struct Waiting {
        runtime: Handle,
        patience: Arc<Patience>,
    }

    impl Waiting {
        /// # Errors
        /// There is no runtime around the caller.
        pub fn new(patience: Arc<Patience>) -> Result<Self, String> {
            let runtime = Handle::try_current().map_err(|error| error.to_string())?;
            Ok(Self { runtime, patience })
        }

        /// Waits for the answer.
        ///
        /// # Errors
        /// That of the storage, or that it took too long.
        pub fn wait<T>(&self, answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
            self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    answer = answer => answer,
                    error = self.end_of_patience() => Err(error),
                }
            })
        }

        /// Waits for a moment, also when patience has ended: for the removal of what would stay behind.
        ///
        /// # Errors
        /// That of the storage, or that it took too long.
        pub fn wait_to_clear<T>(&self, answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
            self.runtime.block_on(async { tokio::time::timeout(CLEARED, answer).await? })
        }

        /// Asks again while the answer is an error that may pass.
        ///
        /// # Errors
        /// The last one.
        #[cfg(feature = "http")]
        pub fn persist<T>(&self, mut ask: impl AsyncFnMut() -> opendal::Result<T>) -> io::Result<T> {
            let mut ask = || -> Result<T, Failure> { Ok(self.wait(async { Ok(ask().await) })??) };
            let may_pass =
                |failure: &Failure| matches!(failure, Failure::Storage(error) if error.is_temporary());
            let asked = self.patience.retry(&mut ask, may_pass);
            asked.map_err(|failure| match failure {
                Failure::Storage(error) => super::super::http::io_error(error),
                Failure::Waiting(error) => error,
            })
        }

        async fn end_of_patience(&self) -> io::Error {
            let begun = Instant::now();
            loop {
                tokio::time::sleep(PAUSE_STEP).await;
                if self.patience.is_abandoned() {
                    return Patience::abandoned_error();
                }
                if begun.elapsed() > LONGEST_ANSWER {
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
        Waiting(#[from] io::Error),
    }
}
