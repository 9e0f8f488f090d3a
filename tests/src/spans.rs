//! A trace, as Jaeger's query API returns it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::services::{Jaeger, get};

/// Timeout for spans, which arrive a moment after their events.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The spans of one trace.
#[derive(Debug)]
pub struct Spans(Vec<Value>, Value);

impl Jaeger {
    /// The trace of this job, once it has spans of these names.
    pub fn trace_of(&self, ip: &str, job: &str, expected: &[&str]) -> Spans {
        let begun = Instant::now();
        let tags = format!("%7B%22sqlflow.job.id%22%3A%22{job}%22%7D");
        loop {
            let found = self.ask(ip, &format!("/api/traces?service=sqlflow-server&lookback=1h&tags={tags}"));
            let traces = found["data"].as_array().cloned().unwrap_or_default();
            assert!(traces.len() < 2, "{} traces of one job", traces.len());
            let trace = traces.into_iter().next().unwrap_or_default();
            let mut spans =
                Spans(trace["spans"].as_array().cloned().unwrap_or_default(), trace["processes"].clone());
            spans.0.sort_by_key(|it| it["startTime"].as_u64());
            if expected.iter().all(|name| spans.0.iter().any(|it| it["operationName"] == *name)) {
                return spans;
            }
            assert!(begun.elapsed() < TIMEOUT, "no {expected:?} in {:?}", spans.names());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn ask(&self, ip: &str, path: &str) -> Value {
        let answer = get((ip, self.query_port), path);
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        serde_json::from_str(body).unwrap_or_default()
    }
}

impl Spans {
    /// Attribute of the process that sent this span.
    pub fn resource(&self, span: &Value, key: &str) -> &Value {
        let process = span["processID"].as_str().expect("each span has a process");
        let mut tags = self.1[process]["tags"].as_array().into_iter().flatten();
        tags.find(|it| it["key"] == key).map_or(&Value::Null, |it| &it["value"])
    }

    /// Their names.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().filter_map(|it| it["operationName"].as_str()).collect()
    }

    /// The one of this name.
    pub fn one(&self, name: &str) -> &Value {
        let mut found = self.0.iter().filter(|it| it["operationName"] == name);
        let one = found.next().unwrap_or_else(|| panic!("no span {name} in {:?}", self.names()));
        assert!(found.next().is_none(), "two spans {name} in {:?}", self.names());
        one
    }

    /// Children of a span, in order.
    pub fn parts_of<'a>(&'a self, whole: &'a Value) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |it| parent(it) == whole["spanID"].as_str())
    }

    /// Asserts that the spans are one tree: one has no parent, and the parents of all others exist.
    pub fn expect_a_tree(&self) {
        let ids: Vec<_> = self.0.iter().filter_map(|it| it["spanID"].as_str()).collect();
        let mut once = ids.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), ids.len(), "a span came twice: {:?}", self.names());
        let (roots, parts): (Vec<_>, Vec<_>) = self.0.iter().partition(|it| parent(it).is_none());
        assert_eq!(roots.len(), 1, "{:?}", self.names());
        for part in parts {
            assert!(parent(part).is_some_and(|it| ids.contains(&it)), "an orphan: {part}");
        }
    }

    /// Asserts that the children of each span of this name cover its time within a fiftieth, or some milliseconds.
    pub fn expect_parts_of(&self, name: &str) {
        self.expect_parts_within(50, name);
    }

    /// The same within this fraction of that time. On a busy machine the gaps between the records of two processes are
    /// longer.
    pub fn expect_parts_within(&self, fraction: u64, name: &str) {
        for whole in
            self.0.iter().filter(|it| it["operationName"].as_str().is_some_and(|it| it.starts_with(name)))
        {
            let parts: u64 = self.parts_of(whole).map(micros).sum();
            let off = parts.abs_diff(micros(whole));
            assert!(
                off <= (micros(whole) / fraction).max(CLOCK_MICROS),
                "{name}: {} µs in all, its parts {parts} µs: {:?}",
                micros(whole),
                self.parts_of(whole).map(|it| (it["operationName"].as_str(), micros(it))).collect::<Vec<_>>()
            );
        }
    }
}

/// A server records whole milliseconds, four times for an attempt, and before its store has synced.
const CLOCK_MICROS: u64 = 15_000;

/// Its length.
pub fn micros(span: &Value) -> u64 {
    span["duration"].as_u64().unwrap_or_default()
}

fn parent(span: &Value) -> Option<&str> {
    span["references"].as_array()?.iter().find(|it| it["refType"] == "CHILD_OF")?["spanID"].as_str()
}
