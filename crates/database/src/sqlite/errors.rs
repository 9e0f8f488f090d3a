//! SQLite's errors.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use sqlflow_data_source::Refusal;

use crate::{Error, Missing};

/// What errors of a connection mention.
#[derive(Debug, Clone)]
pub(super) struct ErrorContext {
    pub(super) path: PathBuf,
    /// Whether the file did not exist when it was opened.
    pub(super) was_absent: bool,
}

impl ErrorContext {
    pub(super) fn translate(&self, error: &rusqlite::Error) -> Error {
        let message = message(error);
        let file = || format!("SQLite file {}: {message}", self.path.display());
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => return Error::busy(file()),
            Some(
                ErrorCode::CannotOpen
                | ErrorCode::NotADatabase
                | ErrorCode::ReadOnly
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::DiskFull,
            ) => return Error::user(file()),
            _ => {}
        }
        // SQLite has no error code for these.
        let table = after(&message, "no such table: ");
        if self.was_absent && table.is_some() {
            let path = self.path.display();
            return Error::user(format!("{message}; SQLite file {path} did not exist, check its path"));
        }
        let column = after(&message, "no such column: ").or_else(|| after(&message, "has no column named "));
        let missing = table.map(Missing::Table).or(column.map(Missing::Column));
        let is_syntax = is_syntax_error(&message);
        Error::user(message).with_missing(missing).with_syntax(is_syntax)
    }
}

/// The error of a file that cannot be opened.
pub(super) fn not_opened(path: &Path, error: &rusqlite::Error) -> Error {
    let file = path.display();
    if path.is_dir() {
        return Error::user(format!("cannot open SQLite file {file}: it is a folder; name a file in it"));
    }
    let message = match error.sqlite_error() {
        // Here the library adds the URI to the message.
        Some(it) if it.code == ErrorCode::CannotOpen => "unable to open database file".to_owned(),
        _ => message(error),
    };
    Error::user(format!("cannot open SQLite file {file}: {message}"))
}

/// What was judged, or the error of a file that may not be opened.
pub(super) fn allowed<T>(path: &Path, judged: Result<T, Refusal>) -> Result<T, Error> {
    judged.map_err(|refusal| Error::user(format!("cannot open SQLite file {}: {refusal}", path.display())))
}

/// Whether a message is about the grammar. SQLite has no error code for that.
pub(super) fn is_syntax_error(message: &str) -> bool {
    let near = message.strip_prefix("near \"").is_some_and(|it| it.ends_with("\": syntax error"));
    near || message == "incomplete input" || message.starts_with("unrecognized token: ")
}

/// SQLite's own message.
pub(super) fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::MultipleStatement => "You can only execute one statement at a time.".to_owned(),
        rusqlite::Error::SqliteFailure(_, Some(message))
        | rusqlite::Error::SqlInputError { msg: message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// The word after a text in a message, without double quotes.
fn after(message: &str, text: &str) -> Option<String> {
    let word = message.split_once(text)?.1.split_whitespace().next()?;
    Some(word.trim_matches('"').to_owned())
}
