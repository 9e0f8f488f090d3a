//! Limits of a span, configured by `OTEL_SPAN_*_LIMIT` and related variables. The SDK applies limits only to spans that it
//! creates itself, and most spans are created by [`span()`](crate::span()).

use opentelemetry::{Array, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::SpanData;

use crate::variables::Variables;

/// Limits of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanLimits {
    /// Maximum number of attributes of a span.
    pub attributes: usize,
    /// Maximum number of characters of a string in an attribute; `None`: no limit.
    pub value_length: Option<usize>,
    /// Maximum number of events of a span.
    pub events: usize,
    /// Maximum number of attributes of an event.
    pub event_attributes: usize,
    /// Maximum number of links of a span.
    pub links: usize,
    /// Maximum number of attributes of a link.
    pub link_attributes: usize,
}

/// The specification's defaults, except 1,024 events instead of 128: training has an event for each round.
impl Default for SpanLimits {
    fn default() -> Self {
        Self {
            attributes: 128,
            value_length: None,
            events: 1024,
            event_attributes: 128,
            links: 128,
            link_attributes: 128,
        }
    }
}

impl SpanLimits {
    pub(crate) fn of(variables: &Variables<'_>) -> anyhow::Result<Self> {
        let default = Self::default();
        let all = variables.number("OTEL_ATTRIBUTE_COUNT_LIMIT")?;
        let all_lengths = variables.number("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT")?;
        let count = |name: &str, default| anyhow::Ok(variables.number(name)?.or(all).unwrap_or(default));
        Ok(Self {
            attributes: count("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", default.attributes)?,
            value_length: variables.number("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT")?.or(all_lengths),
            events: variables.number("OTEL_SPAN_EVENT_COUNT_LIMIT")?.unwrap_or(default.events),
            event_attributes: count("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", default.event_attributes)?,
            links: variables.number("OTEL_SPAN_LINK_COUNT_LIMIT")?.unwrap_or(default.links),
            link_attributes: count("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", default.link_attributes)?,
        })
    }

    /// Cuts the span to these limits, and adds the numbers of dropped items to it.
    #[must_use]
    pub fn apply(&self, mut span: SpanData) -> SpanData {
        let dropped = self.cut(&mut span.attributes, self.attributes);
        span.dropped_attributes_count = span.dropped_attributes_count.saturating_add(dropped);
        let dropped = truncate(&mut span.events.events, self.events);
        span.events.dropped_count = span.events.dropped_count.saturating_add(dropped);
        for event in &mut span.events.events {
            let dropped = self.cut(&mut event.attributes, self.event_attributes);
            event.dropped_attributes_count = event.dropped_attributes_count.saturating_add(dropped);
        }
        let dropped = truncate(&mut span.links.links, self.links);
        span.links.dropped_count = span.links.dropped_count.saturating_add(dropped);
        for link in &mut span.links.links {
            let dropped = self.cut(&mut link.attributes, self.link_attributes);
            link.dropped_attributes_count = link.dropped_attributes_count.saturating_add(dropped);
        }
        span
    }

    fn cut(&self, attributes: &mut Vec<KeyValue>, count: usize) -> u32 {
        let dropped = truncate(attributes, count);
        if let Some(length) = self.value_length {
            attributes.iter_mut().for_each(|it| shorten(&mut it.value, length));
        }
        dropped
    }
}

/// Returns the number of dropped items.
fn truncate<T>(items: &mut Vec<T>, count: usize) -> u32 {
    let dropped = items.len().saturating_sub(count);
    items.truncate(count);
    u32::try_from(dropped).unwrap_or(u32::MAX)
}

/// Truncates a string, or each string of an array. The specification counts characters.
fn shorten(value: &mut Value, length: usize) {
    let shorten_text = |text: &mut StringValue| {
        if let Some((end, _)) = text.as_str().char_indices().nth(length) {
            *text = StringValue::from(text.as_str()[..end].to_owned());
        }
    };
    match value {
        Value::String(text) => shorten_text(text),
        Value::Array(Array::String(texts)) => texts.iter_mut().for_each(shorten_text),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use opentelemetry::trace::{Event, Link};

    use super::*;
    use crate::{SpanDataExt as _, TraceContext, span};

    #[test]
    fn span_is_cut_to_its_limits_and_counts_what_was_dropped() {
        let get = |name: &str| {
            let value = match name {
                "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT" => "2",
                "OTEL_ATTRIBUTE_COUNT_LIMIT" => "1",
                "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT" => "3",
                "OTEL_SPAN_EVENT_COUNT_LIMIT" => "1",
                "OTEL_SPAN_LINK_COUNT_LIMIT" => "0",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let limits = SpanLimits::of(&Variables(&get)).unwrap();
        let context = TraceContext::named("trace");
        let mut whole = span("work", context, None, (1, 2)).with("a", "éééé").with("b", "bbb").with("c", 1);
        let attributes = vec![KeyValue::new("x", "long text"), KeyValue::new("y", 1)];
        whole.events.events = vec![Event::new("one", SystemTime::UNIX_EPOCH, attributes, 0); 3];
        whole.links.links = vec![Link::with_context(context.into())];
        let cut = limits.apply(whole);
        assert_eq!(cut.attributes, [KeyValue::new("a", "ééé"), KeyValue::new("b", "bbb")]);
        assert_eq!(
            (cut.dropped_attributes_count, cut.events.dropped_count, cut.links.dropped_count),
            (1, 2, 1)
        );
        let mut texts = Value::Array(Array::String(vec!["éééé".into(), "b".into()]));
        shorten(&mut texts, 3);
        assert_eq!(texts, Value::Array(Array::String(vec!["ééé".into(), "b".into()])));
        let event = &cut.events.events[0];
        assert_eq!(event.attributes, [KeyValue::new("x", "lon")]);
        assert_eq!(event.dropped_attributes_count, 1);
    }
}
