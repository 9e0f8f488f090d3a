//! Classes of system error codes, for the agent and the server.

use nix::errno::Errno;

/// Whether descriptors, memory, processes, disk space or locks are exhausted. Such errors are retryable.
#[must_use]
pub fn says_exhaustion(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EMFILE
            | Errno::ENFILE
            | Errno::ENOMEM
            | Errno::EAGAIN
            | Errno::ENOBUFS
            | Errno::ENOSPC
            | Errno::EDQUOT
            | Errno::ENOLCK
    )
}

/// Whether data or metadata is damaged on the disk. EUCLEAN and EBADMSG are checksum errors of the file system. All
/// other errors are retryable or need a person.
#[must_use]
pub fn says_damage(errno: Errno) -> bool {
    matches!(errno, Errno::EIO | Errno::EUCLEAN | Errno::EBADMSG)
}
