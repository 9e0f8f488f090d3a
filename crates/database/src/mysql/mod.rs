//! MySQL and MariaDB: the text protocol, over `mysql_common`'s packets and authentication.
//!
//! The clients built on that library make an object of each value. Here the bytes of a row go from the receive buffer to
//! the columns of a batch.
//!
//! Selects of floats, and those of extended statements, are prepared and use the binary protocol. So do the INSERTs of a
//! result table.

mod batches;
mod binary;
mod checks;
mod failure;
mod insert;
mod login;
#[cfg(test)]
mod login_tests;
mod packets;
#[cfg(test)]
mod real_tests;
#[cfg(test)]
mod replace_tests;
mod responses;
mod rows;
mod statements;
mod stream;
#[cfg(test)]
mod tests;
mod types;
mod writer;
#[cfg(test)]
mod writer_tests;
mod zone;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::tz::TimeZone;
use mysql_common::constants::Command;
use sqlflow_data_source::MysqlSource;

use self::failure::{Failure, NEEDS_PREPARATION, NOT_PREPARABLE};
use self::login::{Session, log_in};
use self::responses::{Prepared, Protocol, receive_prepared, receive_results};
use self::statements::{changes_encoding, may_be_prepared};
use self::types::Field;
use self::writer::MysqlWriter;
use sqlflow_sql::Dialect;

use crate::connect::{ENCODING_NOTE, Origin, ignore_notices};
use crate::{
    Batch, Column, Database, Discard, Error, Limits, MAX_TABLES, Notice, Notify, Results, TableWriter, texts,
};

/// Time in which a connection is established and the login is complete.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for the connection that cancels a statement.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// The end of the head of an execution: no cursor, one execution.
const EXECUTE_ONCE: [u8; 5] = [0, 1, 0, 0, 0];

/// A MySQL server.
pub(crate) struct MysqlDatabase {
    session: Session,
    source: MysqlSource,
    origin: Origin,
    notify: Notify,
    has_noted_encoding: bool,
    has_warned_of_zone: bool,
    /// Whether the server has a code for a wrong syntax, and no other error has it. `None`: not known yet.
    reports_syntax_errors: Option<bool>,
    /// Whether a response was not read to its end, so that the connection cannot be used any more.
    is_broken: bool,
}

impl MysqlDatabase {
    /// Connects to the server of a data source.
    pub(crate) fn open(data_source: &str, notify: Notify) -> Result<Self, Error> {
        let source =
            sqlflow_data_source::mysql(data_source).map_err(|error| Error::user(error.to_string()))?;
        let session = log_in(&source, CONNECT_TIMEOUT).map_err(|error| error.into_error(&source.address))?;
        let mut database = Self {
            session,
            source,
            origin: Origin::new(data_source),
            notify,
            has_noted_encoding: false,
            has_warned_of_zone: false,
            reports_syntax_errors: None,
            is_broken: false,
        };
        // The collation is the server's default for this encoding.
        database.execute("SET NAMES utf8mb4", &mut Discard)?;
        for (name, value) in database.source.variables.clone() {
            database.execute(&format!("SET {name}={value}"), &mut Discard)?;
        }
        Ok(database)
    }

    /// Another connection with the same settings.
    fn another(&self) -> Result<Self, Error> {
        let mut another = Self::open(&self.origin.data_source, ignore_notices())?;
        self.origin.replay(&mut another)?;
        Ok(another)
    }

