//! Errors that say that the machine has run out of something: they pass, and what failed is worth another try.

use std::io;

use nix::errno::Errno;

/// Whether the error says that descriptors, memory, processes or disk space are used up.
#[must_use]
pub fn is_exhaustion(error: &io::Error) -> bool {
    let exhausted = [
        Errno::EMFILE,
        Errno::ENFILE,
        Errno::ENOMEM,
        Errno::EAGAIN,
        Errno::ENOBUFS,
        Errno::ENOSPC,
        Errno::EDQUOT,
    ];
    error.raw_os_error().is_some_and(|code| exhausted.contains(&Errno::from_raw(code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passes_is_exhaustion() {
        let of = |errno: Errno| is_exhaustion(&errno.into());
        assert!([Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EAGAIN].map(of).iter().all(|it| *it));
        assert!(of(Errno::ENOSPC) && of(Errno::EDQUOT));
        assert!(!of(Errno::ENOENT) && !of(Errno::EACCES) && !of(Errno::ENOEXEC));
        assert!(!is_exhaustion(&io::Error::other("too many open files")));
    }
}
