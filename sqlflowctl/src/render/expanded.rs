//! A result set as records with one line for each value, for tables that are wider than the terminal.

use std::io;

use sqlflow_text::cell::Batch;
use sqlflow_text::escape::{escaped, width};

use super::PIECE;
use super::table::Write;

/// A result set that is being written.
#[derive(Debug)]
pub(crate) struct Expanded {
    names: Vec<String>,
    /// Width of the longest name.
    margin: usize,
    rows: u64,
}

impl Expanded {
    /// Records with these column names.
    pub(crate) fn new(names: &[String]) -> Self {
        let names: Vec<String> = names.iter().map(|name| escaped(name)).collect();
        let margin = names.iter().map(|name| width(name)).max().unwrap_or(0);
        Self { names, margin, rows: 0 }
    }

    /// Rows written so far.
    pub(crate) fn row_count(&self) -> u64 {
        self.rows
    }

    /// Writes a batch.
    pub(crate) fn write_rows(&mut self, batch: &Batch<'_>, out: &mut Write<'_>) -> io::Result<()> {
        let mut text = String::new();
        let mut value = String::new();
        for row in 0..batch.row_count() {
            self.rows += 1;
            text.push_str(&format!("-[ record {} ]-\n", self.rows));
            for (column, cell) in batch.row(row).enumerate() {
                let name = self.names.get(column).map_or("", String::as_str);
                text.push_str(name);
                text.extend(std::iter::repeat_n(' ', self.margin.saturating_sub(width(name))));
                text.push_str(" | ");
                value.clear();
                cell.push_lines(&mut value);
                for (at, line) in value.split('\n').enumerate() {
                    if at > 0 {
                        text.extend(std::iter::repeat_n(' ', self.margin));
                        text.push_str(" | ");
                    }
                    text.push_str(line);
                    text.push('\n');
                }
            }
            if text.len() >= PIECE {
                out(text.as_bytes())?;
                text.clear();
            }
        }
        out(text.as_bytes())
    }
}
