//! The link to the submitter: requests and answers, a line of JSON each.
//!
//! Requests name a statement of the step document, and never SQL, so that user code cannot run statements of its own.
//! Descriptors of files are passed with their answers. Columns that the submitter computed follow their request as bytes.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::Serialize;
use sqlflow_proto::submitter_channel::COMPANION_FD;

use crate::requests::{Answer, Request};

/// Maximum length of a request, in bytes. It may have the names of all columns, and those of all classes.
const MAX_REQUEST: u64 = 16 << 20;

/// The link.
pub struct Link {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Link {
    /// Opens the link that the agent left in the environment. `None`: the step has no submitter.
    ///
    /// # Errors
    /// In one line.
    pub fn open() -> Result<Option<Self>, String> {
        let Ok(number) = std::env::var(COMPANION_FD) else { return Ok(None) };
        let broken = |cause: String| {
            format!("cannot open the link to the submitter: {COMPANION_FD}={number}: {cause}")
        };
        let descriptor = number.parse().map_err(|_| broken("not a number".to_owned()))?;
        let socket = crate::descriptor::take(descriptor).map_err(|error| broken(error.to_string()))?;
        let writer = socket.try_clone().map_err(|error| broken(error.to_string()))?;
        Ok(Some(Self { reader: BufReader::new(socket), writer }))
    }

    /// Ends a read of the link from another thread.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn canceller(&self) -> io::Result<Box<dyn Fn() + Send>> {
        let socket = self.writer.try_clone()?;
        Ok(Box::new(move || {
            let _ = socket.shutdown(Shutdown::Both);
        }))
    }

    /// The next request; `None`: the submitter has ended.
    ///
    /// # Errors
    /// It is not a request.
    pub fn next(&mut self) -> io::Result<Option<Request>> {
        let mut line = Vec::new();
        (&mut self.reader).take(MAX_REQUEST).read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\n") {
            Some(line) => serde_json::from_slice(line).map(Some).map_err(io::Error::other),
            None if line.is_empty() => Ok(None),
            None => Err(io::Error::other("the request is cut, or too long")),
        }
    }

    /// Bytes that follow a request.
    ///
    /// # Errors
    /// The submitter has ended.
    pub fn bytes(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(buffer)
    }

    /// Reads bytes that follow a request, and ignores them.
    ///
    /// # Errors
    /// The submitter has ended.
    pub fn skip(&mut self, bytes: usize) -> io::Result<()> {
        io::copy(&mut (&mut self.reader).take(bytes as u64), &mut io::sink()).map(drop)
    }

    /// Answers a request.
    ///
    /// # Errors
    /// The submitter has ended.
    pub fn send(&mut self, answer: &Answer<'_>) -> io::Result<()> {
        self.send_with(answer, None)
    }

    /// Answers a request, and passes a file.
    ///
    /// # Errors
    /// The submitter has ended.
    pub fn send_file(&mut self, answer: &Answer<'_>, file: &File) -> io::Result<()> {
        self.send_with(answer, Some(file))
    }

    fn send_with(&mut self, answer: &impl Serialize, file: Option<&File>) -> io::Result<()> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        let descriptors: Vec<_> = file.iter().map(|file| file.as_raw_fd()).collect();
        let control = [ControlMessage::ScmRights(&descriptors)];
        let control = if descriptors.is_empty() { &[] } else { &control[..] };
        let sent =
            sendmsg::<()>(self.writer.as_raw_fd(), &[IoSlice::new(&line)], control, MsgFlags::empty(), None)?;
        self.writer.write_all(&line[sent..])
    }
}
