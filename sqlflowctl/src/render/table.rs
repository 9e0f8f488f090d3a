//! A result set as an aligned table, in bounded memory: the first batch decides the widths.
//!
//! A text of several lines takes several lines, with `+` at the end of each but the last, as in psql. In a table of
//! names and values that is wider than the terminal, values are wrapped without a mark.

use std::io;

use sqlflow_proto::v1::{Column, Rows, Strings, column::Values};
use sqlflow_text::cell::{Batch, Cell};
use sqlflow_text::escape::{broken, escaped, width};

use super::PIECE;
use super::result_set::{Expand, ResultSet, Style};

/// Rows of the first batch that are measured.
const MEASURED_ROWS: usize = 1_000;
/// Maximum width of a column to which values are padded. A longer value makes its own row longer.
const WIDEST_PADDING: usize = 60;

/// Receives the table's text in pieces.
pub(crate) type Write<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// Writes a table of texts with one line per row, or CSV.
pub(crate) fn write_texts(
    names: &[&str],
    texts: impl ExactSizeIterator<Item = Vec<String>>,
    csv: bool,
    out: &mut Write<'_>,
) -> io::Result<()> {
    let count = u32::try_from(texts.len()).unwrap_or(u32::MAX);
    let mut columns = vec![Strings::default(); names.len()];
    for row in texts {
        for (column, text) in columns.iter_mut().zip(row) {
            column.push(&if csv { text } else { escaped(&text) });
        }
    }
    let column = |strings| Column { values: Some(Values::Strings(strings)), ..Column::default() };
    let rows = Rows { count, columns: columns.into_iter().map(column).collect() };
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let batch = Batch::new(&rows).map_err(|torn| io::Error::other(torn.to_string()))?;
    let style = Style { csv, expand: Expand::Never, width: None };
    let mut set = ResultSet::new(Some(&names), style);
    set.write_rows(&batch, out)?;
    set.finish(out)
}

/// A table that is being written.
#[derive(Debug)]
pub(crate) struct Table {
    /// Names of the columns; `None` if reading began within the table.
    names: Option<Vec<String>>,
    layout: Option<Layout>,
    /// Maximum width of the last column; `None`: unlimited.
    room: Option<usize>,
    rows: u64,
}

/// Minimum width for wrapped values. Below it records are easier to read.
const LEAST_ROOM: usize = 20;

#[derive(Debug)]
struct Layout {
    widths: Vec<usize>,
    numeric: Vec<bool>,
}

impl Table {
    /// A table with these column names.
    pub(crate) fn new(names: &[String]) -> Self {
        Self {
            names: Some(names.iter().map(|name| escaped(name)).collect()),
            layout: None,
            room: None,
            rows: 0,
        }
    }

    /// A table for a terminal of this width, with wrapped values if necessary. `None` if records are better: it does
    /// not fit, or is not a table of names and values.
    pub(crate) fn fitting(names: &[String], batch: &Batch<'_>, columns: usize) -> Option<Self> {
        let table = Self::new(names);
        let Layout { widths, numeric } = Layout::measure(table.names.as_deref(), Some(batch), usize::MAX);
        let most = columns.saturating_sub(1);
        if widths.iter().map(|width| width + 3).sum::<usize>() <= columns + 1 {
            return Some(table);
        }
        let ([name, _], [_, false]) = (&widths[..], &numeric[..]) else { return None };
        let room = most.checked_sub(name + 4).filter(|room| *room >= LEAST_ROOM)?;
        let fits = table.names.as_ref().is_some_and(|names| width(&names[1]) <= room);
        fits.then_some(Self { room: Some(room), ..table })
    }

    /// The rest of a table, without a head.
    pub(crate) fn without_head() -> Self {
        Self { names: None, layout: None, room: None, rows: 0 }
    }

    /// Rows written so far.
    pub(crate) fn row_count(&self) -> u64 {
        self.rows
    }

