//! Traces by OpenTelemetry. [`TraceContext`] identifies a span and its trace. Its ids are derived from names, so that
//! server, agent and submitter use the same ids without communication. [`span()`] creates a finished span, and [`Exporter`]
//! sends spans to a collector. The `OTEL_*` variables configure it, see [`Settings`].
//!
//! With the feature `live`, for a long-running program: a queue of spans and live spans ([`live`]), log lines ([`logs`]) and
//! metrics ([`metrics`]).

#[cfg(feature = "live")]
mod backlog;
mod batch;
mod batching;
mod collector;
mod context;
#[cfg_attr(not(feature = "otlp"), path = "no_exporter.rs")]
mod exporter;
mod limits;
#[cfg(feature = "live")]
pub mod live;
#[cfg(feature = "live")]
pub mod logs;
#[cfg(feature = "live")]
mod loss_log;
#[cfg(feature = "live")]
pub mod metrics;
mod propagation;
mod remote_context;
#[cfg(feature = "otlp")]
mod resource;
mod sampling;
mod settings;
mod span;
mod variables;

pub use batch::{Batch, ExportError};
pub use batching::Batching;
pub use collector::{Collector, Protocol, Signal, TlsFiles};
pub use context::TraceContext;
pub use exporter::Exporter;
pub use limits::SpanLimits;
pub use propagation::Propagation;
pub use remote_context::RemoteContext;
pub use sampling::Sampling;
pub use settings::{Identity, Settings, unsupported};
#[cfg(feature = "live")]
pub use settings::{LogSettings, MetricSettings};
pub use span::{SpanDataExt, event, span};

pub use opentelemetry::trace::{Event, SpanKind, Status};
pub use opentelemetry::{KeyValue, Value};
pub use opentelemetry_sdk::trace::SpanData;
