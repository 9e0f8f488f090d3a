//! Results of each statement of a program: the beginning of its rows, its measurements and its pictures.

use std::collections::BTreeMap;

use sqlflow_proto::record::StatementEnded;
use sqlflow_proto::v1::{Display, EncodedRows, Head, Metrics};
use sqlflow_text::cell::Batch;

use super::downsampling::Curves;

/// Maximum number of statements; the oldest are evicted.
const MAX_STATEMENTS: usize = 100;
/// Maximum number of series of all statements together: each is at most 4 KB.
const MAX_SERIES: usize = 32;
/// Maximum bytes of tables and texts, of one statement and of all together; the oldest are evicted.
const STATEMENT_BYTES: usize = 48 << 10;
const ALL_BYTES: usize = 192 << 10;
/// Overhead of a text.
const TEXT_BYTES: usize = 32;
/// Maximum rows of a result, its columns, and characters of a value.
const SHOWN_ROWS: usize = 20;
const SHOWN_COLUMNS: usize = 24;
const SHOWN_CHARACTERS: usize = 100;
const MAX_PICTURES: usize = 8;
const MAX_MEASURED: usize = 32;
/// Highest statement number whose end is counted.
const MAX_COUNTED: usize = 10_000;

/// The statements that have started, at most [`MAX_STATEMENTS`] of them.
#[derive(Debug, Default)]
pub(super) struct Statements {
    kept: BTreeMap<u32, Statement>,
    /// Bit set of the ended ones.
    ended: Vec<u64>,
    bytes: usize,
}

/// A statement that has started.
#[derive(Debug, Default)]
pub(super) struct Statement {
    /// Its first words, once they are known.
    pub(super) heading: Option<String>,
    pub(super) duration_micros: Option<u64>,
    pub(super) rows: u64,
    pub(super) rows_affected: Option<u64>,
    /// The beginning of its newest result.
    pub(super) table: Option<Table>,
    pub(super) pictures: Vec<Picture>,
    /// Its plain text output.
    pub(super) texts: Vec<String>,
    /// Final measurements.
    pub(super) measured: Vec<(String, f64)>,
    /// Measurements over its rounds.
    pub(super) curves: Curves,
    bytes: usize,
}

/// The beginning of a result.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) names: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
    /// Number of columns beyond the shown ones.
    pub(super) more_columns: usize,
    /// Which columns have numbers only.
    pub(super) numbers: Vec<bool>,
    /// A row did not fit: no further ones are shown.
    is_full: bool,
}

/// A display, which stays in the log.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Picture {
    /// Position of its record.
    pub(super) position: u64,
    pub(super) media_type: String,
    pub(super) bytes: usize,
}

impl Statements {
    /// The kept statements, in the order of the program.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (u32, &Statement)> {
        self.kept.iter().map(|(index, it)| (*index, it))
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Those whose first words are not known yet.
    pub(super) fn nameless(&mut self) -> impl Iterator<Item = (u32, &mut Option<String>)> {
        self.kept
            .iter_mut()
            .filter(|(_, it)| it.heading.is_none())
            .map(|(index, it)| (*index, &mut it.heading))
    }

    /// Number of ended statements.
    pub(super) fn done(&self) -> u32 {
        self.ended.iter().map(|it| it.count_ones()).sum()
    }

    /// The statement starts, possibly again: earlier results of it are discarded.
    pub(super) fn start(&mut self, index: u32) {
        self.set_ended(index, false);
        if let Some(before) = self.kept.insert(index, Statement::default()) {
            self.bytes -= before.bytes;
        }
        if self.kept.len() > MAX_STATEMENTS
            && let Some((_, gone)) = self.kept.pop_first()
        {
            self.bytes -= gone.bytes;
        }
    }

    pub(super) fn end(&mut self, index: u32, ended: &StatementEnded) {
        self.set_ended(index, true);
        if let Some(statement) = self.kept.get_mut(&index) {
            statement.duration_micros = Some(ended.duration_micros);
            statement.rows_affected = ended.rows_affected;
        }
    }

    fn set_ended(&mut self, index: u32, is_ended: bool) {
        let (word, bit) = (index as usize / 64, 1_u64 << (index % 64));
        if index as usize >= MAX_COUNTED {
            return;
        }
        if self.ended.len() <= word {
            self.ended.resize(word + 1, 0);
        }
        if is_ended { self.ended[word] |= bit } else { self.ended[word] &= !bit }
    }

