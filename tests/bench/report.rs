//! All measurements, as a table for people and as JSON for programs.
#![expect(clippy::print_stdout, reason = "the table is what the program is run for")]

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::measure::Measurement;

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
        let compared = self.peer(it).map(|(peer, ratio)| json!({ "name": peer.name, "ratio": ratio }));
        json!({
            "name": it.name,
            "what": it.what.trim(),
            "unit": it.unit,
            "samples": it.count(),
            "median": it.median(),
            "p95": it.percentile(95),
            "p99": it.percentile(99),
            "peer": compared,
        })
    }

    /// The measurement that it is compared with, and the ratio.
    fn peer(&self, it: &Measurement) -> Option<(&Measurement, f64)> {
        let peer = self.measurements.iter().find(|peer| Some(peer.name) == it.peer)?;
        Some((peer, it.median() / peer.median()))
    }

    fn table(&self) -> String {
        let width = self.measurements.iter().map(|it| it.what.chars().count()).max().unwrap_or(0);
        let head = format!(
            "{:width$} {:>11} {:>11} {:>11} {:>7}  {:8} ratio",
            "", "median", "p95", "p99", "samples", "unit"
        );
        let lines = self.measurements.iter().map(|it| self.line(it, width));
        std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
    }

    fn line(&self, it: &Measurement, width: usize) -> String {
        let [median, p95, p99] = [it.median(), it.percentile(95), it.percentile(99)].map(figure);
        let line =
            format!("{:width$} {median:>11} {p95:>11} {p99:>11} {:>7}  {:8}", it.what, it.count(), it.unit);
        match self.peer(it) {
            Some((peer, ratio)) => format!("{line} {ratio:.2} × {}", peer.what.trim()),
            None => line.trim_end().to_owned(),
        }
    }
}

/// Formats a number with its significant digits.
fn figure(value: f64) -> String {
    match value {
        value if value >= 1000.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}
