//! MySQL and MariaDB: the text protocol, over `mysql_common`'s packets and authentication.
//!
//! The clients built on that library make an object of each value. Here the bytes of a row go from the receive buffer to
//! the columns of a batch.

mod failure;
mod login;
mod packets;
mod rows;
mod stream;
#[cfg(test)]
mod tests;
mod types;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mysql_common::constants::{CapabilityFlags, Command};
use mysql_common::io::ParseBuf;
use mysql_common::packets::{CommonOkPacket, OkPacket, OkPacketDeserializer, StmtPacket};
use sqlflow_data_source::MysqlSource;
use sqlflow_sql::Dialect;

use self::failure::{Failure, MAX_COLUMNS};
use self::login::{Session, log_in};
use self::types::Field;
use crate::printed::Decoder;
use crate::{Column, ConnectOptions, Database, Discard, Error, MAX_TABLES, Notice, Results, texts};

/// Time in which a connection is established and the login is complete.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for the connection that cancels a statement.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

const ENCODING_NOTE: &str =
    "note: the encoding of the session stays UTF-8: the database converts texts to and from its own encoding";

/// A MySQL server.
pub(crate) struct MysqlDatabase {
    session: Session,
    source: MysqlSource,
    notify: Arc<dyn Fn(Notice) + Send + Sync>,
    has_noted_encoding: bool,
    /// Whether a response was not read to its end, so that the connection cannot be used any more.
    is_broken: bool,
}

impl MysqlDatabase {
    /// Connects to the server of a data source.
    pub(crate) fn open(data_source: &str, options: ConnectOptions) -> Result<Self, Error> {
        let source =
            sqlflow_data_source::mysql(data_source).map_err(|error| Error::user(error.to_string()))?;
        let session = log_in(&source, CONNECT_TIMEOUT).map_err(|error| error.into_error(&source.address))?;
        let mut database =
            Self { session, source, notify: options.notify, has_noted_encoding: false, is_broken: false };
        // The collation is the server's default for this encoding.
        database.execute("SET NAMES utf8mb4", &mut Discard)?;
        for (name, value) in database.source.variables.clone() {
            database.execute(&format!("SET {name}={value}"), &mut Discard)?;
        }
        for sql in &options.replay {
            database.execute(sql, &mut Discard)?;
        }
        Ok(database)
    }

