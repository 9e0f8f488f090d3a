//! OpenTelemetry spans. [`TraceContext`] identifies a span and its trace. Its ids are derived from names, so that the
//! server, agent and submitter of an attempt agree on them without a message. [`Span`] is a finished span, and
//! [`Exporter`] sends spans to a collector.

mod context;
mod origin;
#[cfg_attr(not(feature = "otlp"), path = "no_otlp.rs")]
mod otlp;
mod span;

pub use context::TraceContext;
pub use origin::Origin;
pub use otlp::Exporter;
pub use span::{Event, Kind, Span, Value};
