//! All measurements, as a table for people and as JSON for programs.
#![expect(clippy::print_stdout, reason = "the table is what the program is run for")]

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::measure::{Comparison, Measurement, Relation, Statistic};

/// The measurements and the machine.
pub struct Report {
    machine: Value,
    measurements: Vec<Measurement>,
}

impl Report {
    /// Without measurements yet.
    pub fn new(machine: Value) -> Self {
        Self { machine, measurements: Vec::new() }
    }

    /// Adds measurements.
    pub fn add(&mut self, measurements: Vec<Measurement>) {
        self.measurements.extend(measurements);
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("{}", self.table());
    }

    /// Writes the JSON.
    pub fn write(&self, out: &Path) -> anyhow::Result<()> {
        let measurements: Vec<Value> = self.measurements.iter().map(|it| self.entry(it)).collect();
        let report = json!({ "machine": self.machine, "measurements": measurements });
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))
    }

    fn entry(&self, it: &Measurement) -> Value {
        json!({
            "name": it.name,
            "what": it.what.trim(),
            "unit": it.unit,
            "samples": it.count(),
            "median": it.median(),
            "p95": it.percentile(95),
            "p99": it.percentile(99),
            "comparisons": self.compared(it).map(|it| it.entry()).collect::<Vec<_>>(),
        })
    }

    /// The comparisons of a measurement. Those with a measurement of a group that was not asked for are left out.
    fn compared<'a>(&'a self, it: &'a Measurement) -> impl Iterator<Item = Compared<'a>> {
        it.comparisons.iter().filter_map(move |comparison| {
            let find = |name: &String| self.measurements.iter().find(|peer| peer.name == *name);
            let figure = it.figure(comparison.statistic);
            let (peer, figure) = match &comparison.relation {
                Relation::Alone => (None, figure),
                Relation::RatioTo(name) => find(name).map(|peer| (Some(peer), figure / peer.median()))?,
                Relation::MoreThan(name) => find(name).map(|peer| (Some(peer), figure - peer.median()))?,
            };
            Some(Compared { comparison, peer, unit: it.unit, figure })
        })
    }

    fn table(&self) -> String {
        let width = self.measurements.iter().map(|it| it.what.chars().count()).max().unwrap_or(0);
        let compared = || self.measurements.iter().flat_map(|it| self.compared(it));
        let ratio_width =
            compared().map(|it| it.ratio().chars().count()).max().unwrap_or(0).max("ratio".len());
        let head = format!(
            "{:width$} {:>11} {:>11} {:>11} {:>7}  {:9} {:ratio_width$}  goal",
            "", "median", "p95", "p99", "samples", "unit", "ratio"
        );
        let mut lines = vec![head];
        for it in &self.measurements {
            let mut start = figures(it, width);
            let blank = " ".repeat(start.chars().count());
            for compared in self.compared(it) {
                lines.push(format!("{start} {:ratio_width$}  {}", compared.ratio(), compared.goal()));
                start.clone_from(&blank);
            }
            if start != blank {
                lines.push(start);
            }
        }
        let goals: Vec<bool> = compared().filter_map(|it| it.is_met()).collect();
        if !goals.is_empty() {
            let met = goals.iter().filter(|is_met| **is_met).count();
            lines.push(format!("{met} of {} goals are met{}", goals.len(), self.doubt()));
        }
        lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
    }

    /// Why the goals say little about this run.
    fn doubt(&self) -> &'static str {
        if self.machine["is_quick"] == true || self.machine["is_optimized"] == false {
            "; they hold for a release build at full size, which this is not"
        } else {
            ""
        }
    }
}

/// A comparison with its figure.
struct Compared<'a> {
    comparison: &'a Comparison,
    peer: Option<&'a Measurement>,
    unit: &'static str,
    figure: f64,
}