    pub(super) fn take_head(&mut self, index: u32, head: Head) {
        let more_columns = head.column_names.len().saturating_sub(SHOWN_COLUMNS);
        let names: Vec<String> =
            head.column_names.into_iter().take(SHOWN_COLUMNS).map(|it| shortened(&it)).collect();
        self.add(index, bytes_of(&names), |statement| {
            let numbers = vec![true; names.len()];
            statement.table = Some(Table { names, more_columns, numbers, ..Table::default() });
        });
    }

    pub(super) fn take_rows(&mut self, index: u32, rows: &EncodedRows) {
        let Some(statement) = self.kept.get_mut(&index) else { return };
        statement.rows += u64::from(rows.count);
        let room =
            statement.table.as_ref().filter(|it| !it.is_full).map_or(0, |it| SHOWN_ROWS - it.rows.len());
        if room == 0 {
            return;
        }
        let Ok(decoded) = rows.decoded() else { return };
        let Ok(batch) = Batch::new(&decoded) else { return };
        for row in 0..batch.row_count().min(room) {
            let mut numbers = Vec::new();
            let cells: Vec<String> = batch
                .row(row)
                .take(SHOWN_COLUMNS)
                .map(|cell| {
                    numbers.push(cell.is_number());
                    let mut text = String::new();
                    cell.push_lines(&mut text);
                    shortened(&text)
                })
                .collect();
            let has_room = self.add(index, bytes_of(&cells), |statement| {
                if let Some(table) = &mut statement.table {
                    table.rows.push(cells);
                    for (all, one) in table.numbers.iter_mut().zip(numbers) {
                        *all &= one;
                    }
                }
            });
            if !has_room {
                if let Some(table) = self.kept.get_mut(&index).and_then(|it| it.table.as_mut()) {
                    table.is_full = true;
                }
                return;
            }
        }
    }

    pub(super) fn take_metrics(&mut self, index: u32, metrics: Metrics) {
        let mut room = MAX_SERIES.saturating_sub(self.kept.values().map(|it| it.curves.len()).sum());
        let Some(statement) = self.kept.get(&index) else { return };
        let new = metrics.metrics.len().saturating_sub(statement.curves.len());
        for (_, other) in self.kept.iter_mut().filter(|(other, _)| **other != index) {
            if room >= new {
                break;
            }
            room += std::mem::take(&mut other.curves).len();
        }
        let Some(statement) = self.kept.get_mut(&index) else { return };
        match metrics.step {
            Some(round) if metrics.kept => statement.curves.kept = Some(round),
            Some(round) => statement.curves.push(round, metrics.metrics, room),
            None => {
                let room = MAX_MEASURED.saturating_sub(statement.measured.len());
                let new = metrics.metrics.into_iter().take(room).map(|it| (shortened(&it.name), it.value));
                statement.measured.extend(new);
            }
        }
    }

    pub(super) fn take_display(&mut self, index: u32, position: u64, display: &Display) {
        if display.media_type == "text/plain" {
            let end = display.data.len().min(STATEMENT_BYTES / 8);
            let text = String::from_utf8_lossy(&display.data[..end]).into_owned();
            self.add(index, text.len() + TEXT_BYTES, |statement| statement.texts.push(text));
        } else if let Some(statement) = self.kept.get_mut(&index)
            && statement.pictures.len() < MAX_PICTURES
        {
            let media_type = shortened(&display.media_type);
            statement.pictures.push(Picture { position, media_type, bytes: display.data.len() });
        }
    }

    /// Reserves this many bytes for a statement, if they are available.
    fn add(&mut self, index: u32, bytes: usize, add: impl FnOnce(&mut Statement)) -> bool {
        let Some(statement) = self.kept.get_mut(&index) else { return false };
        if statement.bytes + bytes > STATEMENT_BYTES {
            return false;
        }
        statement.bytes += bytes;
        add(statement);
        self.bytes += bytes;
        let mut others = self.kept.iter_mut().filter(|(other, _)| **other != index);
        while self.bytes > ALL_BYTES
            && let Some((_, other)) = others.next()
        {
            self.bytes -= std::mem::take(&mut other.bytes);
            (other.table, other.texts) = (None, Vec::new());
        }
        true
    }
}

