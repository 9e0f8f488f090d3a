//! A FIFO at which a command waits for its test.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::sys::stat::Mode;

use crate::until::until;

/// A FIFO that a command reads a line from, as `read line < gate` does.
///
/// A command that waits at the same gate twice must read until it gets a line. The test may close its first writer only
/// then, which is an end of file for the second read.
#[derive(Debug)]
pub struct Gate(PathBuf);

impl Gate {
    /// Creates the FIFO. Call it before the command starts.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        Self::at(path)
    }

    /// The existing gate at this path.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Lets the command continue once it waits at the gate. If it never does, the test fails.
    pub fn open(&self) {
        let mut writer = None;
        until("the command waits at the gate", || {
            match std::fs::File::options().write(true).custom_flags(O_NONBLOCK).open(&self.0) {
                Ok(file) => writer = Some(file),
                // No process has opened it for reading.
                Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {}
                Err(error) => panic!("{}: {error}", self.0.display()),
            }
            writer.is_some()
        });
        writer.unwrap().write_all(b"go\n").unwrap();
    }
}
