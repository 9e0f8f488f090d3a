//! A result set in the requested format, or in the one that fits the terminal.

use std::io;

use clap::ValueEnum;
use sqlflow_text::cell::Batch;

use super::csv::Csv;
use super::expanded::Expanded;
use super::table::{Table, Write};

/// When rows are shown as records, one line for each value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Expand {
    /// If the table is wider than the terminal and has more than two columns.
    #[default]
    Auto,
    /// For every table.
    Always,
    /// For none.
    Never,
}

/// Style of result sets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Style {
    pub(crate) csv: bool,
    pub(crate) expand: Expand,
    /// Width of the terminal; `None` without a terminal.
    pub(crate) width: Option<usize>,
}

/// A result set that is being written.
#[derive(Debug)]
pub(crate) enum ResultSet {
    /// The first batch decides the format.
    Open {
        names: Vec<String>,
        style: Style,
    },
    Table(Table),
    Expanded(Expanded),
    Csv(Csv),
}

impl ResultSet {
    /// With these column names; `None` if reading began within the result set.
    pub(crate) fn new(names: Option<&[String]>, style: Style) -> Self {
        match (names, style) {
            (names, Style { csv: true, .. }) => Self::Csv(Csv::new(names)),
            (Some(names), style) => Self::Open { names: names.to_vec(), style },
            (None, _) => Self::Table(Table::without_head()),
        }
    }

    /// Rows written so far.
    pub(crate) fn row_count(&self) -> u64 {
        match self {
            Self::Open { .. } => 0,
            Self::Table(table) => table.row_count(),
            Self::Expanded(records) => records.row_count(),
            Self::Csv(csv) => csv.row_count(),
        }
    }

    /// Writes a batch.
    pub(crate) fn write_rows(&mut self, batch: &Batch<'_>, out: &mut Write<'_>) -> io::Result<()> {
        if let Self::Open { names, style } = self {
            let table = match (style.expand, style.width) {
                (Expand::Always, _) => None,
                (Expand::Auto, Some(columns)) => Table::fitting(names, batch, columns),
                (Expand::Auto, None) | (Expand::Never, _) => Some(Table::new(names)),
            };
            *self = table.map_or_else(|| Self::Expanded(Expanded::new(names)), Self::Table);
        }
        match self {
            Self::Open { .. } => Ok(()),
            Self::Table(table) => table.write_rows(batch, out),
            Self::Expanded(records) => records.write_rows(batch, out),
            Self::Csv(csv) => csv.write_rows(batch, out),
        }
    }

    /// Ends the result set. Without rows it still has its head.
    pub(crate) fn finish(&mut self, out: &mut Write<'_>) -> io::Result<()> {
        match self {
            Self::Open { names, .. } => Table::new(names).finish(out),
            Self::Table(table) => table.finish(out),
            Self::Expanded(_) => Ok(()),
            Self::Csv(csv) => csv.finish(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::v1::{Column, Int64s, Rows, Strings, column::Values};

    use super::*;

    fn texts(values: &[&str]) -> Column {
        Column { values: Some(Values::Strings(Strings::from_iter(values))), ..Column::default() }
    }

    fn shown(style: Style) -> String {
        let ints =
            Column { values: Some(Values::Int64s(Int64s { values: vec![1, 22] })), ..Column::default() };
        show(&["id", "long name"], vec![ints, texts(&["xxxxxxxxxxxxxxxxxxxx", "a\nb"])], style)
    }

    fn show(names: &[&str], columns: Vec<Column>, style: Style) -> String {
        let rows = Rows { count: 2, columns };
        let names: Vec<String> = names.iter().map(|&it| it.to_owned()).collect();
        let mut set = ResultSet::new(Some(&names), style);
        let mut written = Vec::new();
        let mut out = |piece: &[u8]| {
            written.extend_from_slice(piece);
            Ok(())
        };
        set.write_rows(&Batch::new(&rows).unwrap(), &mut out).unwrap();
        set.finish(&mut out).unwrap();
        assert_eq!(set.row_count(), 2);
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn table_wider_than_the_terminal_becomes_records() {
        let records = "\
-[ record 1 ]-
id        | 1
long name | xxxxxxxxxxxxxxxxxxxx
-[ record 2 ]-
id        | 22
long name | a
          | b
";
        let table = " id | long name
----+----------------------
  1 | xxxxxxxxxxxxxxxxxxxx
 22 | a                   +
    | b
";
        let width = |width| Style { width: Some(width), ..Style::default() };
        assert_eq!(shown(width(26)), records, "one column too narrow");
        assert_eq!(shown(width(27)), table);
        assert_eq!(shown(Style::default()), table, "no terminal");
        assert_eq!(shown(Style { expand: Expand::Always, ..width(80) }), records);
        assert_eq!(shown(Style { expand: Expand::Never, ..width(9) }), table);
    }

    #[test]
    fn two_columns_with_long_values_stay_a_table() {
        let columns = |first| {
            vec![texts(&[first, "label"]), texts(&["SELECT a,\n  b FROM iris TO TRAIN x LABEL c", "class"])]
        };
        let style = Style { width: Some(33), ..Style::default() };
        let names = ["Property", "Value"];
        assert_eq!(
            show(&names, columns("select"), style),
            " Property | Value
----------+----------------------
 select   | SELECT a,           +
          |   b FROM iris TO
          | TRAIN x LABEL c
 label    | class
"
        );
        for line in show(&names, columns("select"), style).lines() {
            assert!(line.len() <= 33, "{line}");
        }
        let narrower = show(&names, columns("a longer one"), style);
        assert!(narrower.starts_with("-[ record 1 ]-\nProperty | a longer one\n"), "{narrower}");
        let three = [columns("select"), vec![texts(&["x", "y"])]].concat();
        assert!(show(&["a", "b", "c"], three, style).starts_with("-[ record 1 ]-\n"));
    }
}