fn bytes_of(texts: &[String]) -> usize {
    texts.iter().map(|it| it.len() + TEXT_BYTES).sum()
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::v1::{Column, Metric, Rows, Strings, column::Values};

    use super::*;

    fn head(columns: usize) -> Head {
        Head { column_names: (0..columns).map(|it| format!("c{it}")).collect(), column_types: Vec::new() }
    }

    fn rows(count: u32, columns: usize, text: &str) -> EncodedRows {
        let values = Strings::from_iter(vec![text; count as usize]);
        let column = Column { values: Some(Values::Strings(values)), ..Column::default() };
        Rows { count, columns: vec![column; columns] }.into()
    }

    #[test]
    fn each_statement_keeps_the_beginning_of_its_own_result() {
        let mut all = Statements::default();
        for index in 0..2 {
            all.start(index);
            all.take_head(index, head(30));
            all.take_rows(index, &rows(15, 30, &format!("of\n{index}")));
            all.take_rows(index, &rows(15, 30, "more"));
        }
        for (index, statement) in all.iter() {
            let table = statement.table.as_ref().unwrap();
            assert_eq!((statement.rows, table.rows.len(), table.more_columns), (30, 20, 6));
            assert_eq!(table.rows[0][0], format!("of\n{index}"));
        }
        // A row that does not fit ends the table, even if a later one would fit.
        all.start(2);
        all.take_head(2, head(24));
        all.take_rows(2, &rows(15, 24, &"é".repeat(99)));
        let shown = all.kept[&2].table.as_ref().unwrap().rows.len();
        assert!((2..15).contains(&shown), "{shown}");
        all.take_rows(2, &rows(1, 24, ""));
        assert_eq!((all.kept[&2].table.as_ref().unwrap().rows.len(), all.kept[&2].rows), (shown, 16));
        // It is executed again: its earlier results are discarded.
        all.end(1, &StatementEnded::default());
        assert_eq!(all.done(), 1);
        all.start(1);
        assert_eq!((all.done(), all.kept[&1].rows, all.kept[&1].table.is_none()), (0, 0, true));
    }

    #[test]
    fn newest_trainings_keep_their_curves() {
        let mut all = Statements::default();
        let metrics = |count: usize| {
            let metric = |it| Metric { name: format!("m{it}"), value: 0.5 };
            Metrics { step: Some(1), metrics: (0..count).map(metric).collect(), kept: false }
        };
        for index in 0..20 {
            all.start(index);
            all.take_metrics(index, metrics(10));
            all.take_metrics(index, Metrics { step: Some(1), kept: true, metrics: Vec::new() });
            assert!(all.kept.values().map(|it| it.curves.len()).sum::<usize>() <= MAX_SERIES);
        }
        let curves: Vec<_> = all.iter().rev().map(|(_, it)| (it.curves.len(), it.curves.kept)).collect();
        assert_eq!(curves[..4], [(10, Some(1)), (10, Some(1)), (10, Some(1)), (0, None)]);
        all.take_metrics(19, metrics(1000));
        assert_eq!(all.kept[&19].curves.len(), MAX_SERIES);
    }

    #[test]
    fn results_are_bounded_and_the_oldest_are_evicted() {
        let mut all = Statements::default();
        for index in 0..3 * u32::try_from(MAX_STATEMENTS).unwrap() {
            all.start(index);
            all.take_head(index, head(24));
            all.take_rows(index, &rows(1000, 24, &"é".repeat(1000)));
            all.take_display(
                index,
                7,
                &Display { media_type: "text/plain".into(), data: vec![b'x'; 1 << 20].into() },
            );
            all.end(index, &StatementEnded::default());
            let kept: usize = all.kept.values().map(|it| it.bytes).sum();
            assert_eq!(kept, all.bytes);
            assert!(kept <= ALL_BYTES, "{kept}");
        }
        assert_eq!((all.kept.len(), all.done()), (MAX_STATEMENTS, 300));
        assert!(all.kept.values().next_back().unwrap().table.is_some());
        assert!(all.kept.values().next().unwrap().table.is_none());
    }
}
