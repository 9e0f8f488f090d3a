//! Errors as gRPC codes. The client gets one sentence; the causes go to the server's log.

use sqlflow_job::{ParseIdError, Rejection};
use sqlflow_job_store::{StoreError, UpdateError};
use sqlflow_os::exhaustion;
use sqlflow_result_log::LogError;
use sqlflow_text::with_causes;
use tonic::body::Body;
use tonic::{Code, Status};

use sqlflow_sql::MAX_PROGRAM_BYTES;

use crate::admission::NotAdmitted;

pub(super) fn of_store(error: StoreError) -> Status {
    let code = match &error {
        StoreError::Full => Code::ResourceExhausted,
        StoreError::Database(_) | StoreError::Busy { .. } | StoreError::Slow | StoreError::Closing => {
            Code::Unavailable
        }
        StoreError::Damaged(..) | StoreError::DamagedSecret(_) => Code::DataLoss,
        // Another server of the same state may be new enough, or have the key; agents try again there.
        StoreError::Newer { .. } | StoreError::OtherKey { .. } => Code::Unavailable,
    };
    refuse(code, &error)
}

pub(super) fn of_log(error: LogError) -> Status {
    let code = match &error {
        LogError::Corrupt { .. } => Code::DataLoss,
        LogError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            Code::ResourceExhausted
        }
        LogError::Small(error) if error.is_full => Code::ResourceExhausted,
        LogError::Io { .. } | LogError::Busy { .. } | LogError::Small(_) => Code::Unavailable,
        LogError::Sealed { .. } => Code::FailedPrecondition,
        LogError::Gap { .. } => Code::InvalidArgument,
    };
    let remedy = match &error {
        LogError::Io { source, .. } => {
            exhaustion::remedy(source).map(|remedy| format!(": {source}; {remedy}"))
        }
        _ => None,
    };
    let status = refuse(code, &error);
    match remedy {
        Some(remedy) => Status::new(code, format!("{}{remedy}", status.message())),
        None => status,
    }
}

/// Code of a permanent error for an agent; it retries all others. See `agent.proto`.
pub(super) fn is_final(code: Code) -> bool {
    matches!(code, Code::Unauthenticated | Code::PermissionDenied | Code::NotFound | Code::FailedPrecondition)
}

/// Codes for an agent: `agent.proto` says which are permanent.
pub(super) fn of_admission(refused: NotAdmitted) -> Status {
    match refused {
        NotAdmitted::Exceeded(exceeded) => exceeded.into(),
        NotAdmitted::Store(error) => of_store(error),
        NotAdmitted::Log(error) => of_log(error),
    }
}

pub(super) fn of_update(error: UpdateError) -> Status {
    match error {
        UpdateError::NotFound | UpdateError::Rejected(Rejection::UnknownAttempt) => {
            Status::not_found("there is no such attempt")
        }
        UpdateError::Rejected(rejection @ Rejection::WrongInstance) => {
            Status::permission_denied(rejection.to_string())
        }
        UpdateError::Rejected(rejection) => Status::failed_precondition(rejection.to_string()),
        UpdateError::Fenced => Status::failed_precondition(error.to_string()),
        UpdateError::Store(error) => of_store(error),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
pub(super) fn of_token(error: ParseIdError) -> Status {
    Status::invalid_argument(error.to_string())
}

pub(super) fn unknown_job() -> Status {
    Status::not_found("no job of yours has this token or id; it may be older than the server keeps jobs")
}

/// Metadata of Fetch: the client's message limit, in bytes.
pub(super) const LARGEST_MESSAGE: &str = "sqlflow-max-message-bytes";

/// The page ends with record `position`; it is the only one.
pub(super) fn too_large(position: u64, bytes: usize, largest: usize) -> Status {
    Status::resource_exhausted(format!(
        "cannot send record {position}: it takes {bytes} bytes, and this client decodes {largest}; let the client \
         receive larger messages and send the metadata {LARGEST_MESSAGE}, or store large values in a table"
    ))
}

/// gRPC refuses some requests before any service sees them, with codes and messages of its own: one over the limit, which
/// only a program can make so long, one that is not the message, such as a program that is not UTF-8, and a call without
/// a message, or with a part of one. All are mistakes of the caller. INTERNAL stays where gRPC's specification demands
/// it: for a message with the compressed flag in a call without an encoding.
pub(super) fn of_wrong_requests(response: http::Response<Body>) -> http::Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let said = status.message();
    if status.code() == Code::OutOfRange && said.contains("message length too large") {
        let mebibytes = MAX_PROGRAM_BYTES >> 20;
        let message =
            format!("the program is too long: {MAX_PROGRAM_BYTES} bytes ({mebibytes} MiB) is the most");
        return Status::invalid_argument(message).into_http();
    }
    if status.code() == Code::Internal && UNREADABLE.iter().any(|it| said.starts_with(it)) {
        let message = format!(
            "cannot read the request: {said}; send a message of this method, and texts in UTF-8 in it"
        );
        return Status::invalid_argument(message).into_http();
    }
    response
}

/// How the library begins its errors for bytes that are not one message.
const UNREADABLE: [&str; 5] = [
    "failed to decode Protobuf message",
    "Missing request message.",
    "Unexpected EOF decoding stream.",
    "protocol error: received message with invalid compression flag",
    "Error decompressing: ",
];

fn refuse(code: Code, error: &(dyn std::error::Error + 'static)) -> Status {
    tracing::warn!(error = with_causes(error), ?code, "request failed");
    Status::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use nix::errno::Errno;

    use super::*;

    fn of(errno: Errno) -> Status {
        let source = io::Error::from(errno);
        of_log(LogError::Io { what: "open", path: PathBuf::from("/state/log/lock"), source })
    }

    #[test]
    fn request_that_cannot_be_read_is_a_mistake_of_the_caller() {
        let refused = |status: Status| {
            let response = of_wrong_requests(status.into_http());
            Status::from_header_map(response.headers()).unwrap()
        };
        // The library's own error for bytes that are no message.
        let unread = <() as prost::Message>::decode(&[0xff_u8][..]).unwrap_err();
        let status = refused(Status::internal(unread.to_string()));
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().starts_with("cannot read the request: "), "{status:?}");
        for said in [
            "Missing request message.",
            "Unexpected EOF decoding stream.",
            "protocol error: received message with invalid compression flag: 7 (valid flags are 0 and 1), while sending \
             request",
            "Error decompressing: corrupt deflate stream, while sending request",
        ] {
            assert_eq!(refused(Status::internal(said)).code(), Code::InvalidArgument, "{said}");
        }
        let demanded =
            "protocol error: received message with compressed-flag but no grpc-encoding was specified";
        assert_eq!(refused(Status::internal(demanded)).code(), Code::Internal);
        assert_eq!(refused(Status::internal("a fault of the server")).code(), Code::Internal);
        let long = "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes";
        assert_eq!(refused(Status::out_of_range(long)).code(), Code::InvalidArgument);
    }

    #[test]
    fn log_error_for_lack_of_descriptors_names_the_fix() {
        let status = of(Errno::EMFILE);
        assert_eq!(status.code(), Code::Unavailable);
        assert!(
            status.message().starts_with("cannot open /state/log/lock: Too many open files")
                && status.message().contains("LimitNOFILE"),
            "{}",
            status.message()
        );
        assert_eq!(of(Errno::ENOSPC).code(), Code::ResourceExhausted);
        assert_eq!(of(Errno::EIO).message(), "cannot open /state/log/lock");
    }
}
