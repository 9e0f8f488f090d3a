//! A position between the responses of Fetch. It is in the request, so every server can answer, and a repeated request is
//! answered from the same place.

use sqlflow_proto::published::{FetchRequest, Job};
use tonic::Status;

/// A position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cursor {
    /// Position of the last record that was returned whole.
    pub(super) after: u64,
    /// The record of which a part was returned too.
    pub(super) part: Option<Part>,
    /// The result set that is open.
    pub(super) set: Set,
}

/// A part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// Position of the record: it may be gone, and then nothing of another one may be left out.
    pub(super) record: u64,
    /// How much was returned: rows of a batch, or bytes of output.
    pub(super) count: u64,
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
        let mut numbers = step_id.splitn(3, '.').map(str::parse::<u64>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(after)), None, None) => Ok(Self { after, part: None, set }),
            (Some(Ok(after)), Some(Ok(record)), Some(Ok(count))) => {
                Ok(Self { after, part: Some(Part { record, count }), set })
            }
            _ => Err(wrong()),
        }
    }

    /// The request for what follows.
    pub(super) fn request(self, job: Job) -> FetchRequest {
        let Self { after, part, set } = self;
        let step_id = match part {
            None => after.to_string(),
            Some(Part { record, count }) => format!("{after}.{record}.{count}"),
        };
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
        let part = Some(Part { record: u64::MAX, count: 12 });
        for (after, part, set) in
            [(0, None, Set::None), (7, None, Set::Head), (u64::MAX - 1, part, Set::Rows)]
        {
            let cursor = Cursor { after, part, set };
            assert_eq!(Cursor::of(&cursor.request(Job::default())).unwrap(), cursor);
        }
        assert_eq!(Cursor::of(&FetchRequest::default()).unwrap(), Cursor::default());
        for (step_id, step_phase) in
            [("x", ""), ("1.2", ""), ("1.2.", ""), ("1.2.3.4", ""), ("-1", ""), ("1", "tables")]
        {
            let request =
                FetchRequest { step_id: step_id.to_owned(), step_phase: step_phase.to_owned(), job: None };
            assert!(Cursor::of(&request).is_err(), "{request:?}");
        }
    }
}
