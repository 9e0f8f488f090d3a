//! Propagated context, as configured by `OTEL_PROPAGATORS`.

use anyhow::bail;

use crate::variables::Variables;

/// Which headers of context are accepted and passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// `traceparent` and `tracestate`.
    pub trace_context: bool,
    /// `baggage`.
    pub baggage: bool,
}

impl Default for Propagation {
    fn default() -> Self {
        Self { trace_context: true, baggage: true }
    }
}

impl Propagation {
    /// Parses `OTEL_PROPAGATORS`, whose value `get` returns.
    ///
    /// # Errors
    /// A propagator that is not supported.
    pub fn from_variables(get: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let Some(it) = Variables(get).get("OTEL_PROPAGATORS") else { return Ok(Self::default()) };
        let mut all = Self { trace_context: false, baggage: false };
        for name in it.value.split(',').map(str::trim) {
            match name.to_ascii_lowercase().as_str() {
                "tracecontext" => all.trace_context = true,
                "baggage" => all.baggage = true,
                "none" | "" => {}
                other => bail!(
                    it.error(format!("{other:?} is not supported; supported: tracecontext, baggage, none"))
                ),
            }
        }
        Ok(all)
    }
}
