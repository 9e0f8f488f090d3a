//! Errors of databases, by who can fix them.

/// An error. Its message is one line that a person can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Kind.
    pub kind: ErrorKind,
    /// Message.
    pub message: String,
    /// A name that does not exist, if that is the error.
    pub missing: Option<Missing>,
    /// Whether the text is not a statement of the database's language, whatever tables and columns exist.
    pub is_syntax: bool,
    /// Whether the statement may have been executed in spite of the error.
    pub is_unclear: bool,
}

/// Who can fix an error, and whether the statement may be run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The user: in the SQL, the data or the data source.
    User,
    /// The database cannot be reached, or the connection was lost. The same statement may succeed later.
    Unavailable,
    /// The database rejected the statement and rolled it back, because of a lock or a deadlock.
    Busy,
    /// The results could not be delivered. The statement may have been executed.
    Undelivered,
}

/// A name that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// A table or view.
    Table(String),
    /// A column.
    Column(String),
}

impl Error {
    /// An error that the user can fix.
    pub fn user(message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::User,
            message: one_line(&message.into()),
            missing: None,
            is_syntax: false,
            is_unclear: false,
        }
    }

    /// An error of a database that cannot be reached.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unavailable, ..Self::user(message) }
    }

    /// An error of a statement that was rolled back because of a lock.
    pub fn busy(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Busy, ..Self::user(message) }
    }

    /// An error of results that could not be delivered.
    pub fn undelivered(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Undelivered, ..Self::user(message) }
    }

    /// A row has more than [`crate::batcher::MAX_ROW`] bytes.
    pub(crate) fn row_too_large() -> Self {
        Self::undelivered(format!(
            "cannot read the result: a row is larger than the limit of {} MiB; select fewer or smaller columns",
            crate::batcher::MAX_ROW >> 20
        ))
    }

    /// Sets whether the text is not a statement of the database's language.
    #[must_use]
    pub(crate) fn with_syntax(self, is_syntax: bool) -> Self {
        Self { is_syntax, ..self }
    }

    /// Adds the name that does not exist.
    #[must_use]
    pub fn with_missing(self, missing: Option<Missing>) -> Self {
        Self { missing, ..self }
    }
}

/// Joins the lines of a message.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The message of an error of the system, without its number and without the prefix of the standard library.
pub(crate) fn system_message(error: &std::io::Error) -> String {
    let message = error.to_string();
    let message = message.split(" (os error").next().unwrap_or_default();
    message.trim_start_matches("failed to lookup address information: ").to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    #[test]
    fn system_messages_are_the_systems_own() {
        let message = |error| super::system_message(&error);
        assert_eq!(message(Error::from_raw_os_error(111)), "Connection refused");
        let unknown = "failed to lookup address information: Name or service not known";
        assert_eq!(message(Error::other(unknown)), "Name or service not known");
    }
}