impl Compared<'_> {
    fn is_met(&self) -> Option<bool> {
        Some(self.comparison.goal?.is_met(self.figure))
    }

    /// Without a peer the figure is in the table already; then only which one it is, unless it is the median.
    fn ratio(&self) -> String {
        let which = match self.comparison.statistic {
            Statistic::Median => "",
            Statistic::P99 => "p99: ",
        };
        let Some(peer) = self.peer else { return which.trim_end_matches(": ").to_owned() };
        let title = peer.what.trim();
        match self.comparison.relation {
            Relation::MoreThan(_) => format!("{which}{:+.1} {} to {title}", self.figure, self.unit),
            Relation::RatioTo(_) | Relation::Alone => format!("{which}{:.2} × {title}", self.figure),
        }
    }

    fn goal(&self) -> String {
        let Some((goal, is_met)) = self.comparison.goal.zip(self.is_met()) else { return String::new() };
        let unit = match self.comparison.relation {
            Relation::RatioTo(_) => String::new(),
            Relation::Alone | Relation::MoreThan(_) => format!(" {}", self.unit),
        };
        format!("{goal}{unit}: {}", if is_met { "met" } else { "missed" })
    }

    fn entry(&self) -> Value {
        json!({
            "peer": self.peer.map(|peer| &peer.name),
            "relation": match self.comparison.relation {
                Relation::Alone => "alone",
                Relation::RatioTo(_) => "ratio",
                Relation::MoreThan(_) => "difference",
            },
            "statistic": match self.comparison.statistic {
                Statistic::Median => "median",
                Statistic::P99 => "p99",
            },
            "figure": self.figure,
            "goal": self.comparison.goal.map(|goal| goal.to_string()),
            "is_met": self.is_met(),
        })
    }
}

/// The columns of a line before the comparison.
fn figures(it: &Measurement, width: usize) -> String {
    let [median, p95, p99] = [it.median(), it.percentile(95), it.percentile(99)].map(figure);
    format!("{:width$} {median:>11} {p95:>11} {p99:>11} {:>7}  {:9}", it.what, it.count(), it.unit)
}

/// Formats a number with its significant digits.
fn figure(value: f64) -> String {
    match value {
        value if value >= 1000.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Goal;

    fn of(name: &str, samples: &[f64]) -> Measurement {
        let mut measurement = Measurement::time(name, format!("  the {name}"));
        samples.iter().for_each(|sample| measurement.add(*sample));
        measurement
    }

    #[test]
    fn table_has_a_line_for_each_comparison_and_counts_the_goals() {
        let mut report = Report::new(json!({ "is_quick": false, "is_optimized": true }));
        let ours = of("fast", &[1.0, 2.0, 4.0])
            .goal_beside(Goal::AtMost(0.75), "slow")
            .beside("absent")
            .compared(Statistic::P99, Relation::RatioTo("slow".to_owned()), None)
            .compared(Statistic::Median, Relation::MoreThan("slow".to_owned()), Some(Goal::AtMost(1.0)))
            .goal(Goal::AtMost(1.5));
        report.add(vec![ours, of("slow", &[4.0])]);
        let table = report.table();
        let lines: Vec<&str> = table.lines().map(str::trim).collect();
        assert!(lines[1].ends_with("ms        0.50 × the slow       ≤ 0.75: met"), "{table}");
        assert_eq!(lines[2], "p99: 1.00 × the slow", "{table}");
        assert_eq!(lines[3], "-2.0 ms to the slow   ≤ 1 ms: met", "{table}");
        assert_eq!(lines[4], "≤ 1.5 ms: missed", "{table}");
        assert!(lines[5].starts_with("the slow"), "{table}");
        assert_eq!(lines[6..], ["2 of 3 goals are met"], "{table}");
        assert_eq!(report.entry(&report.measurements[0])["comparisons"][0]["is_met"], true);
        report.machine["is_quick"] = true.into();
        assert!(report.table().ends_with("which this is not"));
    }
}
