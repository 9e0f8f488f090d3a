//! OpenTelemetry spans. [`TraceContext`] says which span of which trace; its ids follow from names, so that an attempt's
//! server, its agent and its submitter agree on them without a word. [`Span`] is one of them, [`Exporter`] sends them.
//!
//! `attempt` makes those of an agent. They are sent once, at the end; a collector that is down or slow costs 1.5
//! seconds at most, and never the exit code.

mod attempt;
mod context;
#[cfg_attr(not(feature = "trace"), path = "no_otlp.rs")]
mod otlp;
mod span;

pub(crate) use attempt::{SharedTrace, Trace};
pub use context::TraceContext;
pub use otlp::Exporter;
pub use span::{Event, Kind, Span, Value};
