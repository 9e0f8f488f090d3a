//! W3C trace context, version 00: `00-<trace id>-<span id>-<flags>`, in lower-case hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use sha2::{Digest as _, Sha256};

/// A span, and the trace that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span in it.
    pub span_id: [u8; 8],
    flags: u8,
}

impl TraceContext {
    /// A new trace.
    #[must_use]
    pub fn random() -> Self {
        Self { trace_id: rand::random(), span_id: rand::random(), flags: 1 }
    }

    /// The trace of what has this name, the same for everyone who asks.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let hash: [u8; 32] = Sha256::digest(name).into();
        let trace_id = std::array::from_fn(|at| hash[at]);
        Self { trace_id, span_id: std::array::from_fn(|at| hash[16 + at]), flags: 1 }
    }

    /// The part of this span that has this name, the same for everyone who asks: whoever comes later can end, or tell
    /// again, what another began.
    #[must_use]
    pub fn child(self, name: &str) -> Self {
        let hash = Sha256::new().chain_update(self.trace_id).chain_update(self.span_id).chain_update(name);
        let hash: [u8; 32] = hash.finalize().into();
        Self { span_id: std::array::from_fn(|at| hash[at]), ..self }
    }

    /// The trace, as backends write it.
    #[must_use]
    pub fn trace_name(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace_id))
    }

    /// The span, as backends write it.
    #[must_use]
    pub fn span_name(self) -> String {
        format!("{:016x}", u64::from_be_bytes(self.span_id))
    }

    /// Whether the trace is kept.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.flags & 1 == 1
    }

    /// The same span of a trace that is kept, or is not.
    #[must_use]
    pub fn sampled(self, is_kept: bool) -> Self {
        Self { flags: if is_kept { self.flags | 1 } else { self.flags & !1 }, ..self }
    }
}

/// As the SDK has the context of another process's span.
impl From<TraceContext> for SpanContext {
    fn from(it: TraceContext) -> Self {
        let (trace, span) = (TraceId::from_bytes(it.trace_id), SpanId::from_bytes(it.span_id));
        Self::new(trace, span, TraceFlags::new(it.flags), true, TraceState::NONE)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_name(), self.span_name(), self.flags)
    }
}

impl FromStr for TraceContext {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut fields = text.trim().split('-');
        let mut field = |digits: usize| {
            let field = fields.next().filter(|it| it.len() == digits).ok_or(())?;
            let is_hex = field.bytes().all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(&it));
            if is_hex { u128::from_str_radix(field, 16).map_err(|_| ()) } else { Err(()) }
        };
        let (version, trace, span, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        // Zero is no id, and 255 no version; of later versions the first fields are the same.
        if version == 255 || trace == 0 || span == 0 || (version == 0 && fields.next().is_some()) {
            return Err(());
        }
        let span = u64::try_from(span).map_err(|_| ())?;
        let flags = u8::try_from(flags).map_err(|_| ())?;
        Ok(Self { trace_id: trace.to_be_bytes(), span_id: span.to_be_bytes(), flags })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn it_is_read_and_written() {
        assert_eq!(TEXT.parse::<TraceContext>().unwrap().to_string(), TEXT);
        assert!(format!("cc{}-more", &TEXT[2..]).parse::<TraceContext>().is_ok(), "a later version");
    }

    #[test]
    fn what_is_none_is_ignored() {
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(bad.parse::<TraceContext>().is_err(), "{bad}");
        }
    }
}
