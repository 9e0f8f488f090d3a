//! What an error code of the system says of the cause, for the agent and for a server.

use nix::errno::Errno;

/// Whether descriptors, memory, processes, disk space or locks are used up. That passes, so what failed is tried again.
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

/// Whether bytes that are read, or what the file system knows of them, are damaged on the disk. EUCLEAN and EBADMSG are
/// about a checksum of the file system. All other errors pass, or are for a person.
#[must_use]
pub fn says_damage(errno: Errno) -> bool {
    matches!(errno, Errno::EIO | Errno::EUCLEAN | Errno::EBADMSG)
}
