//! Reads a select by the extended query protocol, in which each column has a format: binary for the types that
//! [`super::binary`] decodes, and text for all others. The text of the select is sent unchanged, as in the simple protocol.

use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;

use super::binary::Form;
use super::errors::Connection;
use super::frames::FrameError;
use super::messages::{self, Field};
use super::{Abandoned, Outcome, PostgresqlDatabase, Session, check, invalid};
use crate::{Error, Results};

/// Whether a select was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    Done,
    /// It was not executed: it is a statement without columns, or has a parameter.
    NotSelect,
}

impl PostgresqlDatabase {
    /// Reads a select.
    pub(super) fn read_binary(&mut self, select: &str, results: &mut dyn Results) -> Result<Read, Error> {
        check(select)?;
        let _running = self.running.begin()?;
        // The answer is sent, and the transaction goes on: it holds the tables as they were described.
        self.prepare(select, frontend::flush)?;
        let parsed = match self.read_parsed() {
            Ok(parsed) => parsed,
            Err(abandoned) => return self.conclude(Err(abandoned), select).map(|()| Read::NotSelect),
        };
        let mut out = BytesMut::new();
        let fields = match parsed.fields {
            Some(fields) if !parsed.has_parameters => fields,
            _ => {
                frontend::sync(&mut out);
                let answer = match self.session.write(&out).map_err(FrameError::Io) {
                    Ok(()) => self.read_end(parsed.outcome),
                    Err(error) => parsed.outcome.when_lost(error),
                };
                return self.conclude(answer, select).map(|()| Read::NotSelect);
            }
        };
        let formats = fields.iter().map(|field| i16::from(Form::of(field.oid).is_some()));
        let no_value = |(), _: &mut BytesMut| Ok(IsNull::Yes);
        frontend::bind("", "", [], [], no_value, formats, &mut out).map_err(|_| {
            Error::user(format!("cannot read a select of {} columns; select fewer", fields.len()))
        })?;
        frontend::execute("", 0, &mut out).map_err(|error| invalid(select, &error))?;
        frontend::sync(&mut out);
        self.send(&out)?;
        let answer = self.read_answer(Some(&fields), results);
        self.conclude(answer, select)?;
        self.keep_encoding()?;
        Ok(Read::Done)
    }

    /// Sends a statement to be parsed and described, not executed. It has no name: the next one replaces it.
    pub(super) fn prepare(&mut self, sql: &str, end: fn(&mut BytesMut)) -> Result<(), Error> {
        let mut out = BytesMut::new();
        frontend::parse("", sql, [], &mut out)
            .and_then(|()| frontend::describe(b'S', "", &mut out))
            .map_err(|error| invalid(sql, &error))?;
        end(&mut out);
        self.send(&out)
    }

    /// Reads the answer to Parse and Describe.
    pub(super) fn read_parsed(&mut self) -> Result<Parsed, Abandoned> {
        let Session { stream, frames, reports, .. } = &mut self.session;
        let mut parsed = Parsed { fields: None, has_parameters: false, outcome: Outcome::Completed };
        loop {
            let frame = frames.next(stream)?;
            match frame.tag {
                b'1' => {}
                // The number of parameters, and their types.
                b't' => parsed.has_parameters = frame.body.get(..2) != Some(&[0, 0]),
                b'T' => {
                    parsed.fields = Some(messages::fields(frame.body).ok_or(FrameError::Malformed)?);
                    return Ok(parsed);
                }
                b'n' => return Ok(parsed),
                b'E' => {
                    parsed.outcome = rejected(frame.body)?;
                    return Ok(parsed);
                }
                b'N' | b'S' | b'A' => reports.take(frame).ok_or(FrameError::Malformed)?,
                _ => return Err(FrameError::Malformed.into()),
            }
        }
    }

    /// Reads until the server awaits the next statement.
    pub(super) fn read_end(&mut self, mut outcome: Outcome) -> Result<Outcome, Abandoned> {
        let Session { stream, frames, reports, .. } = &mut self.session;
        loop {
            let frame = match frames.next(stream) {
                Err(error) => return outcome.when_lost(error),
                Ok(frame) => frame,
            };
            match frame.tag {
                b'E' => outcome = rejected(frame.body)?,
                b'N' | b'S' | b'A' => reports.take(frame).ok_or(FrameError::Malformed)?,
                b'Z' => return Ok(outcome),
                _ => return Err(FrameError::Malformed.into()),
            }
        }
    }
}

/// The answer to Parse and Describe.
pub(super) struct Parsed {
    /// The columns. `None`: it is a statement without columns, or an error.
    pub(super) fields: Option<Vec<Field>>,
    has_parameters: bool,
    pub(super) outcome: Outcome,
}

fn rejected(body: &[u8]) -> Result<Outcome, Abandoned> {
    let error = messages::server_message(body).ok_or(FrameError::Malformed)?;
    Ok(Outcome::Rejected(error, Connection::Usable))
}
