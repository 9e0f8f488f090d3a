//! PostgreSQL, over its own protocol (version 3.0). Statements use the simple query protocol, like psql: the text is sent
//! unchanged, and the server prints the values. Unlike other clients of that protocol, this one keeps the OIDs of types.
//! Selects that are read for a model use the extended protocol, with values in binary form.
//!
//! ```text
//! session (stream, tls, authentication) ─▶ frames ─▶ messages ─▶ rows ─▶ batches
//! ```
//!
//! Memory is bounded by a batch, and three copies of a row: as it arrived, as it waits in the batch, and decoded. A row
//! has at most 64 MiB.

mod authentication;
mod binary;
mod cancel;
#[cfg(test)]
mod check_tests;
mod copy;
mod copy_binary;
mod copy_text;
mod dates;
mod errors;
mod frames;
mod messages;
mod numeric;
mod read;
#[cfg(test)]
mod read_tests;
mod rows;
#[cfg(test)]
mod scripted_server;
mod session;
#[cfg(test)]
mod tests;
mod tls;
mod types;
mod writer;
#[cfg(test)]
mod writer_tests;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use self::cancel::Running;
use self::errors::Connection;
use self::frames::FrameError;
use self::messages::{Field, ServerMessage};
use self::read::Read;
use self::rows::RowReader;
use self::session::Session;
use self::writer::PostgresqlWriter;
use sqlflow_data_source::{PostgresqlSource, Reach};
use sqlflow_sql::Dialect;

use crate::connect::{ENCODING_NOTE, Origin, ignore_notices};
use crate::{Column, Database, Discard, Error, MAX_TABLES, Notify, Results, TableWriter, texts};

/// The formats that the decoders need. All other settings of the session are the user's.
const OUTPUT_SETTINGS: &str = "SET datestyle TO ISO; SET bytea_output TO hex";

/// A PostgreSQL server.
pub(crate) struct PostgresqlDatabase {
    session: Session,
    origin: Origin,
    running: Running,
    has_noted_encoding: bool,
}

/// How the server's answer to a statement ends, if not with an error of the connection.
enum Outcome {
    Completed,
    /// The server rejected it, and perhaps ended the connection.
    Rejected(ServerMessage, Connection),
    /// This client rejected it.
    Refused(Error),
}

/// Why the answer cannot be read to its end.
enum Abandoned {
    Lost(FrameError),
    /// The results cannot be delivered.
    Undelivered(Error),
}

/// The formats in which values are read for a model. `ISO` keeps the order of day and month in the user's dates.
const READ_SETTINGS: [(&str, &str); 4] = [
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
];

impl From<FrameError> for Abandoned {
    fn from(error: FrameError) -> Self {
        Self::Lost(error)
    }
}

impl Outcome {
    /// The outcome if the connection is lost before the end of the answer. The server may have said why.
    fn when_lost(self, error: FrameError) -> Result<Self, Abandoned> {
        match self {
            Self::Rejected(message, _) => Ok(Self::Rejected(message, Connection::Lost)),
            _ => Err(error.into()),
        }
    }
}

/// A data source, with as much of the process's user as may go with it.
fn source(data_source: &str, reach: &Reach) -> Result<PostgresqlSource, Error> {
    let mut source =
        sqlflow_data_source::postgresql(data_source).map_err(|error| Error::user(error.to_string()))?;
    source.tls.uses_default_certificate = !reach.is_clients;
    Ok(source)
}

impl PostgresqlDatabase {
    /// Connects to a data source.
    pub(crate) fn open(data_source: &str, reach: Reach, notify: &Notify) -> Result<Self, Error> {
        let session = session::open(&source(data_source, &reach)?, notify)?;
        let mut database = Self {
            session,
            origin: Origin::new(data_source).within(reach),
            running: Running::default(),
            has_noted_encoding: false,
        };
        database.execute(OUTPUT_SETTINGS, &mut Discard)?;
        Ok(database)
    }

    /// Another connection with the same settings.
    fn another(&self) -> Result<Self, Error> {
        let mut another = Self::open(&self.origin.data_source, self.origin.reach.clone(), &ignore_notices())?;
        self.origin.replay(&mut another)?;
        Ok(another)
    }

