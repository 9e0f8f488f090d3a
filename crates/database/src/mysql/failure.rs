//! Failures of a connection, and their messages.

use std::io;

use rustls::CertificateError;
use sqlflow_data_source::MysqlAddress;

use crate::batcher::MAX_ROW;
use crate::error::system_message;
use crate::{Error, Missing};

/// Too many connections, server shutting down, lock wait timeout, deadlock, connection killed or idle for too long.
const RETRYABLE: [u16; 7] = [1040, 1053, 1203, 1205, 1213, 1927, 4031];
/// The statement cannot be prepared.
pub(super) const NOT_PREPARABLE: u16 = 1295;
/// A table has changed since the statement was prepared.
pub(super) const NEEDS_PREPARATION: u16 = 1615;
const NO_SUCH_TABLE: u16 = 1146;
const NO_SUCH_COLUMN: u16 = 1054;
const SYNTAX_ERROR: u16 = 1064;

/// Maximum number of columns in a result. Tables have 4096 at most; a select without a table may have more.
pub(super) const MAX_COLUMNS: u64 = 1 << 18;

/// What ended a statement or a login.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server's own error.
    Server {
        /// Its code.
        code: u16,
        /// Its message.
        message: String,
    },
    /// The connection cannot be established, or was lost.
    Io(io::Error),
    /// The server did not send what the protocol demands.
    Protocol(&'static str),
    /// A row is larger than [`MAX_ROW`].
    RowTooLarge,
    /// A result has more columns than [`MAX_COLUMNS`].
    TooManyColumns(u64),
    /// The names of a result's columns have more than [`MAX_ROW`] bytes.
    NamesTooLong,
    /// The canceller was called, and the server did not react.
    Cancelled,
    /// Any other error, also of the receiver of results.
    Other(Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Failure {
    /// The error of a packet that the server sends in place of any other.
    pub(super) fn from_packet(packet: &[u8]) -> Self {
        let [0xff, low, high, message @ ..] = packet else {
            return Self::Protocol("an error without a code");
        };
        let message = match message {
            [b'#', _, _, _, _, _, message @ ..] => message,
            message => message,
        };
        let message = String::from_utf8_lossy(message).into_owned();
        Self::Server { code: u16::from_le_bytes([*low, *high]), message }
    }

    /// The error for callers, about the server at this address.
    pub(super) fn into_error(self, address: &MysqlAddress) -> Error {
        let at = |reason: &str| format!("MySQL server at {address}: {reason}");
        match self {
            Self::Server { code, message } if RETRYABLE.contains(&code) => {
                // Also for a lock: effects of a CALL before it, and rows of tables without transactions, remain.
                Error::unavailable(at(&message))
            }
            Self::Server { code, message } => server_error(code, &message),
            Self::Io(error) => io_error(&error, address),
            Self::Protocol(what) => Error::unavailable(at(&format!("unexpected response: {what}"))),
            Self::RowTooLarge => Error::row_too_large(),
            Self::NamesTooLong => Error::undelivered(format!(
                "cannot read the result: the names of its columns have more than {} MiB; select fewer columns",
                MAX_ROW >> 20
            )),
            Self::TooManyColumns(count) => Error::undelivered(format!(
                "cannot read the result: it has {count} columns, above the limit of {MAX_COLUMNS}; select fewer columns"
            )),
            Self::Cancelled => Error::user("the statement was cancelled"),
            Self::Other(error) => error,
        }
    }
}

fn server_error(code: u16, message: &str) -> Error {
    if code == NO_SUCH_TABLE || code == NO_SUCH_COLUMN {
        let name = message.split('\'').nth(1).filter(|name| !name.is_empty()).map(str::to_owned);
        let missing =
            if code == NO_SUCH_TABLE { name.map(Missing::Table) } else { name.map(Missing::Column) };
        return Error::user(message).with_missing(missing);
    }
    let line = message.trim_end().rsplit_once(" at line ").filter(|(_, line)| line.parse::<u32>().is_ok());
    Error::user(line.map_or_else(|| message.to_owned(), |(text, line)| format!("line {line}: {text}")))
        .with_syntax(code == SYNTAX_ERROR)
}

fn io_error(error: &io::Error, address: &MysqlAddress) -> Error {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(cause)) => Error::user(format!(
            "cannot verify the certificate of MySQL server at {address}: {}, or write tls=skip-verify",
            certificate_problem(cause)
        )),
        Some(other) => Error::user(format!(
            "cannot connect to MySQL server at {address}: TLS failed: {other}; tls=false connects without TLS"
        )),
        None => {
            let text = match error.kind() {
                io::ErrorKind::UnexpectedEof => "the connection was lost".to_owned(),
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no response in time".to_owned(),
                _ => system_message(error),
            };
            Error::unavailable(format!("MySQL server at {address}: {text}"))
        }
    }
}

/// Why a certificate is rejected, and what helps.
fn certificate_problem(cause: &CertificateError) -> String {
    match cause {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is not for this host; correct the host, have its name added to the certificate (SAN)"
                .to_owned()
        }
        CertificateError::UnknownIssuer => {
            "its authority is not trusted; name a file with the authority's certificate by SSL_CERT_FILE"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired; renew it".to_owned()
        }
        other => format!("{other}; correct the certificate"),
    }
}
