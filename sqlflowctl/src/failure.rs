//! Errors of commands, with their exit statuses.

use std::io;

use tonic::{Code, Status};

use crate::connection::DEFAULT_SERVER;
use crate::listener::ForeignServer;

/// An error of a command. `Display` is the message for the user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The job failed; the message has job and cause.
    #[error("{0}")]
    Job(String),
    /// The job was cancelled; the message has its id.
    #[error("{0}")]
    Cancelled(String),
    /// Wrong usage, or a job that the server does not know.
    #[error("{0}")]
    Usage(String),
    /// The server could not be reached, or had an error.
    #[error("{0}")]
    Server(String),
    /// The user interrupted the command.
    #[error("{0}")]
    Interrupted(String),
    /// Standard output was closed; only the exit status reports it.
    #[error("standard output was closed")]
    ClosedOutput,
    /// Another error on this machine, such as a file error.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// The exit status, as listed in `--help`.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Job(_) | Self::Other(_) => 1,
            Self::Usage(_) => 2,
            Self::Server(_) => 3,
            Self::Cancelled(_) => 4,
            Self::Interrupted(_) => 130,
            Self::ClosedOutput => 141,
        }
    }

    /// The kind of error in words, without parts of the program or the data.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Job(_) => "the job failed",
            Self::Cancelled(_) => "the job was cancelled",
            Self::Usage(_) => "wrong usage",
            Self::Server(_) => "the server did not answer, or is at fault",
            Self::Interrupted(_) => "interrupted",
            Self::ClosedOutput => "standard output was closed",
            Self::Other(_) => "an error of this machine",
        }
    }

    /// The error for a gRPC status; `server` is the server's address.
    pub(crate) fn from_status(status: &Status, server: &str) -> Self {
        let message = status.message();
        if let Some(foreign) = foreign_server(status) {
            return Self::Usage(foreign.to_string());
        }
        if let Some(why) = tls_error(status) {
            return Self::Server(format!("cannot connect to the server at {server}: {why}"));
        }
        if is_retryable(status) {
            let hint = match server {
                DEFAULT_SERVER => "; name one with --server, or let --server own start one of yours",
                _ => "",
            };
            return Self::Server(format!("cannot reach the server at {server}: {}{hint}", reason(status)));
        }
        match status.code() {
            Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::FailedPrecondition => {
                Self::Usage(message.to_owned())
            }
            Code::Unauthenticated | Code::PermissionDenied => {
                Self::Usage(format!("the server at {server} refuses: {message}"))
            }
            Code::ResourceExhausted => Self::Job(format!("the server refused: {message}")),
            Code::Unimplemented => Self::Server(format!("the server at {server} does not know this call")),
            code => Self::Server(format!("the server at {server} is at fault: {message} ({code:?})")),
        }
    }
}

impl From<io::Error> for Failure {
    /// The error for a failed write to standard output.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ClosedOutput
        } else {
            Self::Other(anyhow::Error::new(error).context("cannot write to standard output"))
        }
    }
}

/// Whether a call is retryable: the server did not answer. A status made on this side of the connection has a source;
/// one that the server sent has none.
pub(crate) fn is_retryable(status: &Status) -> bool {
    if tls_error(status).is_some() || foreign_server(status).is_some() {
        return false;
    }
    let made_here = std::error::Error::source(status).is_some();
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted => true,
        Code::Cancelled | Code::Unknown | Code::Internal => made_here,
        _ => false,
    }
}

/// The server, if it is one that the user does not trust.
fn foreign_server(status: &Status) -> Option<&ForeignServer> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(status);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = error.downcast_ref().or_else(|| inner.and_then(|it| it.downcast_ref()));
        if found.is_some() {
            return found;
        }
        next = error.source();
    }
    None
}

/// Why the two sides do not agree on TLS, which no retry changes.
fn tls_error(status: &Status) -> Option<String> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(status);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = error.downcast_ref().or_else(|| inner.and_then(|it| it.downcast_ref::<rustls::Error>()));
        match tls {
            Some(error @ rustls::Error::InvalidCertificate(_)) => {
                return Some(format!("{error}; name the certificates that sign the server's with --ca"));
            }
            Some(error) => return Some(error.to_string()),
            None => next = error.source(),
        }
    }
    // Of an error after the handshake, the HTTP/2 library keeps the text only.
    let reason = reason(status);
    if let Some(alert) = reason.strip_prefix("received fatal alert: ") {
        return Some(format!("it refuses this client's certificate ({alert}); check --client-cert"));
    }
    // The answer of a TLS server to the first frame of HTTP/2 is no frame.
    let is_alert = reason.ends_with("frame with invalid size");
    is_alert.then(|| "it does not speak plain gRPC; if it has TLS, write https://".to_owned())
}

/// The root cause of a status, such as `connection refused`.
pub(crate) fn reason(status: &Status) -> String {
    let mut innermost: &dyn std::error::Error = status;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if std::ptr::addr_eq(innermost, status) { status.message().to_owned() } else { innermost.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_of_the_server_is_not_retryable() {
        assert!(is_retryable(&Status::unavailable("shutting down")));
        assert!(!is_retryable(&Status::internal("a bug")));
        let lost = Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionReset)));
        assert!(is_retryable(&lost), "{lost:?}");
    }

    #[test]
    fn kind_contains_no_part_of_the_message() {
        let refused = Failure::from_status(&Status::invalid_argument("found \"secret\""), "http://a:1");
        assert_eq!(refused.kind(), "wrong usage");
    }

    #[test]
    fn exit_statuses_match_the_help() {
        let status = |status: Status| Failure::from_status(&status, "http://a:1").exit_status();
        assert_eq!(status(Status::invalid_argument("line 1, column 1: no")), 2);
        assert_eq!(status(Status::not_found("no such job")), 2);
        assert_eq!(status(Status::unauthenticated("no token")), 2);
        assert_eq!(status(Status::permission_denied("not you")), 2);
        assert_eq!(status(Status::unavailable("")), 3);
        assert_eq!(status(Status::internal("")), 3);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit_status(), 141);
    }
}