    /// Sends messages, which begin an answer.
    fn send(&mut self, messages: &[u8]) -> Result<(), Error> {
        self.session
            .write(messages)
            .map_err(|error| errors::lost(&self.session.address, &FrameError::Io(error)))
    }

    /// Runs a statement.
    fn run(&mut self, sql: &str, results: &mut dyn Results) -> Result<(), Error> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(|error| invalid(sql, &error))?;
        self.send(&out)?;
        drop(out);
        let answer = self.read_answer(None, results);
        self.conclude(answer, sql)
    }

    /// Reads the answer to a statement. `described` are the columns of a statement whose answer does not describe them.
    fn read_answer(
        &mut self,
        described: Option<&[Field]>,
        results: &mut dyn Results,
    ) -> Result<Outcome, Abandoned> {
        let Session { stream, frames, reports, cancel, .. } = &mut self.session;
        let mut outcome = Outcome::Completed;
        let mut reader: Option<RowReader> = None;
        loop {
            // Rows do not wait for the next one of a slow query.
            if let Some(reader) = &mut reader
                && !frames.has_next()
                && let Some(time) = reader.time_left()
                && !stream.is_readable_within(time)
                && let Some(batch) = reader.rest()
            {
                results.batch(batch).map_err(Abandoned::Undelivered)?;
            }
            let frame = match frames.next(stream) {
                Err(error) => return outcome.when_lost(error),
                Ok(frame) => frame,
            };
            match frame.tag {
                b'D' => {
                    let reader = reader.as_mut().ok_or(FrameError::Malformed)?;
                    if let Some(batch) = reader.add(frame.body)? {
                        results.batch(batch).map_err(Abandoned::Undelivered)?;
                    }
                }
                b'T' => {
                    let fields = messages::fields(frame.body).ok_or(FrameError::Malformed)?;
                    results.result_set(&rows::columns(&fields)).map_err(Abandoned::Undelivered)?;
                    reader = Some(RowReader::new(&fields, results.limits()));
                }
                // It was bound to its formats, and begins.
                b'2' => {
                    let fields = described.ok_or(FrameError::Malformed)?;
                    results.result_set(&rows::columns(fields)).map_err(Abandoned::Undelivered)?;
                    reader = Some(RowReader::binary(fields, results.limits()));
                }
                b'C' => {
                    let changed = messages::changed_rows(frame.body).ok_or(FrameError::Malformed)?;
                    match reader.take() {
                        None => results.changed(changed),
                        Some(mut reader) => {
                            if let Some(batch) = reader.rest() {
                                results.batch(batch).map_err(Abandoned::Undelivered)?;
                            }
                        }
                    }
                }
                b'I' => results.changed(None),
                b'E' => {
                    let error = messages::server_message(frame.body).ok_or(FrameError::Malformed)?;
                    // What follows a refusal is its consequence.
                    if !matches!(outcome, Outcome::Refused(_)) {
                        outcome = Outcome::Rejected(error, Connection::Usable);
                    }
                    reader = None;
                }
                // COPY from the client, to it, or both.
                b'G' | b'H' | b'W' => {
                    outcome = Outcome::Refused(Error::user(
                        "cannot run COPY to or from the client: a job has no access to the client's files",
                    ));
                    if frame.tag == b'H' {
                        // Rows that were sent in the meantime are skipped.
                        let _ = cancel.send();
                    } else {
                        use std::io::Write as _;

                        let mut out = BytesMut::new();
                        let failed = frontend::copy_fail("refused by the client", &mut out);
                        failed.and_then(|()| stream.write_all(&out)).map_err(FrameError::Io)?;
                    }
                }
                b'd' | b'c' if matches!(outcome, Outcome::Refused(_)) => {}
                b'N' | b'S' | b'A' => reports.take(frame).ok_or(FrameError::Malformed)?,
                b'Z' => return Ok(outcome),
                _ => return Err(FrameError::Malformed.into()),
            }
        }
    }

    /// Translates the end of an answer. Ends the session if the answer was not read to its end.
    fn conclude(&mut self, answer: Result<Outcome, Abandoned>, sql: &str) -> Result<(), Error> {
        let address = &self.session.address;
        let error = match answer {
            Ok(Outcome::Completed) => return Ok(()),
            Ok(Outcome::Refused(error)) => return Err(error),
            Ok(Outcome::Rejected(error, connection)) => {
                return Err(errors::translate(address, &error, sql, connection));
            }
            Err(Abandoned::Undelivered(error)) => error,
            Err(Abandoned::Lost(error)) => errors::lost(address, &error),
        };
        // Otherwise, the query would go on until the server finds that nobody reads.
        let _ = self.session.cancel.send();
        self.session.stream.socket().shut_down();
        Err(error)
    }

    /// The connection always uses UTF-8.
    fn keep_encoding(&mut self) -> Result<(), Error> {
        if self.session.reports.encoding.as_deref().is_none_or(|it| it == "UTF8") {
            return Ok(());
        }
        if !self.has_noted_encoding {
            self.has_noted_encoding = true;
            self.session.reports.note(ENCODING_NOTE);
        }
        self.run("SET client_encoding TO 'UTF8'", &mut Discard)
    }
}

