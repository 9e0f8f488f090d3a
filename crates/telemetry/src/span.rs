//! A span, before it is anyone's message.

use crate::TraceContext;

/// A part of a trace. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// What it is called: a kind of work, never data.
    pub name: String,
    /// Which one it is.
    pub context: TraceContext,
    /// The span that it is a part of.
    pub parent: Option<[u8; 8]>,
    /// It answers a call from elsewhere, or makes one.
    pub kind: Kind,
    /// Its beginning.
    pub begin_micros: i64,
    /// Its end.
    pub end_micros: i64,
    /// More about it.
    pub attributes: Vec<(String, Value)>,
    /// What happened in it.
    pub events: Vec<Event>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// Where a span stands to what is outside of its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// Work of its own.
    #[default]
    Internal,
    /// The answer to a call.
    Server,
    /// A call.
    Client,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Number(f64),
}

/// Something that happened at one moment of a span.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What happened.
    pub name: String,
    /// When.
    pub micros: i64,
    /// More about it.
    pub attributes: Vec<(String, Value)>,
}

impl Span {
    /// A span of nothing but its name, its place and its times.
    pub fn new(
        name: impl Into<String>,
        context: TraceContext,
        parent: Option<TraceContext>,
        (begin_micros, end_micros): (i64, i64),
    ) -> Self {
        Self {
            name: name.into(),
            context,
            parent: parent.map(|it| it.span_id),
            kind: Kind::Internal,
            begin_micros,
            // Clocks may be set back.
            end_micros: end_micros.max(begin_micros),
            attributes: Vec::new(),
            events: Vec::new(),
            error: None,
        }
    }

    /// Adds a text.
    #[must_use]
    pub fn text(mut self, key: &str, value: impl Into<String>) -> Self {
        self.attributes.push((key.to_owned(), Value::Text(value.into())));
        self
    }

    /// Adds a whole number.
    #[must_use]
    pub fn integer(mut self, key: &str, value: i64) -> Self {
        self.attributes.push((key.to_owned(), Value::Integer(value)));
        self
    }
}
