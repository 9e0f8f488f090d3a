//! The link to the submitter: requests and answers, a line of JSON each.
//!
//! Requests name a select of the step document, and never SQL, so that user code cannot run statements of its own.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IoSlice, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::{Deserialize, Serialize};
use sqlflow_database::{Error, ErrorKind, Missing};
use sqlflow_proto::submitter_channel::COMPANION_FD;

use crate::column_file::WrittenFile;

/// Maximum length of a request.
const MAX_REQUEST: u64 = 64 << 10;

/// A request of the submitter.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Reads a select. The answers are [`Answer::Rows`] while it is read, and then [`Answer::ColumnFile`] with the file.
    Read(Select),
}

/// A select of the step's extended statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// The select of the statement.
    Statement,
    /// `validation.select`.
    Validation,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer<'a> {
    Rows(u64),
    ColumnFile { columns: Vec<(&'a str, &'a str)>, streams: &'a [u64] },
    Error(Failed<'a>),
}

#[derive(Serialize)]
struct Failed<'a> {
    message: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_table: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_column: Option<&'a str>,
}

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

    /// The next request; `None`: the submitter has ended.
    ///
    /// # Errors
    /// It is not a request.
    pub fn next(&mut self) -> io::Result<Option<Request>> {
        let mut line = Vec::new();
        io::Read::take(&mut self.reader, MAX_REQUEST).read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\n") {
            Some(line) => serde_json::from_slice(line).map(Some).map_err(io::Error::other),
            None if line.is_empty() => Ok(None),
            None => Err(io::Error::other("the request is cut, or too long")),
        }
    }

    /// Reports the number of rows that were read so far.
    ///
    /// # Errors
    /// The submitter has ended.
    pub fn rows(&mut self, rows: u64) -> io::Result<()> {
        self.send(&Answer::Rows(rows))
    }

    /// Answers with the file of the rows.
    ///
    /// # Errors
    /// The submitter has ended.
    pub fn file(&mut self, written: &WrittenFile) -> io::Result<()> {
        let columns =
            written.columns.iter().map(|it| (it.name.as_str(), it.database_type.as_str())).collect();
        self.send_with(&Answer::ColumnFile { columns, streams: &written.streams }, Some(&written.file))
    }

    /// Answers with an error.
    ///
    /// # Errors
    /// The submitter has ended.
    pub fn error(&mut self, error: &Error) -> io::Result<()> {
        let kind = match error.kind {
            ErrorKind::User => "user",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Busy => "busy",
            ErrorKind::Undelivered => "undelivered",
        };
        let (missing_table, missing_column) = match &error.missing {
            Some(Missing::Table(name)) => (Some(name.as_str()), None),
            Some(Missing::Column(name)) => (None, Some(name.as_str())),
            None => (None, None),
        };
        self.send(&Answer::Error(Failed { message: &error.message, kind, missing_table, missing_column }))
    }

    fn send(&mut self, answer: &Answer<'_>) -> io::Result<()> {
        self.send_with(answer, None)
    }

    fn send_with(&mut self, answer: &Answer<'_>, file: Option<&File>) -> io::Result<()> {
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
