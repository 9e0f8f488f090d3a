//! The one module with `unsafe`: starting a child with what must happen between fork and exec, and waiting for any
//! child.

#![expect(unsafe_code, reason = "raw calls that no safe wrapper offers; each says why it is sound")]

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

/// Where the child finds its end of the channel.
pub const CHANNEL_FD: RawFd = 3;

/// Starts `command` in a process group of its own, with `channel` as descriptor [`CHANNEL_FD`], so that the kernel
/// kills it when the calling *thread* ends. Call it on a thread that lives as long as the agent: the main one.
///
/// # Errors
/// Those of fork and exec.
pub fn spawn(command: &mut Command, channel: OwnedFd) -> io::Result<Child> {
    let reserved = reserve(CHANNEL_FD)?;
    let agent = getpid();
    let channel_fd = channel.as_raw_fd();
    command.process_group(0);
    // SAFETY: the closure runs in the forked child and calls only async-signal-safe functions (prctl, getppid, dup2,
    // fcntl); it allocates nothing and takes no lock. `channel` outlives the call of `spawn` below.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if getppid() != agent {
                // The agent died between fork and prctl, so nobody would send the signal.
                return Err(io::ErrorKind::Interrupted.into());
            }
            if channel_fd == CHANNEL_FD {
                // dup2 onto itself would leave close-on-exec set.
                check(libc::fcntl(CHANNEL_FD, libc::F_SETFD, 0))?;
            } else {
                check(libc::dup2(channel_fd, CHANNEL_FD))?;
            }
            Ok(())
        });
    }
    let child = command.spawn();
    drop((channel, reserved));
    child
}

/// Makes sure that the standard library's own exec-error pipe cannot get the number that the child's channel takes:
/// if it is free, something is put there.
fn reserve(fd: RawFd) -> io::Result<Option<std::fs::File>> {
    // SAFETY: F_GETFD on any number only looks.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0 {
        return Ok(None);
    }
    // The lowest free number; those below it are the standard streams.
    std::fs::File::open("/dev/null").map(Some)
}

/// Takes the exit status of one child that has ended: its number and the raw status. `None`: none has ended.
///
/// nix's own `waitpid` loses the status of a process that a real-time signal killed.
///
/// # Errors
/// `ECHILD`: there is no child at all.
pub fn wait_any() -> nix::Result<Option<(Pid, libc::c_int)>> {
    let mut status = 0;
    // SAFETY: waitpid writes one int, to which the pointer is valid.
    match Errno::result(unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) })? {
        0 => Ok(None),
        pid => Ok(Some((Pid::from_raw(pid), status))),
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
