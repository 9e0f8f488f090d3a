//! PostgreSQL's errors.

use sqlflow_sql::Dialect;

use super::frames::{FrameError, MAX_FRAME};
use super::messages::ServerMessage;
use crate::form::is_part_of_word;
use crate::{Error, Missing};

/// SQLSTATE for a table that does not exist.
const NO_SUCH_TABLE: &str = "42P01";
/// SQLSTATE for a column that does not exist.
const NO_SUCH_COLUMN: &str = "42703";
/// SQLSTATE of a wrong syntax, and of some errors that depend on tables.
const SYNTAX_ERROR: &str = "42601";
/// Files of the server's source that report errors of the grammar.
const GRAMMAR: [&str; 3] = ["gram.y", "scan.l", "parser.c"];
/// Classes of SQLSTATE: connection, operator intervention.
const CONNECTION_LOST: [&str; 2] = ["08", "57P"];
/// Classes of SQLSTATE: resources, serialization failure, deadlock.
const BUSY: [&str; 3] = ["53", "40001", "40P01"];
/// First words of statements that are executed completely or not at all. CALL and DO may commit in between, and so do
/// statements with CONCURRENTLY.
const ATOMIC: [&str; 10] =
    ["ALTER", "CREATE", "DELETE", "DROP", "INSERT", "MERGE", "SELECT", "TRUNCATE", "UPDATE", "WITH"];

/// Whether a connection can be used after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    Usable,
    Lost,
}

/// Translates an error that the server reported for a statement.
pub(super) fn translate(address: &str, error: &ServerMessage, sql: &str, connection: Connection) -> Error {
    let message = full_message(error);
    let is_one_of = |classes: &[&str]| classes.iter().any(|class| error.state.starts_with(class));
    let is_gone = error.state.is_empty() || is_one_of(&CONNECTION_LOST) || connection == Connection::Lost;
    if is_gone || is_one_of(&BUSY) {
        let message = at(address, &message);
        return if is_gone || !is_atomic(sql) { Error::unavailable(message) } else { Error::busy(message) };
    }
    // If the server has a hint, no suggestions are added.
    let is_open = error.state == NO_SUCH_COLUMN && error.hint.is_empty();
    let missing = if error.state == NO_SUCH_TABLE {
        quoted(&message).map(Missing::Table)
    } else if is_open {
        column(&message).map(Missing::Column)
    } else {
        None
    };
    match error.position {
        Some(position) => Error::user(format!("line {}: {message}", line(sql, position))),
        None => Error::user(message),
    }
    .with_missing(missing)
    .with_syntax(error.state == SYNTAX_ERROR && GRAMMAR.contains(&error.file.as_str()))
}

/// Translates an error that the server reported while the connection was opened.
pub(super) fn rejected(address: &str, error: &ServerMessage) -> Error {
    // It starts, shuts down, or has too many connections.
    let is_temporary = ["57P", "53"].iter().any(|class| error.state.starts_with(class));
    if is_temporary || error.state.is_empty() {
        return unreachable(address, &full_message(error));
    }
    Error::user(at(address, &full_message(error)))
}

/// The server does not respond.
pub(super) fn unreachable(address: &str, cause: &str) -> Error {
    Error::unavailable(format!("cannot reach PostgreSQL server at {address}: {cause}"))
}

/// The connection was lost, or cannot be used any longer.
pub(super) fn lost(address: &str, error: &FrameError) -> Error {
    match error {
        FrameError::TooLong(size) => Error::undelivered(format!(
            "cannot read a row of {size} bytes: it is too long; select fewer or smaller columns (limit: {MAX_FRAME} \
             bytes)"
        )),
        other => Error::unavailable(at(address, &cause(other))),
    }
}

/// Why no frame can be read.
pub(super) fn cause(error: &FrameError) -> String {
    match error {
        FrameError::Io(error) => system_message(error),
        FrameError::Closed => "server closed the connection unexpectedly".to_owned(),
        FrameError::Malformed => "it sent a message that is not one of PostgreSQL's protocol".to_owned(),
        FrameError::TooLong(size) => format!("it sent a message of {size} bytes, which is too long here"),
    }
}

/// The message of an error of the system.
pub(super) fn system_message(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::TimedOut {
        return "timeout expired".to_owned();
    }
    crate::error::system_message(error)
}

/// A message with the server's address.
pub(super) fn at(address: &str, message: &str) -> String {
    format!("PostgreSQL server at {address}: {message}")
}

