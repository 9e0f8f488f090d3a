//! How far a long statement is, in one line.

use std::fmt;
use std::time::{Duration, Instant};

use sqlflow_proto::v1::{Metric, Progress};

use sqlflow_server::text::escape::escaped;

/// The newest progress of a statement, with the newest metrics beside it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ProgressView {
    pub(crate) phase: String,
    pub(crate) done: u64,
    /// 0: not known.
    pub(crate) total: u64,
    pub(crate) unit: String,
    pub(crate) metrics: String,
}

impl ProgressView {
    /// Takes newer progress; metrics stay, unless another phase begins.
    pub(crate) fn advance(&mut self, progress: &Progress) {
        if self.phase != escaped(&progress.phase) {
            self.metrics.clear();
        }
        self.phase = escaped(&progress.phase);
        self.unit = escaped(&progress.unit);
        self.done = progress.done;
        self.total = progress.total;
    }
}

impl fmt::Display for ProgressView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.phase, self.done)?;
        if self.total > 0 {
            write!(f, "/{}", self.total)?;
        }
        write!(f, " {}", self.unit)?;
        if !self.metrics.is_empty() {
            write!(f, "  {}", self.metrics)?;
        }
        Ok(())
    }
}

/// Metrics in one line: `train-mlogloss 0.1234  eval-mlogloss 0.2`.
pub(crate) fn metrics_line(metrics: &[Metric]) -> String {
    let each: Vec<String> =
        metrics.iter().map(|metric| format!("{} {}", escaped(&metric.name), short(metric.value))).collect();
    each.join("  ")
}

/// A measurement in few digits; JSON output has them all.
fn short(value: f64) -> String {
    if value != 0.0 && !(1e-4..1e9).contains(&value.abs()) {
        return format!("{value:.4e}");
    }
    let text = format!("{value:.5}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Time between two lines of progress where there is no bar.
const INTERVAL: Duration = Duration::from_secs(5);

/// Progress as plain lines, for where a bar can't be drawn: the first, then one in a while, then the last.
#[derive(Debug, Default)]
pub(crate) struct PlainProgress {
    printed: Option<Instant>,
    waiting: Option<String>,
}

impl PlainProgress {
    /// Takes progress made at `now`; gives the line to print, if it is time for one.
    pub(crate) fn advance(&mut self, view: &ProgressView, now: Instant) -> Option<String> {
        if self.printed.is_some_and(|printed| now.duration_since(printed) < INTERVAL) {
            self.waiting = Some(view.to_string());
            return None;
        }
        self.printed = Some(now);
        self.waiting = None;
        Some(view.to_string())
    }

    /// Ends the statement; gives its last line, unless that was printed.
    pub(crate) fn finish(&mut self) -> Option<String> {
        self.printed = None;
        self.waiting.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(done: u64) -> ProgressView {
        ProgressView {
            phase: "train".into(),
            done,
            total: 9,
            unit: "rounds".into(),
            metrics: "loss 0.5".into(),
        }
    }

    #[test]
    fn plain_lines_are_few_and_the_last_is_among_them() {
        let mut plain = PlainProgress::default();
        let start = Instant::now();
        assert_eq!(plain.advance(&view(1), start).as_deref(), Some("train 1/9 rounds  loss 0.5"));
        assert_eq!(plain.advance(&view(2), start), None);
        assert!(plain.advance(&view(3), start + INTERVAL).is_some());
        assert_eq!(plain.advance(&view(9), start + INTERVAL), None);
        assert_eq!(plain.finish().as_deref(), Some("train 9/9 rounds  loss 0.5"));
        assert_eq!(plain.finish(), None);
    }

    #[test]
    fn measurements_are_short() {
        assert_eq!(short(0.0), "0");
        assert_eq!(short(0.123_456_789), "0.12346");
        assert_eq!(short(97.0), "97");
        assert_eq!(short(1.5e-7), "1.5000e-7");
        assert_eq!(short(f64::NAN), "NaN");
    }
}
