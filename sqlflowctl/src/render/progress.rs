//! Progress of a statement in one line.

use std::fmt;

use sqlflow_proto::v1::{Metric, Progress};

use sqlflow_text::escape::escaped;

/// The latest progress and metrics of a statement.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ProgressView {
    pub(crate) phase: String,
    pub(crate) done: u64,
    /// 0 if it is unknown.
    pub(crate) total: u64,
    pub(crate) unit: String,
    pub(crate) metrics: String,
}

impl ProgressView {
    /// Updates the progress. A new phase clears the metrics.
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

/// Width of a bar.
const BAR: u64 = 24;

impl ProgressView {
    /// The line for a terminal, with a bar if the total is known.
    pub(crate) fn bar(&self) -> String {
        if self.total == 0 {
            return self.to_string();
        }
        let full =
            (u128::from(self.done.min(self.total)) * u128::from(BAR) / u128::from(self.total)) as usize;
        let rest = BAR as usize - full;
        let Self { phase, done, total, unit, metrics } = self;
        let line =
            format!("{phase} [{}{}] {done}/{total} {unit}  {metrics}", "=".repeat(full), " ".repeat(rest));
        line.trim_end().to_owned()
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

/// A measurement with few digits; JSON output has all of them.
fn short(value: f64) -> String {
    if value != 0.0 && !(1e-4..1e9).contains(&value.abs()) {
        return format!("{value:.4e}");
    }
    let text = format!("{value:.5}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_length_is_the_share_that_is_done() {
        let (phase, unit, metrics) = ("load".to_owned(), "rows".to_owned(), String::new());
        let view = ProgressView { phase, done: 75, total: 150, unit, metrics };
        assert_eq!(view.bar(), "load [============            ] 75/150 rows");
        assert_eq!(ProgressView { total: 0, ..view.clone() }.bar(), "load 75 rows");
        let beyond = ProgressView { done: u64::MAX, total: 1, metrics: "loss 0.5".to_owned(), ..view };
        assert!(beyond.bar().starts_with("load [========================] "), "{}", beyond.bar());
    }

    #[test]
    fn measurements_have_few_digits() {
        assert_eq!(short(0.0), "0");
        assert_eq!(short(0.123_456_789), "0.12346");
        assert_eq!(short(97.0), "97");
        assert_eq!(short(1.5e-7), "1.5000e-7");
        assert_eq!(short(f64::NAN), "NaN");
    }
}