    /// Sends a command, and lets `respond` read the whole response.
    fn command<T>(
        &mut self,
        command: Command,
        argument: &[u8],
        respond: impl FnOnce(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.is_broken {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        // A server that rejects a command while it is sent closes the connection.
        self.is_broken = true;
        self.session.packets.send_command(command as u8, argument)?;
        let result = respond(&mut self.session);
        // After the server's own error it awaits the next command.
        self.is_broken = !matches!(result, Ok(_) | Err(Failure::Server { .. }));
        result
    }

    fn execute_text(&mut self, sql: &str, results: &mut dyn Results) -> Result<(), Error> {
        let receive = |session: &mut Session| receive_results(session, &Protocol::Text, results);
        let is_refused = self
            .command(Command::COM_QUERY, sql.as_bytes(), receive)
            .map_err(|failure| self.error(failure))?;
        if is_refused {
            return Err(Error::user(
                "cannot execute LOAD DATA LOCAL: files of this machine are not sent to the database; use INSERT",
            ));
        }
        Ok(())
    }

    /// Executes a select of floats, which a server prints slowly: the values are the same. Returns whether it did.
    fn execute_prepared(&mut self, sql: &str, results: &mut dyn Results) -> Result<bool, Failure> {
        if !may_be_prepared(sql) {
            return Ok(false);
        }
        let prepared = match self.prepare(sql) {
            Ok(Some(prepared)) => prepared,
            // The same error follows, or none.
            Ok(None) | Err(Failure::Server { .. }) => return Ok(false),
            Err(other) => return Err(other),
        };
        if !prepared.fields.iter().any(Field::is_float) {
            self.close(prepared.id)?;
            return Ok(false);
        }
        let mut results = Forward { results, has_begun: false };
        match self.run(&prepared, &Protocol::Shown, &mut results) {
            // Not if a function of the user fails with this code.
            Err(Failure::Server { code: NEEDS_PREPARATION, .. }) if !results.has_begun => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Reads a select by the binary protocol, if it can be prepared.
    fn read_once(&mut self, select: &str, results: &mut dyn Results) -> Result<(), Failure> {
        let Some(prepared) = self.prepare(select)? else {
            return Ok(self.execute_text(select, results)?);
        };
        let zone = if prepared.fields.iter().any(Field::is_zoned) { self.time_zone()? } else { None };
        self.run(&prepared, &Protocol::Exact { zone }, results)
    }

    /// Prepares a statement. `None`: it cannot be prepared, or has a `?`, which is an error.
    fn prepare(&mut self, sql: &str) -> Result<Option<Prepared>, Failure> {
        match self.command(Command::COM_STMT_PREPARE, sql.as_bytes(), receive_prepared) {
            Err(Failure::Server { code: NOT_PREPARABLE, .. }) => Ok(None),
            Ok(prepared) if prepared.parameters > 0 => self.close(prepared.id).map(|()| None),
            other => other.map(Some),
        }
    }

    /// Executes a prepared statement, and closes it.
    fn run(
        &mut self,
        prepared: &Prepared,
        protocol: &Protocol,
        results: &mut dyn Results,
    ) -> Result<(), Failure> {
        let argument = [&prepared.id.to_le_bytes()[..], &EXECUTE_ONCE].concat();
        let receive = |session: &mut Session| receive_results(session, protocol, results);
        let result = self.command(Command::COM_STMT_EXECUTE, &argument, receive);
        if !self.is_broken {
            self.close(prepared.id)?;
        }
        result.map(|_| ())
    }

    /// Closes a prepared statement. There is no response.
    fn close(&mut self, statement: u32) -> Result<(), Failure> {
        self.command(Command::COM_STMT_CLOSE, &statement.to_le_bytes(), |_| Ok(()))
    }

    fn error(&self, failure: Failure) -> Error {
        failure.into_error(&self.source.address)
    }

    /// The session's time zone. `None`: it is not known, after a warning.
    fn time_zone(&mut self) -> Result<Option<TimeZone>, Error> {
        let names = texts(self, "SELECT CONCAT(@@session.time_zone, ' ', @@system_time_zone)")?;
        let names = names.first().map_or("", String::as_str);
        let (session, system) = names.split_once(' ').unwrap_or((names, ""));
        let zone = zone::time_zone(session, system);
        if zone.is_none() && !std::mem::replace(&mut self.has_warned_of_zone, true) {
            let name = if session == "SYSTEM" { system } else { session };
            (self.notify)(Notice::Note(format!(
                "warning: columns of type TIMESTAMP are read in the server's time zone {name}, and not in UTC; write \
                 SET time_zone = '+00:00' before the statement"
            )));
        }
        Ok(zone)
    }
}

impl Database for MysqlDatabase {
    fn dialect(&self) -> Dialect {
        Dialect::Mysql
    }

    fn execute(&mut self, sql: &str, results: &mut dyn Results) -> Result<(), Error> {
        if !self.execute_prepared(sql, results).map_err(|failure| self.error(failure))? {
            self.execute_text(sql, results)?;
        }
        if changes_encoding(sql) {
            // Texts are sent and received in UTF-8.
            self.execute("SET NAMES utf8mb4", &mut Discard)?;
            if !std::mem::replace(&mut self.has_noted_encoding, true) {
                (self.notify)(Notice::Server(ENCODING_NOTE.to_owned()));
            }
        }
        Ok(())
    }

    fn read(&mut self, select: &str, results: &mut dyn Results) -> Result<(), Error> {
        let mut results = Forward { results, has_begun: false };
        let mut read = self.read_once(select, &mut results);
        if let Err(Failure::Server { code: NEEDS_PREPARATION, .. }) = read
            && !results.has_begun
        {
            read = self.read_once(select, &mut results);
        }
        read.map_err(|failure| self.error(failure))
    }

    fn describe(&mut self, select: &str) -> Result<Vec<Column>, Error> {
        self.prepared_columns(select).map_err(|failure| self.error(failure))
    }

    fn check_query(&mut self, sql: &str) -> Result<(), Error> {
        self.check_preparation(sql)
    }

    fn check_syntax(&mut self, sql: &str) -> Result<(), Error> {
        self.check_grammar(sql)
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
        Ok(Box::new(MysqlWriter::new(self.another()?)?))
    }

    fn end_reading(&mut self) {
        // With autocommit = 0, each select begins one. The session may have another completion_type.
        let _ = self.execute("ROLLBACK AND NO CHAIN NO RELEASE", &mut Discard);
    }

    fn tables(&mut self) -> Result<Vec<String>, Error> {
        texts(
            self,
            &format!(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() LIMIT {MAX_TABLES}"
            ),
        )
    }

    fn quote(&self, name: &str) -> String {
        format!("`{}`", name.replace('`', "``"))
    }

    fn canceller(&self) -> Box<dyn Fn() + Send> {
        let source = self.source.clone();
        let is_cancelled: Arc<AtomicBool> = self.session.packets.cancellation();
        let connection = self.session.connection_id;
        Box::new(move || {
            // The reader gives up if the server does not end the statement.
            is_cancelled.store(true, Ordering::SeqCst);
            if let Ok(mut session) = log_in(&source, CANCEL_TIMEOUT) {
                let sql = format!("KILL QUERY {connection}");
                let packets = &mut session.packets;
                let _ = packets.send_command(Command::COM_QUERY as u8, sql.as_bytes());
                let _ = packets.receive();
                let _ = packets.send_command(Command::COM_QUIT as u8, &[]);
            }
        })
    }
}

impl Drop for MysqlDatabase {
    fn drop(&mut self) {
        if !self.is_broken {
            let _ = self.session.packets.send_command(Command::COM_QUIT as u8, &[]);
        }
    }
}

/// A text in a statement. No setting of the session changes its meaning.
pub(crate) fn literal(text: &str) -> String {
    format!("_utf8mb4 X'{}'", hex::encode(text))
}

/// Forwards results, and notes whether there are any.
struct Forward<'a> {
    results: &'a mut dyn Results,
    has_begun: bool,
}

impl Results for Forward<'_> {
    fn limits(&self) -> Limits {
        self.results.limits()
    }

    fn result_set(&mut self, columns: &[Column]) -> Result<(), Error> {
        self.has_begun = true;
        self.results.result_set(columns)
    }

    fn batch(&mut self, batch: Batch) -> Result<(), Error> {
        self.results.batch(batch)
    }

    fn changed(&mut self, rows: Option<u64>) {
        self.results.changed(rows);
    }
}