    /// Sends a command, and lets `respond` read the whole response.
    fn command<T>(
        &mut self,
        command: Command,
        argument: &[u8],
        respond: impl FnOnce(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let address = &self.source.address;
        if self.is_broken {
            return Err(Error::unavailable(format!("MySQL server at {address}: the connection was lost")));
        }
        let session = &mut self.session;
        let result = session.packets.send_command(command as u8, argument).and_then(|()| respond(session));
        // After the server's own error it awaits the next command.
        self.is_broken = !matches!(result, Ok(_) | Err(Failure::Server { .. }));
        result.map_err(|failure| failure.into_error(address))
    }
}

impl Database for MysqlDatabase {
    fn execute(&mut self, sql: &str, results: &mut dyn Results) -> Result<(), Error> {
        let refused =
            self.command(Command::COM_QUERY, sql.as_bytes(), |session| receive_results(session, results))?;
        if refused {
            return Err(Error::user(
                "cannot execute LOAD DATA LOCAL: files of this machine are not sent to the database; use INSERT",
            ));
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

    fn describe(&mut self, select: &str) -> Result<Vec<Column>, Error> {
        // Preparing a statement returns its columns and does not execute it.
        let (statement, columns) =
            self.command(Command::COM_STMT_PREPARE, select.as_bytes(), receive_prepared)?;
        self.command(Command::COM_STMT_CLOSE, &statement.to_le_bytes(), |_| Ok(()))?;
        Ok(columns)
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

/// Receives the results of a statement. Returns whether it was refused, since it would read a local file.
fn receive_results(session: &mut Session, results: &mut dyn Results) -> Result<bool, Failure> {
    let mut is_refused = false;
    loop {
        let packet = session.packets.receive()?;
        let has_more = match packet {
            [0x00, ..] => {
                let ok = parse_ok(packet, session.capabilities)?;
                results.changed(Some(ok.affected_rows()));
                ok.status_flags().contains(mysql_common::constants::StatusFlags::SERVER_MORE_RESULTS_EXISTS)
            }
            [0xff, ..] if is_refused => return Ok(true),
            [0xff, ..] => return Err(Failure::from_packet(packet)),
            [0xfb, ..] => {
                // An empty file; the server's response follows.
                session.packets.send(&[])?;
                is_refused = true;
                continue;
            }
            _ => {
                let count = ParseBuf(packet).checked_eat_lenenc_int();
                let count = count.ok_or(Failure::Protocol("a malformed number of columns"))?;
                if count > MAX_COLUMNS {
                    return Err(Failure::TooManyColumns(count));
                }
                let (columns, decoders): (Vec<Column>, Vec<Decoder>) =
                    receive_fields(session, count)?.into_iter().map(Field::column).unzip();
                results.result_set(&columns)?;
                rows::receive_rows(&mut session.packets, &decoders, results)?
            }
        };
        if !has_more {
            return Ok(is_refused);
        }
    }
}

fn parse_ok(packet: &[u8], capabilities: CapabilityFlags) -> Result<OkPacket<'_>, Failure> {
    let ok: OkPacketDeserializer<'_, CommonOkPacket> =
        ParseBuf(packet).parse(capabilities).map_err(|_| Failure::Protocol("a malformed OK packet"))?;
    Ok(ok.into_inner())
}

/// The descriptions of so many columns, and the packet that ends them.
fn receive_fields(session: &mut Session, count: u64) -> Result<Vec<Field>, Failure> {
    let mut fields = Vec::new();
    for _ in 0..count {
        let packet = session.packets.receive()?;
        if let [0xff, ..] = packet {
            return Err(Failure::from_packet(packet));
        }
        fields.push(Field::parse(packet).ok_or(Failure::Protocol("a malformed column"))?);
    }
    if count > 0 {
        match session.packets.receive()? {
            [0xfe, ..] => {}
            packet @ [0xff, ..] => return Err(Failure::from_packet(packet)),
            _ => return Err(Failure::Protocol("no end of the columns")),
        }
    }
    Ok(fields)
}

/// The id of a prepared statement, and its columns.
fn receive_prepared(session: &mut Session) -> Result<(u32, Vec<Column>), Failure> {
    let packet = session.packets.receive()?;
    if let [0xff, ..] = packet {
        return Err(Failure::from_packet(packet));
    }
    let prepared: StmtPacket =
        ParseBuf(packet).parse(()).map_err(|_| Failure::Protocol("a malformed prepared statement"))?;
    receive_fields(session, prepared.num_params().into())?;
    let fields = receive_fields(session, prepared.num_columns().into())?;
    Ok((prepared.statement_id(), fields.into_iter().map(|field| field.column().0).collect()))
}

/// Whether a statement changes the encoding of the session to another one than UTF-8.
fn changes_encoding(sql: &str) -> bool {
    let word = sqlflow_sql::leading_words(sql, Dialect::Mysql, 1);
    if word.first().is_none_or(|word| word != "SET") {
        return false;
    }
    let sql = sql.to_ascii_lowercase();
    let words: Vec<&str> =
        sql.split(|it: char| !it.is_alphanumeric() && it != '_').filter(|it| !it.is_empty()).collect();
    let is_encoding = |pair: &[&str]| {
        matches!(pair[0], "names" | "charset")
            || pair[0].starts_with("character_set_")
            || pair == ["character", "set"]
    };
    !sql.contains("utf8mb4")
        && words.iter().zip(words.iter().skip(1).chain([&""])).any(|(a, b)| is_encoding(&[*a, *b]))
}
