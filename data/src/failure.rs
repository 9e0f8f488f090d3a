//! The failure of a step, as the agent reports it.

use sqlflow_database::{Error, ErrorKind};
use sqlflow_proto::agent::Failure;

use crate::channel::ChannelError;
use crate::redact::Redactor;

/// Maximum length of a message, in characters: a database's message may quote the whole statement.
const MAX_MESSAGE: usize = 2_000;

/// Why a step failed.
#[derive(Debug)]
pub enum StepError {
    /// An error of the database.
    Database(Error),
    /// An error of the channel. Nobody may be there to read it.
    Channel(ChannelError),
    /// An error of this program or its surroundings.
    Other(String),
    /// An error, and nothing of the statement was executed.
    NotExecuted(Box<Self>),
    /// An error that the agent knows already.
    Reported(Box<Self>),
    /// An error, and it is not known what remains of the statement in the database.
    Unclear(Box<Self>),
}

impl From<Error> for StepError {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl From<ChannelError> for StepError {
    fn from(error: ChannelError) -> Self {
        Self::Channel(error)
    }
}

impl From<std::io::Error> for StepError {
    fn from(error: std::io::Error) -> Self {
        Self::Channel(ChannelError::Io(error))
    }
}

impl StepError {
    /// Its kind, for the span: never a message, which may quote data. The names are those of Python's errors.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Database(error) => match error.kind {
                ErrorKind::User | ErrorKind::Undelivered => "UserError",
                ErrorKind::Unavailable => "DatabaseUnavailable",
                ErrorKind::Busy => "DatabaseBusy",
            },
            Self::Channel(ChannelError::Refused(_) | ChannelError::NotGranted(_)) => "CommitRefused",
            Self::Channel(ChannelError::Io(_)) => "AgentLost",
            Self::Other(_) => "SubmitterError",
            Self::NotExecuted(error) | Self::Unclear(error) | Self::Reported(error) => error.kind(),
        }
    }

    /// Whether the statement may have been executed.
    pub fn is_unclear(&self) -> bool {
        match self {
            Self::Database(error) => error.is_unclear || error.kind == ErrorKind::Undelivered,
            Self::Unclear(_) => true,
            _ => false,
        }
    }

    /// The failure, with a message in one line of bounded length and without secrets.
    pub fn failure(&self, redactor: &Redactor) -> Failure {
        let (message, kind) = match self {
            Self::NotExecuted(error) => return Failure { not_executed: true, ..error.failure(redactor) },
            Self::Reported(error) => return error.failure(redactor),
            Self::Unclear(error) => {
                return Failure { unclear: true, not_executed: false, ..error.failure(redactor) };
            }
            Self::Database(error) => (error.message.clone(), Some(error.kind)),
            Self::Channel(ChannelError::Refused(reason)) => {
                (format!("cannot continue: this attempt was stopped: {reason}"), None)
            }
            Self::Channel(ChannelError::NotGranted(reason)) => {
                (format!("cannot commit: the agent refused the grant: {reason}"), None)
            }
            Self::Channel(ChannelError::Io(error)) => (format!("cannot reach the agent: {error}"), None),
            Self::Other(message) => (message.clone(), None),
        };
        Failure {
            // A part of a secret that is cut would not be found.
            message: shortened(&redactor.redact(&message)),
            detail: String::new(),
            user_error: kind == Some(ErrorKind::User) || kind == Some(ErrorKind::Undelivered),
            transient: matches!(kind, Some(ErrorKind::Unavailable | ErrorKind::Busy)),
            unclear: self.is_unclear(),
            not_executed: kind == Some(ErrorKind::Busy),
            unprinted: true,
            peer_lost: false,
        }
    }
}

/// At most [`MAX_MESSAGE`] characters, cut between words if possible.
fn shortened(text: &str) -> String {
    let Some((end, _)) = text.char_indices().nth(MAX_MESSAGE) else { return text.to_owned() };
    let cut = &text[..end];
    let words = cut.rsplit_once(' ').map_or("", |(words, _)| words);
    format!("{} …", if words.len() > end / 2 { words } else { cut })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_at_the_end_of_a_long_message_is_masked() {
        let redactor = Redactor::new("mysql://ana:hunter2pass@tcp(db:3306)/shop");
        let before = "x".repeat(MAX_MESSAGE - 4);
        let error = StepError::Database(Error::user(format!("{before}hunter2pass and more")));
        assert_eq!(error.failure(&redactor).message, format!("{before}*** …"));
        let short = StepError::Other("no hunter2pass".into());
        assert_eq!(short.failure(&redactor).message, "no ***");
    }
}
