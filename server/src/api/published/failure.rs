//! A failed job as an error of a call.

use std::collections::HashMap;

use sqlflow_job::JobId;
use sqlflow_proto::v1::{Cause, JobStatus};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Who defines the reasons below.
const DOMAIN: &str = "sqlflow.v1.Cause";

/// Maximum bytes of a message. It is sent twice as metadata, of which clients take 8 KiB by default, and each byte may
/// become three.
const MAX_MESSAGE: usize = 1024;

/// The error of a failed job. None of its codes lets a client library repeat the call by itself: the job has ended.
pub(super) fn of(state: &JobStatus, id: &JobId) -> Status {
    let code = match state.cause() {
        Cause::StatementFailed | Cause::LaunchFailed | Cause::Storage => Code::FailedPrecondition,
        Cause::Cancelled | Cause::NotFetched => Code::Cancelled,
        Cause::OutOfMemory | Cause::Limit => Code::ResourceExhausted,
        Cause::Deadline => Code::DeadlineExceeded,
        Cause::Lost | Cause::MayHaveExecuted | Cause::Killed => Code::Aborted,
        Cause::Unspecified => Code::Unknown,
    };
    let details = HashMap::from([("job_id".to_owned(), id.to_string())]);
    let details = ErrorDetails::with_error_info(state.cause().as_str_name(), DOMAIN, details);
    Status::with_error_details(code, cut(&state.message), details)
}

/// The message, or its beginning.
fn cut(message: &str) -> String {
    if message.len() <= MAX_MESSAGE {
        return message.to_owned();
    }
    format!("{} …", &message[..message.floor_char_boundary(MAX_MESSAGE)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_has_the_cause_and_a_bounded_message() {
        let state = JobStatus { cause: Cause::OutOfMemory.into(), message: "€".repeat(2000), code: 3 };
        let error = of(&state, &JobId::generate());
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert!(error.message().ends_with("€ …") && error.message().len() < MAX_MESSAGE + 8);
        assert_eq!(error.get_details_error_info().unwrap().reason, "CAUSE_OUT_OF_MEMORY");
    }
}
