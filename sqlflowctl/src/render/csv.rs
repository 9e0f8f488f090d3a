//! A result set as CSV: RFC 4180 with newlines as line ends, like PostgreSQL's `COPY … CSV` and `psql --csv`. NULL is
//! an empty field, an empty text is `""`. Values are exact.

use std::io;

use sqlflow_text::cell::{Batch, Cell};

use super::PIECE;
use super::table::Write;

/// A result set that is being written.
#[derive(Debug, Default)]
pub(crate) struct Csv {
    /// Names of the columns, until they are written.
    names: Option<Vec<String>>,
    rows: u64,
}

impl Csv {
    /// With these column names in the first line, or without a head.
    pub(crate) fn new(names: Option<&[String]>) -> Self {
        Self { names: names.map(<[String]>::to_vec), rows: 0 }
    }

    /// Rows written so far.
    pub(crate) fn row_count(&self) -> u64 {
        self.rows
    }

    /// Writes a batch, after the names if it is the first.
    pub(crate) fn write_rows(&mut self, batch: &Batch<'_>, out: &mut Write<'_>) -> io::Result<()> {
        let mut text = self.head();
        let mut value = String::new();
        for row in 0..batch.row_count() {
            for (column, cell) in batch.row(row).enumerate() {
                if column > 0 {
                    text.push(',');
                }
                value.clear();
                cell.push_exact(&mut value);
                if cell != Cell::Null {
                    push_field(&mut text, &value);
                }
            }
            text.push('\n');
            if text.len() >= PIECE {
                out(text.as_bytes())?;
                text.clear();
            }
        }
        self.rows += batch.row_count() as u64;
        out(text.as_bytes())
    }

    /// Ends the result set. Without rows it still has its head.
    pub(crate) fn finish(&mut self, out: &mut Write<'_>) -> io::Result<()> {
        out(self.head().as_bytes())
    }

    fn head(&mut self) -> String {
        let mut text = String::new();
        if let Some(names) = self.names.take() {
            for (column, name) in names.iter().enumerate() {
                if column > 0 {
                    text.push(',');
                }
                push_field(&mut text, name);
            }
            text.push('\n');
        }
        text
    }
}

/// Appends a value that is not NULL.
fn push_field(text: &mut String, value: &str) {
    let is_plain = !value.is_empty() && !value.contains([',', '"', '\n', '\r']) && value.trim() == value;
    if is_plain {
        text.push_str(value);
        return;
    }
    text.push('"');
    text.push_str(&value.replace('"', "\"\""));
    text.push('"');
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::v1::{Column, Rows, Strings, Timestamps, column::Values};

    use super::*;

    #[test]
    fn values_are_quoted_and_exact() {
        let texts = ["a", "", "x", "say \"hi\", you", "two\nlines", " blank ", "漢\x1b"];
        let strings = Strings::from_iter(texts);
        let times = Timestamps { values: (0..7).map(|it| it * 1_500_000).collect(), has_zone: false };
        let rows = Rows {
            count: 7,
            columns: vec![
                Column { values: Some(Values::Strings(strings)), nulls: vec![0b100].into() },
                Column { values: Some(Values::Timestamps(times)), ..Column::default() },
            ],
        };
        let mut csv = Csv::new(Some(&["n,1".to_owned(), "t".to_owned()]));
        let mut written = Vec::new();
        csv.write_rows(&Batch::new(&rows).unwrap(), &mut |piece| {
            written.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "\"n,1\",t\n\
             a,1970-01-01 00:00:00\n\
             \"\",1970-01-01 00:00:01.5\n\
             ,1970-01-01 00:00:03\n\
             \"say \"\"hi\"\", you\",1970-01-01 00:00:04.5\n\
             \"two\nlines\",1970-01-01 00:00:06\n\
             \" blank \",1970-01-01 00:00:07.5\n\
             漢\x1b,1970-01-01 00:00:09\n"
        );
        assert_eq!(csv.row_count(), 7);
    }

    #[test]
    fn empty_result_set_has_its_head_once() {
        let mut csv = Csv::new(Some(&["n".to_owned()]));
        let mut written = Vec::new();
        for _ in 0..2 {
            csv.finish(&mut |piece| {
                written.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(written, b"n\n");
    }
}
