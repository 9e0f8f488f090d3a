//! W3C trace context, version 00: `00-<trace id>-<span id>-<flags>`, in lower-case hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use sha2::{Digest as _, Sha256};

/// Flag of a sampled trace.
const SAMPLED: u8 = 1;
/// Flag of a random trace id, of level 2 of the specification.
const RANDOM: u8 = 2;

/// Ids of a span and its trace, and the trace's flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace id.
    pub trace_id: [u8; 16],
    /// Span id.
    pub span_id: [u8; 8],
    flags: u8,
}

impl TraceContext {
    /// The root span of a new trace.
    #[must_use]
    pub fn random() -> Self {
        Self { trace_id: rand::random(), span_id: rand::random(), flags: SAMPLED }
    }

    /// The root span of the trace with this name. The ids are a hash of the name, so each process gets the same.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let hash: [u8; 32] = Sha256::digest(name).into();
        let trace_id = std::array::from_fn(|at| hash[at]);
        Self { trace_id, span_id: std::array::from_fn(|at| hash[16 + at]), flags: SAMPLED }
    }

    /// The child span with this name. Its id is a hash, so each process gets the same: a span that one process began can be
    /// ended or reported by another.
    #[must_use]
    pub fn child(self, name: &str) -> Self {
        let hash = Sha256::new().chain_update(self.trace_id).chain_update(self.span_id).chain_update(name);
        let hash: [u8; 32] = hash.finalize().into();
        Self { span_id: std::array::from_fn(|at| hash[at]), ..self }
    }

    /// Trace id in hexadecimal digits, as backends show it.
    #[must_use]
    pub fn trace_id_hex(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace_id))
    }

    /// Span id in hexadecimal digits, as backends show it.
    #[must_use]
    pub fn span_id_hex(self) -> String {
        format!("{:016x}", u64::from_be_bytes(self.span_id))
    }

    /// Whether the trace is sampled.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same span, with the sampled flag set or cleared.
    #[must_use]
    pub fn sampled(self, is_sampled: bool) -> Self {
        Self { flags: if is_sampled { self.flags | SAMPLED } else { self.flags & !SAMPLED }, ..self }
    }
}

/// Converts to the SDK's type, as the context of a span of another process.
impl From<TraceContext> for SpanContext {
    fn from(it: TraceContext) -> Self {
        let (trace, span) = (TraceId::from_bytes(it.trace_id), SpanId::from_bytes(it.span_id));
        Self::new(trace, span, TraceFlags::new(it.flags), true, TraceState::NONE)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id_hex(), self.span_id_hex(), self.flags)
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
        // Ids are not 0, and 255 is not a version. Later versions begin with the same fields.
        if version == 255 || trace == 0 || span == 0 || (version == 0 && fields.next().is_some()) {
            return Err(());
        }
        let span = u64::try_from(span).map_err(|_| ())?;
        let flags = u8::try_from(flags).map_err(|_| ())?;
        // Other flags are reserved, and must not be passed on.
        let flags = flags & (SAMPLED | RANDOM);
        Ok(Self { trace_id: trace.to_be_bytes(), span_id: span.to_be_bytes(), flags })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn traceparent_is_parsed_and_formatted() {
        assert_eq!(TEXT.parse::<TraceContext>().unwrap().to_string(), TEXT);
        assert!(format!("cc{}-more", &TEXT[2..]).parse::<TraceContext>().is_ok(), "a later version");
    }

    #[test]
    fn reserved_flags_are_cleared() {
        let context: TraceContext = format!("{}ff", &TEXT[..TEXT.len() - 2]).parse().unwrap();
        assert_eq!(context.to_string(), format!("{}03", &TEXT[..TEXT.len() - 2]));
    }

    #[test]
    fn malformed_traceparent_is_rejected() {
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
