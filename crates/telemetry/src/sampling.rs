//! Sampling of traces, configured by `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`.

use anyhow::Context as _;
use opentelemetry::Context;
use opentelemetry::trace::{SpanKind, TraceContextExt as _, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample as _};

use crate::TraceContext;
use crate::variables::{Variables, choice};

const NAMES: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// Sampler: decides which traces are kept.
#[derive(Debug, Clone)]
pub struct Sampling(Sampler);

/// The specification's default: the decision of the parent, and always without a parent.
impl Default for Sampling {
    fn default() -> Self {
        Self(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
    }
}

impl Sampling {
    pub(crate) fn of(variables: &Variables<'_>) -> anyhow::Result<Self> {
        let ratio = ratio(variables)?;
        let Some(it) = variables.get("OTEL_TRACES_SAMPLER") else { return Ok(Self::default()) };
        let name = choice(&it, NAMES)?;
        let root = match name.trim_start_matches("parentbased_") {
            "always_on" => Sampler::AlwaysOn,
            "always_off" => Sampler::AlwaysOff,
            _ => Sampler::TraceIdRatioBased(ratio),
        };
        let is_based = name.starts_with("parentbased_");
        Ok(Self(if is_based { Sampler::ParentBased(Box::new(root)) } else { root }))
    }

    /// Whether the trace of this span is kept. `parent` is a span of another process.
    #[must_use]
    pub fn keeps(&self, span: TraceContext, parent: Option<TraceContext>) -> bool {
        let parent = parent.map(|it| Context::new().with_remote_span_context(it.into()));
        let trace = TraceId::from_bytes(span.trace_id);
        let result = self.0.should_sample(parent.as_ref(), trace, "", &SpanKind::Internal, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    /// The SDK's sampler.
    #[cfg(feature = "live")]
    pub(crate) fn sampler(&self) -> Sampler {
        self.0.clone()
    }
}

/// Fraction of traces to keep; 1 by default.
fn ratio(variables: &Variables<'_>) -> anyhow::Result<f64> {
    let Some(it) = variables.get("OTEL_TRACES_SAMPLER_ARG") else { return Ok(1.0) };
    let ratio = it.value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.with_context(|| it.error("it is not a number from 0 to 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(name: &str, argument: &str) -> anyhow::Result<Sampling> {
        Sampling::of(&Variables(&|variable: &str| {
            Some(if variable.ends_with("_ARG") { argument } else { name }.to_owned())
        }))
    }

    #[test]
    fn parent_decides_only_for_a_parentbased_sampler() {
        let span = TraceContext::named("job");
        let kept = Some(span.child("client"));
        let dropped = kept.map(|it| it.sampled(false));
        // Sampler; without a parent, with a sampled one, with one that is not.
        for (name, expected) in [
            ("", [true, true, false]),
            ("always_on", [true, true, true]),
            ("always_off", [false, false, false]),
            ("parentbased_always_on", [true, true, false]),
            ("PARENTBASED_ALWAYS_OFF", [false, true, false]),
        ] {
            let sampling = sampling(name, "").unwrap();
            assert_eq!([None, kept, dropped].map(|it| sampling.keeps(span, it)), expected, "{name:?}");
        }
    }

    #[test]
    fn ratio_is_the_fraction_of_kept_traces() {
        let sampling = sampling("traceidratio", "0.25").unwrap();
        let kept = |number: u32| sampling.keeps(TraceContext::named(&number.to_string()), None);
        let share = (0..4000).filter(|it| kept(*it)).count();
        assert!((900..1100).contains(&share), "{share}");
    }

    #[test]
    fn error_names_the_malformed_variable() {
        for (name, argument, named) in [
            ("jaeger_remote", "", "OTEL_TRACES_SAMPLER=\"jaeger_remote\""),
            ("traceidratio", "1.5", "OTEL_TRACES_SAMPLER_ARG=\"1.5\""),
            ("traceidratio", "NaN", "OTEL_TRACES_SAMPLER_ARG"),
        ] {
            let error = sampling(name, argument).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
