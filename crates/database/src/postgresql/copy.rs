//! COPY from this client to the server.

use std::io::{self, Write as _};

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::copy_binary::{self, BinaryColumn, BinaryType, Unfit};
use super::errors::Connection;
use super::frames::FrameError;
use super::session::Session;
use super::{Abandoned, Outcome, PostgresqlDatabase, copy_text, invalid, messages};
use crate::stream::Stream;
use crate::{Batch, Error};

/// Size at which rows are sent. A message exceeds it by a row at most.
const MESSAGE: usize = 128 << 10;
/// Tag and length of a message.
const HEADER: usize = 5;

/// Whether all rows were copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copied {
    All,
    /// None, since a value has no binary form of its column's type.
    None,
}

/// Why rows are not sent.
enum SendError {
    Io(io::Error),
    Unfit,
}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Unfit> for SendError {
    fn from(_: Unfit) -> Self {
        Self::Unfit
    }
}

impl PostgresqlDatabase {
    /// Adds rows to a table with columns of these types, in one statement: in binary form, if each value has one.
    pub(super) fn copy(
        &mut self,
        table: &str,
        types: &[Option<BinaryType>],
        batch: &Batch,
    ) -> Result<(), Error> {
        let column = |(kind, values): (&Option<BinaryType>, _)| BinaryColumn::new((*kind)?, values);
        let columns: Option<Vec<_>> = if types.len() == batch.columns.len() {
            types.iter().zip(&batch.columns).map(column).collect()
        } else {
            None
        };
        if let Some(columns) = columns {
            let sql = format!("COPY {table} FROM STDIN (FORMAT binary)");
            let copied = self.copy_in(&sql, |data| {
                data.message.extend(copy_binary::HEADER);
                for row in 0..batch.rows {
                    copy_binary::put_row(&columns, row, &mut data.message)?;
                    data.send_full()?;
                }
                data.message.extend(copy_binary::TRAILER);
                Ok(())
            })?;
            if copied == Copied::All {
                return Ok(());
            }
        }
        self.copy_in(&format!("COPY {table} FROM STDIN"), |data| {
            for row in 0..batch.rows {
                copy_text::put_row(&batch.columns, row, &mut data.message);
                data.send_full()?;
            }
            Ok(())
        })
        .map(|_| ())
    }

    fn copy_in(
        &mut self,
        sql: &str,
        rows: impl FnOnce(&mut CopyData<'_>) -> Result<(), SendError>,
    ) -> Result<Copied, Error> {
        let _running = self.running.begin()?;
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(|error| invalid(sql, &error))?;
        self.send(&out)?;
        let mut copied = Copied::All;
        let answer = match self.read_copy_answer() {
            Ok(Started::No(Outcome::Completed)) => Err(FrameError::Malformed.into()),
            Ok(Started::No(outcome)) => Ok(outcome),
            Err(abandoned) => Err(abandoned),
            Ok(Started::Yes) => {
                let sent = self.send_rows(rows);
                copied = *sent.as_ref().unwrap_or(&Copied::All);
                match (self.read_copy_answer(), sent) {
                    // The answer to the failure.
                    (Ok(Started::No(Outcome::Rejected(_, Connection::Usable))), Ok(Copied::None)) => {
                        Ok(Outcome::Completed)
                    }
                    // The server may have said why it reads no more.
                    (Ok(Started::No(outcome @ Outcome::Rejected(..))), _) => Ok(outcome),
                    (_, Err(error)) => Err(FrameError::Io(error).into()),
                    (Ok(Started::No(outcome)), Ok(_)) => Ok(outcome),
                    (Ok(Started::Yes), Ok(_)) => Err(FrameError::Malformed.into()),
                    (Err(abandoned), Ok(_)) => Err(abandoned),
                }
            }
        };
        self.conclude(answer, sql)?;
        Ok(copied)
    }

    /// Sends rows and their end. If the server rejects one, it discards what follows and answers at the end.
    fn send_rows(
        &mut self,
        rows: impl FnOnce(&mut CopyData<'_>) -> Result<(), SendError>,
    ) -> io::Result<Copied> {
        let mut data = CopyData::new(&mut self.session.stream);
        let sent = rows(&mut data).and_then(|()| Ok(data.send()?));
        let mut out = BytesMut::new();
        let copied = match sent {
            Ok(()) => {
                frontend::copy_done(&mut out);
                Copied::All
            }
            Err(SendError::Unfit) => {
                frontend::copy_fail("rows follow as text", &mut out)?;
                Copied::None
            }
            Err(SendError::Io(error)) => return Err(error),
        };
        self.session.write(&out)?;
        Ok(copied)
    }

    /// Reads until the server awaits rows, or the next statement.
    fn read_copy_answer(&mut self) -> Result<Started, Abandoned> {
        let Session { stream, frames, reports, .. } = &mut self.session;
        let mut outcome = Outcome::Completed;
        loop {
            let frame = match frames.next(stream) {
                Err(error) => return outcome.when_lost(error).map(Started::No),
                Ok(frame) => frame,
            };
            match frame.tag {
                b'G' => return Ok(Started::Yes),
                b'C' => {}
                b'E' => {
                    let error = messages::server_message(frame.body).ok_or(FrameError::Malformed)?;
                    outcome = Outcome::Rejected(error, Connection::Usable);
                }
                b'N' | b'S' | b'A' => reports.take(frame).ok_or(FrameError::Malformed)?,
                b'Z' => return Ok(Started::No(outcome)),
                _ => return Err(FrameError::Malformed.into()),
            }
        }
    }
}

/// Whether the server awaits rows.
enum Started {
    Yes,
    /// The statement has ended.
    No(Outcome),
}

/// Rows on their way, in messages of about [`MESSAGE`].
struct CopyData<'a> {
    stream: &'a mut Stream,
    /// A CopyData message that is being filled.
    message: Vec<u8>,
}

impl<'a> CopyData<'a> {
    fn new(stream: &'a mut Stream) -> Self {
        let mut data = Self { stream, message: Vec::with_capacity(MESSAGE + (MESSAGE >> 3)) };
        data.begin();
        data
    }

    fn begin(&mut self) {
        self.message.clear();
        self.message.extend([b'd', 0, 0, 0, 0]);
    }

    /// Sends the message if it is complete.
    fn send_full(&mut self) -> io::Result<()> {
        if self.message.len() < MESSAGE { Ok(()) } else { self.send() }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.message.len() > HEADER {
            // Without the tag.
            let length = i32::try_from(self.message.len() - 1).map_err(io::Error::other)?;
            self.message[1..HEADER].copy_from_slice(&length.to_be_bytes());
            self.stream.write_all(&self.message)?;
        }
        self.begin();
        Ok(())
    }
}