impl Database for PostgresqlDatabase {
    fn dialect(&self) -> Dialect {
        Dialect::Postgresql
    }

    fn execute(&mut self, sql: &str, results: &mut dyn Results) -> Result<(), Error> {
        check(sql)?;
        let _running = self.running.begin()?;
        self.run(sql, results)?;
        self.keep_encoding()
    }

    fn read(&mut self, select: &str, results: &mut dyn Results) -> Result<(), Error> {
        let settings = READ_SETTINGS.map(|(name, _)| format!("current_setting('{name}')")).join(", ");
        let mut current = crate::rows(self, &format!("SELECT {settings}"))?.into_iter().flatten();
        for (name, value) in READ_SETTINGS {
            if !current.next().flatten().is_some_and(|current| is_readable(name, &current, value)) {
                self.execute(&format!("SELECT set_config('{name}', '{value}', false)"), &mut Discard)?;
            }
        }
        match self.read_binary(select, results)? {
            Read::Done => Ok(()),
            Read::NotSelect => self.execute(select, results),
        }
    }

    fn describe(&mut self, select: &str) -> Result<Vec<Column>, Error> {
        check(select)?;
        let _running = self.running.begin()?;
        self.prepare(select, frontend::sync)?;
        let (fields, answer) = match self.read_parsed() {
            Ok(parsed) => (parsed.fields, self.read_end(parsed.outcome)),
            Err(abandoned) => (None, Err(abandoned)),
        };
        self.conclude(answer, select)?;
        Ok(rows::columns(&fields.unwrap_or_default()))
    }

    fn checking_connection(&mut self) -> Result<Box<dyn Database>, Error> {
        Ok(Box::new(self.another()?))
    }

    fn replay(&mut self, sql: &str) -> Result<(), Error> {
        self.execute(sql, &mut Discard)?;
        self.origin.add(sql);
        Ok(())
    }

    fn writer(&mut self) -> Result<Box<dyn TableWriter>, Error> {
        Ok(Box::new(PostgresqlWriter::new(self.another()?)?))
    }

    fn tables(&mut self) -> Result<Vec<String>, Error> {
        let sql = "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND \
                   pg_table_is_visible(oid) AND relnamespace <> 'pg_catalog'::regnamespace";
        texts(self, &format!("{sql} LIMIT {MAX_TABLES}"))
    }

    fn canceller(&self) -> Box<dyn Fn() + Send> {
        self.running.canceller(&self.session)
    }

    fn resume(&mut self) {
        self.running.resume();
    }
}

impl Drop for PostgresqlDatabase {
    fn drop(&mut self) {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        let _ = self.session.write(&out);
    }
}

/// Whether values are printed such that they can be decoded without loss.
fn is_readable(name: &str, current: &str, needed: &str) -> bool {
    match name {
        // From version 12 on, any positive number means the shortest exact text.
        "extra_float_digits" => current.parse().is_ok_and(|digits: i32| digits > 0),
        _ => current.starts_with(needed),
    }
}

fn check(sql: &str) -> Result<(), Error> {
    if sql.contains('\0') {
        return Err(Error::user("the statement contains a NUL character, which PostgreSQL does not support"));
    }
    Ok(())
}

fn invalid(sql: &str, error: &std::io::Error) -> Error {
    Error::user(format!("cannot send a statement of {} bytes: {error}", sql.len()))
}

/// Quotes a text so that its meaning does not depend on the session's settings.
pub(crate) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
