//! A failed job as an error of a call.

use std::collections::HashMap;

use sqlflow_job::JobId;
use sqlflow_proto::v1::{Cause, JobStatus};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Who defines the reasons below.
const DOMAIN: &str = "sqlflow.v1.Cause";

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
    Status::with_error_details(code, state.message.clone(), details)
}