    /// Writes a batch, after the head if it is the first.
    pub(crate) fn write_rows(&mut self, batch: &Batch<'_>, out: &mut Write<'_>) -> io::Result<()> {
        let mut text = String::new();
        let layout = match self.layout.take() {
            Some(layout) => layout,
            None => self.begin(batch, &mut text),
        };
        let mut values: Vec<String> = Vec::new();
        for row in 0..batch.row_count() {
            values.resize_with(batch.row(row).len(), String::new);
            for (value, cell) in values.iter_mut().zip(batch.row(row)) {
                value.clear();
                cell.push_lines(value);
            }
            let count = values.len();
            let lines: Vec<Vec<Line<'_>>> = if self.is_one_line(&values) {
                Vec::new()
            } else {
                let room = |column| self.room.filter(|_| column + 1 == count);
                values.iter().enumerate().map(|(column, value)| lines(value, room(column))).collect()
            };
            let height = lines.iter().map(Vec::len).max().unwrap_or(1);
            for at in 0..height {
                for (column, cell) in batch.row(row).enumerate() {
                    let line = match lines.get(column) {
                        Some(lines) => lines.get(at).copied().unwrap_or_default(),
                        None => Line { text: &values[column], continues: false },
                    };
                    let right = layout.right(column, &cell);
                    push_padded(&mut text, line, layout.width(column), right, column + 1 == count);
                }
            }
            if text.len() >= PIECE {
                out(text.as_bytes())?;
                text.clear();
            }
        }
        self.rows += batch.row_count() as u64;
        self.layout = Some(layout);
        out(text.as_bytes())
    }

    /// Ends the table. Without rows it still has its head.
    pub(crate) fn finish(&mut self, out: &mut Write<'_>) -> io::Result<()> {
        if self.layout.is_some() {
            return Ok(());
        }
        let mut text = String::new();
        let layout = Layout::measure(self.names.as_deref(), None, WIDEST_PADDING);
        self.push_head(&layout, &mut text);
        self.layout = Some(layout);
        out(text.as_bytes())
    }

    /// Whether a row takes one line.
    fn is_one_line(&self, values: &[String]) -> bool {
        let fits =
            |value: &String| !value.contains('\n') && self.room.is_none_or(|room| width(value) <= room);
        values.iter().all(|value| !value.contains('\n')) && values.last().is_none_or(fits)
    }

    fn begin(&self, batch: &Batch<'_>, text: &mut String) -> Layout {
        let mut layout = Layout::measure(self.names.as_deref(), Some(batch), WIDEST_PADDING);
        if let (Some(room), Some(last)) = (self.room, layout.widths.last_mut()) {
            *last = (*last).min(room);
        }
        self.push_head(&layout, text);
        layout
    }

    fn push_head(&self, layout: &Layout, text: &mut String) {
        let Some(names) = &self.names else { return };
        for (column, name) in names.iter().enumerate() {
            let right = layout.numeric.get(column).copied().unwrap_or(false);
            let line = Line { text: name, continues: false };
            push_padded(text, line, layout.width(column), right, column + 1 == names.len());
        }
        for column in 0..names.len() {
            text.push_str(if column == 0 { "" } else { "+" });
            text.extend(std::iter::repeat_n('-', layout.width(column) + 2));
        }
        text.push('\n');
    }
}

impl Layout {
    fn measure(names: Option<&[String]>, batch: Option<&Batch<'_>>, widest: usize) -> Self {
        let mut widths: Vec<usize> = names.unwrap_or_default().iter().map(|name| width(name)).collect();
        let mut numeric = Vec::new();
        let mut text = String::new();
        let rows = batch.map_or(0, |batch| batch.row_count().min(MEASURED_ROWS));
        for cells in batch.into_iter().flat_map(|batch| (0..rows).map(|row| batch.row(row))) {
            for (column, cell) in cells.enumerate() {
                text.clear();
                cell.push_lines(&mut text);
                if widths.len() <= column {
                    widths.resize(column + 1, 0);
                }
                if numeric.len() <= column {
                    numeric.resize(column + 1, false);
                }
                let widest = text.split('\n').map(width).max().unwrap_or(0);
                widths[column] = widths[column].max(widest);
                numeric[column] |= cell.is_number();
            }
        }
        widths.iter_mut().for_each(|width| *width = (*width).min(widest));
        Self { widths, numeric }
    }

    fn width(&self, column: usize) -> usize {
        self.widths.get(column).copied().unwrap_or(0)
    }

    /// Whether a value is aligned right: a number, or a NULL in a column of numbers.
    fn right(&self, column: usize, cell: &Cell<'_>) -> bool {
        match cell {
            Cell::Null => self.numeric.get(column).copied().unwrap_or(false),
            cell => cell.is_number(),
        }
    }
}

