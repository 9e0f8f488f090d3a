//! Traces by OpenTelemetry. [`TraceContext`] identifies a span and its trace. Its ids are derived from names, so that
//! server, agent and submitter use the same ids without communication. [`span()`] creates a finished span, and [`Exporter`]
//! sends spans to a collector. The `OTEL_*` variables configure it, see [`Settings`].

mod batch;
mod batching;
mod context;
#[cfg_attr(not(feature = "otlp"), path = "no_exporter.rs")]
mod exporter;
mod limits;
#[cfg(feature = "live")]
pub mod live;
#[cfg(feature = "live")]
mod loss_log;
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
pub use context::TraceContext;
pub use exporter::Exporter;
pub use limits::SpanLimits;
pub use propagation::Propagation;
pub use remote_context::RemoteContext;
pub use sampling::Sampling;
pub use settings::{Protocol, Settings, TlsFiles, unsupported};
pub use span::{SpanDataExt, event, span};

pub use opentelemetry::trace::{Event, SpanKind, Status};
pub use opentelemetry::{KeyValue, Value};
pub use opentelemetry_sdk::trace::SpanData;
