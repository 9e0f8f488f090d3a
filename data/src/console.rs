//! Replaces the agent if a step is run by hand: the data source comes from the environment, and rows are printed.

use std::collections::HashMap;
use std::io::{self, Write as _};

use prost::Message as _;
use sqlflow_proto::agent::submitter_frame::Frame;
use sqlflow_proto::v1::Rows;

/// Prints frames instead of sending them.
#[derive(Debug, Default)]
pub struct Console {}

impl Console {
    pub fn secrets() -> io::Result<HashMap<String, String>> {
        let source = std::env::var("SQLFLOW_DATASOURCE").map_err(|_| {
            io::Error::other(
                "there is no agent, and no data source; set SQLFLOW_DATASOURCE, such as sqlite:////data/iris.db",
            )
        })?;
        Ok(HashMap::from([(crate::runner::DATA_SOURCE.to_owned(), source)]))
    }

    pub fn show(&self, frame: &Frame) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match frame {
            Frame::Head(head) if head.column_names.is_empty() => writeln!(out, "(no columns)"),
            Frame::Head(head) => writeln!(out, "{}", head.column_names.join("\t")),
            Frame::Ended(ended) => match ended.rows_affected {
                Some(rows) => writeln!(out, "{rows} row(s) affected"),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    pub fn show_rows(&self, rows: &[u8]) -> io::Result<()> {
        let rows = Rows::decode(rows).map_err(io::Error::other)?;
        let mut out = io::stdout().lock();
        for row in 0..rows.count as usize {
            let mut line = String::new();
            for (place, column) in rows.columns.iter().enumerate() {
                if place > 0 {
                    line.push('\t');
                }
                sqlflow_text::cell::cell(column, row).push_text(&mut line);
            }
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}
