//! A position between the responses of Fetch. It is in the request, so every server can answer, and a repeated request has
//! the same answer.

use sqlflow_proto::published::{FetchRequest, Job};
use tonic::Status;

/// A position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cursor {
    /// Position of the last record that was returned whole.
    pub(super) after: u64,
    /// How much of the next one was returned: rows of a batch, or bytes of output.
    pub(super) skip: u64,
    /// The result set that is open.
    pub(super) set: Set,
}

/// A result set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Set {
    /// None is open.
    #[default]
    None,
    /// One has begun.
    Head,
    /// It has rows.
    Rows,
}

impl Cursor {
    /// The position of a request. The first one of a client has none.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: no server made this request.
    pub(super) fn of(request: &FetchRequest) -> Result<Self, Status> {
        let FetchRequest { step_id, step_phase, job: _ } = request;
        let wrong = || {
            Status::invalid_argument(
                "cannot fetch: step_id and step_phase are not those of an earlier response; send \
                 updated_fetch_since unchanged, or the job alone to read from its beginning",
            )
        };
        let set = match step_phase.as_str() {
            "" => Set::None,
            "head" => Set::Head,
            "rows" => Set::Rows,
            _ => return Err(wrong()),
        };
        if step_id.is_empty() {
            return Ok(Self { set, ..Self::default() });
        }
        let (after, skip) = step_id.split_once('+').unwrap_or((step_id, "0"));
        match (after.parse(), skip.parse()) {
            (Ok(after), Ok(skip)) => Ok(Self { after, skip, set }),
            _ => Err(wrong()),
        }
    }

    /// The request for what follows.
    pub(super) fn request(self, job: Job) -> FetchRequest {
        let Self { after, skip, set } = self;
        let step_id = if skip == 0 { after.to_string() } else { format!("{after}+{skip}") };
        let step_phase = match set {
            Set::None => "",
            Set::Head => "head",
            Set::Rows => "rows",
        };
        FetchRequest { job: Some(job), step_id, step_phase: step_phase.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_travels_in_the_request() {
        for (after, skip, set) in [(0, 0, Set::None), (7, 0, Set::Head), (u64::MAX, 12, Set::Rows)] {
            let cursor = Cursor { after, skip, set };
            assert_eq!(Cursor::of(&cursor.request(Job::default())).unwrap(), cursor);
        }
        assert_eq!(Cursor::of(&FetchRequest::default()).unwrap(), Cursor::default());
        for (step_id, step_phase) in [("x", ""), ("1+", ""), ("-1", ""), ("1", "tables")] {
            let request =
                FetchRequest { step_id: step_id.to_owned(), step_phase: step_phase.to_owned(), job: None };
            assert!(Cursor::of(&request).is_err(), "{request:?}");
        }
    }
}
