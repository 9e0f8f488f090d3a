//! Exhaustion: the machine, or a limit of the agent, has run out of something. Such errors are retryable.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use nix::errno::Errno;

use sqlflow_os::errno::says_exhaustion;

/// The timeout is checked apart from it: it includes the time of the work itself.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(Duration::from_secs(1))
    .without_max_times();

/// Timeout for what an agent needs before it can attach: until then it can report nothing. A server retries a launch
/// only three times, within seconds.
pub const LAUNCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether an error in the chain says that something is exhausted; see [`says_exhaustion`].
pub fn is_exhaustion(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let errno = cause.downcast_ref::<Errno>().copied();
        let code = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        errno.or(code.map(Errno::from_raw)).is_some_and(says_exhaustion)
    })
}

/// Retries the work while it fails for exhaustion, until the timeout. Blocks.
///
/// # Errors
/// The last one of `work`.
pub fn retry_exhaustion<T>(
    timeout: Duration,
    mut work: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    let mut backoff = BACKOFF.build();
    loop {
        let error = match work() {
            Err(error) if is_exhaustion(&error) && begun.elapsed() < timeout => error,
            done => return done,
        };
        let Some(pause) = backoff.next() else { return Err(error) };
        tracing::warn!("{error:#}; retrying");
        std::thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context as _;

    use super::*;

    fn failed(errno: Errno) -> anyhow::Result<()> {
        Err(io::Error::from(errno)).context("cannot start python")
    }

    #[test]
    fn exhaustion_is_found_anywhere_in_the_chain() {
        let of = |errno: Errno| is_exhaustion(&failed(errno).unwrap_err());
        assert!([Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EAGAIN].map(of).iter().all(|it| *it));
        assert!(of(Errno::ENOBUFS) && of(Errno::ENOSPC) && of(Errno::EDQUOT) && of(Errno::ENOLCK));
        assert!(!of(Errno::ENOENT) && !of(Errno::EACCES) && !of(Errno::ENOEXEC) && !of(Errno::E2BIG));
        assert!(is_exhaustion(&anyhow::Error::from(Errno::ENFILE).context("cannot lock")));
        assert!(!is_exhaustion(&anyhow::anyhow!("too many open files")));
    }

    #[test]
    fn exhaustion_is_retried_until_the_timeout_and_other_errors_are_final() {
        let count = |timeout, errno, failures: u32| {
            let mut tried = 0;
            let done = retry_exhaustion(timeout, || {
                tried += 1;
                if tried <= failures { failed(errno) } else { Ok(()) }
            });
            (done.is_ok(), tried)
        };
        assert_eq!(count(LAUNCH_TIMEOUT, Errno::EAGAIN, 2), (true, 3));
        assert_eq!(count(LAUNCH_TIMEOUT, Errno::ENOENT, 2), (false, 1));
        assert_eq!(count(Duration::from_millis(50), Errno::EAGAIN, u32::MAX), (false, 2));
        assert_eq!(count(Duration::ZERO, Errno::EAGAIN, 1), (false, 1), "no pause at all");
    }
}
