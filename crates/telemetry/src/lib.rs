//! Traces by OpenTelemetry. [`TraceContext`] identifies a span and its trace. Its ids are derived from names, so that
//! the server, agent and submitter of an attempt agree on them without a message. [`span()`] makes a finished span, and
//! [`Exporter`] sends spans to a collector, as the [`Settings`] of the `OTEL_*` variables say.

mod batching;
mod context;
#[cfg_attr(not(feature = "otlp"), path = "no_exporter.rs")]
mod exporter;
mod limits;
#[cfg(feature = "live")]
pub mod live;
#[cfg(feature = "live")]
mod losses;
mod origin;
mod propagation;
pub mod resource;
mod sampling;
mod settings;
mod span;
mod variables;

pub use batching::Batching;
pub use context::TraceContext;
pub use exporter::{Batch, Exporter, Lost};
pub use limits::SpanLimits;
pub use origin::Origin;
pub use propagation::Propagation;
pub use sampling::Sampling;
pub use settings::{Protocol, Settings, TlsFiles, unsupported};
pub use span::{Describe, event, span};

pub use opentelemetry::trace::{Event, SpanKind, Status};
pub use opentelemetry::{KeyValue, Value};
pub use opentelemetry_sdk::trace::SpanData;