/// One line of a value.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Line<'a> {
    text: &'a str,
    /// The value continues on the next line.
    continues: bool,
}

/// The lines of a value, wrapped to the width.
fn lines(value: &str, room: Option<usize>) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for text in value.split('\n') {
        if let Some(before) = lines.last_mut() {
            before.continues = true;
        }
        let parts = room.map_or(vec![text], |room| broken(text, room));
        lines.extend(parts.into_iter().map(|text| Line { text, continues: false }));
    }
    lines
}

/// Appends ` text |`, padded to `columns`. The last value of a row ends the line, without trailing blanks.
fn push_padded(out: &mut String, line: Line<'_>, columns: usize, right: bool, last: bool) {
    let Line { text, continues } = line;
    let padding = columns.saturating_sub(width(text));
    out.push(' ');
    if right {
        out.extend(std::iter::repeat_n(' ', padding));
    }
    out.push_str(text);
    if !right && (continues || !last) {
        out.extend(std::iter::repeat_n(' ', padding));
    }
    match (continues, last) {
        (true, true) => out.push_str("+\n"),
        (false, true) => out.push('\n'),
        (true, false) => out.push_str("+|"),
        (false, false) => out.push_str(" |"),
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::v1::{Column, Int64s, Rows, Strings, column::Values};

    use super::*;

    fn rows(ids: &[i64], names: &[&str]) -> Rows {
        let names = Strings::from_iter(names);
        Rows {
            count: ids.len() as u32,
            columns: vec![
                Column { values: Some(Values::Int64s(Int64s { values: ids.to_vec() })), ..Column::default() },
                Column { values: Some(Values::Strings(names)), nulls: vec![0b10].into() },
            ],
        }
    }

    fn print(table: &mut Table, batches: &[Rows]) -> String {
        let mut printed = Vec::new();
        let mut out = |piece: &[u8]| {
            printed.extend_from_slice(piece);
            Ok(())
        };
        for batch in batches {
            table.write_rows(&Batch::new(batch).unwrap(), &mut out).unwrap();
        }
        table.finish(&mut out).unwrap();
        String::from_utf8(printed).unwrap()
    }

    fn names() -> Vec<String> {
        vec!["id".to_owned(), "name".to_owned()]
    }

    #[test]
    fn columns_are_aligned_with_wide_characters() {
        let mut table = Table::new(&["id".to_owned(), "n\x1b".to_owned(), "x".to_owned()]);
        let mut batch = rows(&[1, -20], &["漢字", ""]);
        batch.columns.push(Column {
            values: Some(Values::Int64s(Int64s { values: vec![7, 8] })),
            ..Column::default()
        });
        assert_eq!(
            print(&mut table, &[batch]),
            "  id | n\\x1b | x
-----+-------+---
   1 | 漢字  | 7
 -20 | NULL  | 8
"
        );
    }

    #[test]
    fn later_batches_keep_the_first_widths() {
        let mut table = Table::new(&names());
        let printed = print(&mut table, &[rows(&[1], &["a"]), rows(&[22_222], &["b"])]);
        assert_eq!(printed, " id | name\n----+------\n  1 | a\n 22222 | b\n");
        assert_eq!(table.row_count(), 2);
    }

    #[test]
    fn table_without_rows_has_its_head() {
        assert_eq!(print(&mut Table::new(&names()), &[]), " id | name\n----+------\n");
    }

    #[test]
    fn rest_of_a_table_has_no_head() {
        assert_eq!(print(&mut Table::without_head(), &[rows(&[1], &["a"])]), " 1 | a\n");
    }

    #[test]
    fn long_value_does_not_pad_other_rows() {
        let long = "x".repeat(500);
        let mut table = Table::new(&["a".to_owned(), "b".to_owned()]);
        let mut batch = rows(&[1, 2], &[&long, "y"]);
        batch.columns.swap(0, 1);
        batch.columns[0].nulls = Vec::new().into();
        let printed = print(&mut table, &[batch]);
        assert!(printed.contains(&format!(" {long} | 1\n")));
        assert!(printed.lines().last().unwrap().len() < 70, "{printed}");
    }
}
