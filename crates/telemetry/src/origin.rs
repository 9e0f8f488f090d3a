//! The trace context of a client, as its headers have it.

use serde::{Deserialize, Serialize};

use crate::TraceContext;

/// Longest `tracestate` that is passed on; the specification asks for 512 at least.
const MAX_STATE_BYTES: usize = 1024;

/// The trace context that a client gave, as W3C writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// `traceparent`.
    pub parent: String,
    /// `tracestate`; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state: String,
}

impl Origin {
    /// What these two headers say; `None`: nothing.
    #[must_use]
    pub fn of_headers(parent: Option<&str>, state: Option<&str>) -> Option<Self> {
        let parent: TraceContext = parent?.parse().ok()?;
        let state = state.filter(|it| it.len() <= MAX_STATE_BYTES).unwrap_or_default();
        Some(Self { parent: parent.to_string(), state: state.to_owned() })
    }
}
