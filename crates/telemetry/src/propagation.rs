//! Which context is taken over from others and given on, as `OTEL_PROPAGATORS` sets it.

use anyhow::bail;

use crate::variables::Variables;

/// Headers of context.
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
    /// As the variable says that `get` gives.
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
                    it.wrong(format!("{other:?} is not supported, only tracecontext, baggage and none"))
                ),
            }
        }
        Ok(all)
    }
}
