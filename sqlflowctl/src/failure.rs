//! How a command can end without success, each way with its exit status.

use std::io;

use tonic::{Code, Status};

/// Why a command ends without success. `Display` is what the person reads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The job failed; the sentence names job and cause.
    #[error("{0}")]
    Job(String),
    /// The job was cancelled; the sentence names it.
    #[error("{0}")]
    Cancelled(String),
    /// Wrong usage, or a job that the server does not know.
    #[error("{0}")]
    Usage(String),
    /// The server could not be reached, or is at fault.
    #[error("{0}")]
    Server(String),
    /// The person interrupted the command.
    #[error("{0}")]
    Interrupted(String),
    /// Nobody reads standard output any more: said by the exit status alone.
    #[error("standard output was closed")]
    ClosedOutput,
    /// Something else on this machine, such as a file.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// The exit status, as `--help` lists them.
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

    /// What kind it is, in words without anything of the program or the data.
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

    /// The failure that a server's answer means; `server` is its address.
    pub(crate) fn from_status(status: &Status, server: &str) -> Self {
        let message = status.message();
        if is_transient(status) {
            return Self::Server(format!("cannot reach the server at {server}: {}", reason(status)));
        }
        match status.code() {
            Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::FailedPrecondition => {
                Self::Usage(message.to_owned())
            }
            Code::ResourceExhausted => Self::Job(format!("the server refused: {message}")),
            Code::Unimplemented => Self::Server(format!("the server at {server} does not know this call")),
            code => Self::Server(format!("the server at {server} is at fault: {message} ({code:?})")),
        }
    }
}

impl From<io::Error> for Failure {
    /// For errors of standard output.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ClosedOutput
        } else {
            Self::Other(anyhow::Error::new(error).context("cannot write to standard output"))
        }
    }
}

/// Whether the call may succeed when it is repeated: the server did not answer, rather than answering no. A status
/// that was made on this side of the connection carries its source; one that the server sent does not.
pub(crate) fn is_transient(status: &Status) -> bool {
    let made_here = std::error::Error::source(status).is_some();
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted => true,
        Code::Cancelled | Code::Unknown | Code::Internal => made_here,
        _ => false,
    }
}

/// The innermost reason of a status, such as `connection refused`.
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
    fn a_server_that_says_no_is_told_from_one_that_does_not_answer() {
        assert!(is_transient(&Status::unavailable("shutting down")));
        assert!(!is_transient(&Status::internal("a bug")));
        let lost = Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionReset)));
        assert!(is_transient(&lost), "{lost:?}");
    }

    #[test]
    fn a_kind_has_nothing_of_the_message() {
        let refused = Failure::from_status(&Status::invalid_argument("found \"secret\""), "http://a:1");
        assert_eq!(refused.kind(), "wrong usage");
    }

    #[test]
    fn exit_statuses_are_those_of_the_help() {
        let status = |status: Status| Failure::from_status(&status, "http://a:1").exit_status();
        assert_eq!(status(Status::invalid_argument("line 1, column 1: no")), 2);
        assert_eq!(status(Status::not_found("no such job")), 2);
        assert_eq!(status(Status::unavailable("")), 3);
        assert_eq!(status(Status::internal("")), 3);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit_status(), 141);
    }
}
