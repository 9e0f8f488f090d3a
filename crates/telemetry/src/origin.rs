//! The context of a client, as its headers have it.

use serde::{Deserialize, Serialize};

use crate::{Propagation, TraceContext};

/// Longest `tracestate` that is passed on; the specification asks for 512 at least.
const MAX_STATE_BYTES: usize = 1024;
/// Longest `baggage` that is passed on; the specification asks for this much at least.
const MAX_BAGGAGE_BYTES: usize = 8192;

/// The context that a client gave, as W3C writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// `traceparent`; empty if there is only baggage.
    pub parent: String,
    /// `tracestate`; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// `baggage`; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub baggage: String,
}

impl Origin {
    /// What the headers say that `header` gives; `None`: nothing that is to be taken over.
    #[must_use]
    pub fn of_headers<'a>(
        propagation: Propagation,
        header: impl Fn(&'static str) -> Option<&'a str>,
    ) -> Option<Self> {
        let bounded = |name, max| header(name).filter(|it: &&str| it.len() <= max).unwrap_or_default();
        let mut origin = Self::default();
        if propagation.trace_context
            && let Some(parent) = header("traceparent").and_then(|it| it.parse::<TraceContext>().ok())
        {
            origin.parent = parent.to_string();
            bounded("tracestate", MAX_STATE_BYTES).clone_into(&mut origin.state);
        }
        if propagation.baggage {
            bounded("baggage", MAX_BAGGAGE_BYTES).clone_into(&mut origin.baggage);
        }
        (origin != Self::default()).then_some(origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn origin(propagation: Propagation, parent: &'static str) -> Option<Origin> {
        Origin::of_headers(propagation, |name| match name {
            "traceparent" => Some(parent),
            "tracestate" => Some("a=b"),
            "baggage" => Some("team=ml"),
            _ => None,
        })
    }

    #[test]
    fn propagators_choose_what_is_taken_over() {
        let all = origin(Propagation::default(), PARENT).unwrap();
        assert_eq!(
            (all.parent.as_str(), all.state.as_str(), all.baggage.as_str()),
            (PARENT, "a=b", "team=ml")
        );
        let none = Propagation { trace_context: false, baggage: false };
        assert_eq!(origin(none, PARENT), None);
        let baggage = origin(Propagation { trace_context: false, ..Propagation::default() }, PARENT).unwrap();
        assert_eq!(baggage, Origin { baggage: "team=ml".to_owned(), ..Origin::default() });
    }

    #[test]
    fn state_without_a_valid_parent_is_ignored() {
        assert_eq!(origin(Propagation { baggage: false, ..Propagation::default() }, "00-0-0-0"), None);
    }
}