/// Whether a statement is executed completely or not at all.
fn is_atomic(sql: &str) -> bool {
    let words = sqlflow_sql::leading_words(sql, Dialect::Postgresql, 1);
    let is_concurrent =
        sql.split(|it| !is_part_of_word(it)).any(|it| it.eq_ignore_ascii_case("CONCURRENTLY"));
    words.first().is_some_and(|word| ATOMIC.contains(&word.as_str())) && !is_concurrent
}

fn full_message(error: &ServerMessage) -> String {
    let extras = [&error.detail, &error.hint].into_iter().filter(|it| !it.is_empty());
    extras.fold(error.message.clone(), |message, extra| format!("{message} ({extra})"))
}

/// The line of a place, which is counted in characters from 1.
fn line(sql: &str, position: usize) -> usize {
    1 + sql.chars().take(position.saturating_sub(1)).filter(|it| *it == '\n').count()
}

/// The first quoted word of a message.
fn quoted(message: &str) -> Option<String> {
    message.split('"').nth(1).filter(|it| !it.is_empty()).map(str::to_owned)
}

/// The column that a message names: `column "a" of relation "t"`, `column f.a`.
fn column(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("column ")?;
    let rest = rest.strip_prefix('"').unwrap_or(rest);
    let end = rest.find(|it: char| it == '"' || it.is_whitespace()).unwrap_or(rest.len());
    (end > 0).then(|| rest[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn translated(state: &str, message: &str, sql: &str) -> Error {
        let error =
            ServerMessage { state: state.into(), message: message.into(), ..ServerMessage::default() };
        translate("h:1", &error, sql, Connection::Usable)
    }

    #[test]
    fn kinds_follow_the_state() {
        for (state, sql, kind) in [
            ("42601", "SELEC 1", ErrorKind::User),
            ("57014", "SELECT 1", ErrorKind::User),
            ("57P01", "SELECT 1", ErrorKind::Unavailable),
            ("08006", "SELECT 1", ErrorKind::Unavailable),
            ("", "SELECT 1", ErrorKind::Unavailable),
            ("40001", "-- a\nSELECT 1", ErrorKind::Busy),
            ("40P01", "UPDATE t SET a = 1", ErrorKind::Busy),
            ("53100", "INSERT INTO t VALUES (1)", ErrorKind::Busy),
            ("40001", "CALL f()", ErrorKind::Unavailable),
            ("40P01", "CREATE INDEX concurrently i ON t (a)", ErrorKind::Unavailable),
        ] {
            let error = translated(state, "m", sql);
            assert_eq!(error.kind, kind, "{state} {sql}");
            assert_eq!(
                error.message,
                if kind == ErrorKind::User { "m" } else { "PostgreSQL server at h:1: m" }
            );
        }
        let error = ServerMessage { state: "XX000".into(), ..ServerMessage::default() };
        assert_eq!(translate("h:1", &error, "SELECT 1", Connection::Lost).kind, ErrorKind::Unavailable);
    }

    #[test]
    fn messages_have_line_detail_hint_and_missing_name() {
        let mut error = ServerMessage {
            state: "42703".into(),
            message: "column \"b\" of relation \"t\" does not exist".into(),
            position: Some(14),
            ..ServerMessage::default()
        };
        let found = translate("h:1", &error, "SELECT 'é\n',\nb", Connection::Usable);
        assert_eq!(found.message, "line 3: column \"b\" of relation \"t\" does not exist");
        assert_eq!(found.missing, Some(Missing::Column("b".into())));
        error.detail = "d\n e".into();
        error.hint = "Perhaps \"c\".".into();
        let found = translate("h:1", &error, "SELECT 1", Connection::Usable);
        assert_eq!(
            found.message,
            "line 1: column \"b\" of relation \"t\" does not exist (d e) (Perhaps \"c\".)"
        );
        assert_eq!(found.missing, None);
        let missing = |state, message| translated(state, message, "").missing;
        assert_eq!(missing("42703", "column f.a does not exist"), Some(Missing::Column("f.a".into())));
        assert_eq!(missing("42P01", "relation \"s.t\" does not exist"), Some(Missing::Table("s.t".into())));
        assert_eq!(missing("42601", "relation \"s.t\" does not exist"), None);
    }

    #[test]
    fn only_errors_of_the_grammar_are_errors_of_the_syntax() {
        for (state, file, is_syntax) in [
            ("42601", "scan.l", true),
            ("42601", "gram.y", true),
            ("42601", "parser.c", true),
            // INSERT has more expressions than target columns.
            ("42601", "parse_target.c", false),
            ("42P01", "gram.y", false),
        ] {
            let error = ServerMessage { state: state.into(), file: file.into(), ..ServerMessage::default() };
            let found = translate("h:1", &error, "", Connection::Usable);
            assert_eq!(found.is_syntax, is_syntax, "{state} {file}");
        }
    }
}
