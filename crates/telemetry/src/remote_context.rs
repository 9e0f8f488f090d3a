//! Context of a client, from the headers of its request.

use serde::{Deserialize, Serialize};

use crate::{Propagation, TraceContext};

/// Maximum length of a `tracestate` that is passed on. The specification requires at least 512.
const MAX_STATE_BYTES: usize = 1024;
/// Maximum length of a `baggage` that is passed on. The specification requires at least this length.
const MAX_BAGGAGE_BYTES: usize = 8192;

/// Context of a client, in the formats of W3C.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteContext {
    /// `traceparent`; empty if there is only baggage.
    pub parent: String,
    /// `tracestate`; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// `baggage`; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub baggage: String,
}

impl RemoteContext {
    /// Reads the headers that `header` returns. `None` if none of them is accepted.
    #[must_use]
    pub fn from_headers<'a>(
        propagation: Propagation,
        header: impl Fn(&'static str) -> Option<&'a str>,
    ) -> Option<Self> {
        let bounded = |name, max| header(name).filter(|it: &&str| it.len() <= max).unwrap_or_default();
        let mut context = Self::default();
        if propagation.trace_context
            && let Some(parent) = header("traceparent").and_then(|it| it.parse::<TraceContext>().ok())
        {
            context.parent = parent.to_string();
            bounded("tracestate", MAX_STATE_BYTES).clone_into(&mut context.state);
        }
        if propagation.baggage {
            bounded("baggage", MAX_BAGGAGE_BYTES).clone_into(&mut context.baggage);
        }
        (context != Self::default()).then_some(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn context(propagation: Propagation, parent: &'static str) -> Option<RemoteContext> {
        RemoteContext::from_headers(propagation, |name| match name {
            "traceparent" => Some(parent),
            "tracestate" => Some("a=b"),
            "baggage" => Some("team=ml"),
            _ => None,
        })
    }

    #[test]
    fn propagators_select_the_accepted_headers() {
        let all = context(Propagation::default(), PARENT).unwrap();
        assert_eq!(
            (all.parent.as_str(), all.state.as_str(), all.baggage.as_str()),
            (PARENT, "a=b", "team=ml")
        );
        let none = Propagation { trace_context: false, baggage: false };
        assert_eq!(context(none, PARENT), None);
        let baggage =
            context(Propagation { trace_context: false, ..Propagation::default() }, PARENT).unwrap();
        assert_eq!(baggage, RemoteContext { baggage: "team=ml".to_owned(), ..RemoteContext::default() });
    }

    #[test]
    fn state_without_a_valid_parent_is_ignored() {
        assert_eq!(context(Propagation { baggage: false, ..Propagation::default() }, "00-0-0-0"), None);
    }
}
