//! Descriptors that this process inherited. The one place with `unsafe`.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Takes a socket that this process inherited. Programs that it starts do not inherit it.
pub fn take(number: RawFd) -> io::Result<UnixStream> {
    if number < 3 || std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_err() {
        return Err(io::Error::other("no such descriptor"));
    }
    // SAFETY: the descriptor is open. The agent leaves it to this process, whose other descriptors are opened by the
    // standard library; this is called once, before any other is opened and kept.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(UnixStream::from(descriptor))
}
