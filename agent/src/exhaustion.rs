//! Errors that say that the machine, or a limit of ours, has run out of something. They pass, so what failed is tried again.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use sqlflow_os::errno::says_exhaustion;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Timeout for what an agent needs before it can attach: nobody hears of it until then. A server tries a launch only
/// three times, within seconds.
pub const LAUNCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether the cause is that something is used up; see [`says_exhaustion`].
pub fn is_exhaustion(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let errno = cause.downcast_ref::<Errno>().copied();
        let code = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        errno.or(code.map(Errno::from_raw)).is_some_and(says_exhaustion)
    })
}

/// Does the work again while it fails for exhaustion, until `limit` has passed since the first failure. Blocks.
///
/// # Errors
/// The last one of `work`.
pub fn outlast<T>(limit: Duration, mut work: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match work() {
            Err(error) if is_exhaustion(&error) && begun.elapsed() < limit => {
                tracing::warn!("{error:#}; trying again");
            }
            done => return done,
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
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
    fn only_what_passes_is_exhaustion_wherever_it_is_in_the_chain() {
        let of = |errno: Errno| is_exhaustion(&failed(errno).unwrap_err());
        assert!([Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EAGAIN].map(of).iter().all(|it| *it));
        assert!(of(Errno::ENOBUFS) && of(Errno::ENOSPC) && of(Errno::EDQUOT) && of(Errno::ENOLCK));
        assert!(!of(Errno::ENOENT) && !of(Errno::EACCES) && !of(Errno::ENOEXEC) && !of(Errno::E2BIG));
        assert!(is_exhaustion(&anyhow::Error::from(Errno::ENFILE).context("cannot lock")));
        assert!(!is_exhaustion(&anyhow::anyhow!("too many open files")));
    }

    #[test]
    fn what_passes_is_tried_again_until_the_limit_and_the_rest_is_final() {
        let count = |limit, errno, failures: u32| {
            let mut tried = 0;
            let done = outlast(limit, || {
                tried += 1;
                if tried <= failures { failed(errno) } else { Ok(()) }
            });
            (done.is_ok(), tried)
        };
        assert_eq!(count(LAUNCH_TIMEOUT, Errno::EAGAIN, 2), (true, 3));
        assert_eq!(count(LAUNCH_TIMEOUT, Errno::ENOENT, 2), (false, 1));
        assert_eq!(count(Duration::from_millis(50), Errno::EAGAIN, u32::MAX), (false, 2));
        assert_eq!(count(Duration::ZERO, Errno::EAGAIN, 1), (false, 1), "no wait at all");
    }
}
