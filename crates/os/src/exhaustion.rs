//! Errors for exhausted resources of the machine, which are retryable.

use std::io;

use crate::errno::says_exhaustion;
use nix::errno::Errno;

/// Whether the error means that descriptors, memory, processes, disk space or locks are exhausted.
#[must_use]
pub fn is_exhaustion(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| says_exhaustion(Errno::from_raw(code)))
}

/// The fix for such an error, for people.
#[must_use]
pub fn remedy(error: &io::Error) -> Option<&'static str> {
    Some(match Errno::from_raw(error.raw_os_error()?) {
        Errno::EMFILE => "raise the server's limit of open files (ulimit -n, or LimitNOFILE= of its unit)",
        Errno::ENFILE => "raise the machine's limit of open files (sysctl fs.file-max)",
        Errno::ENOMEM | Errno::EAGAIN | Errno::ENOBUFS => "give the server more memory or processes",
        Errno::ENOSPC => "free space on the disk of the server's state folder",
        Errno::EDQUOT => "raise the disk quota of the server's user",
        Errno::ENOLCK => "give the server more memory; on a network file system, start its lock service",
        _ => return None,
    })
}

/// The error, with its fix if one is known.
#[must_use]
pub fn with_remedy(error: &io::Error) -> String {
    remedy(error).map_or_else(|| error.to_string(), |fix| format!("{error}; {fix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exhaustion_errors_have_a_remedy_and_others_none() {
        let of = |errno: Errno| remedy(&errno.into());
        assert!(of(Errno::EMFILE).unwrap().contains("LimitNOFILE"));
        assert!(
            [Errno::ENFILE, Errno::ENOMEM, Errno::EAGAIN, Errno::ENOBUFS, Errno::ENOLCK]
                .map(of)
                .iter()
                .all(|it| it.is_some())
        );
        assert!(of(Errno::ENOSPC).is_some() && of(Errno::EDQUOT).is_some());
        assert_eq!([Errno::ENOENT, Errno::EACCES, Errno::ENOEXEC].map(of), [None; 3]);
    }

    #[test]
    fn exhaustion_is_recognised_by_errno_only() {
        let of = |errno: Errno| is_exhaustion(&errno.into());
        assert!([Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EAGAIN].map(of).iter().all(|it| *it));
        assert!(of(Errno::ENOSPC) && of(Errno::EDQUOT) && of(Errno::ENOLCK));
        assert!(!of(Errno::ENOENT) && !of(Errno::EACCES) && !of(Errno::ENOEXEC));
        assert!(!is_exhaustion(&io::Error::other("too many open files")));
    }
}
