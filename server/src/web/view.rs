//! What is known of a job from its log, read once and kept up to date.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use sqlflow_proto::record::{ModelPublished, Notice, StoredRecord, notice, output::Stream, record::Payload};
use sqlflow_proto::v1::{Head, Rows};

use super::series::Series;
use crate::job::JobId;
use crate::log::{LogError, ResultLog};
use crate::text::cell::Batch;

/// Jobs that are kept without an open page; the one that was looked at longest ago goes first. With the jobs of open pages
/// there are never more than this, or than those pages need.
const MAX_VIEWS: usize = 64;
/// Bytes of records that are read at once.
const PAGE_BYTES: usize = 1 << 20;
const MAX_PROGRESS: usize = 16;
const MAX_SERIES: usize = 24;
const MAX_NOTICES: usize = 50;
const MAX_MODELS: usize = 64;
const MAX_STATEMENTS: usize = 1000;
/// Rows that are shown of the newest result set, and characters of a value.
const SHOWN_ROWS: usize = 20;
const SHOWN_COLUMNS: usize = 24;
const SHOWN_CHARACTERS: usize = 100;
/// Bytes of the line that a progress bar is looked for in.
const LINE_BYTES: usize = 512;

/// A job, as its log tells: some 300 KB at the most, see the limits above.
#[derive(Debug, Default)]
pub(super) struct View {
    position: u64,
    pub(super) statements: BTreeMap<u32, Statement>,
    pub(super) progress: VecDeque<Progress>,
    pub(super) series: BTreeMap<String, Series>,
    pub(super) notices: VecDeque<(i64, Notice)>,
    pub(super) models: Vec<ModelPublished>,
    pub(super) table: Table,
    pub(super) bar: Option<Bar>,
    stderr_line: Vec<u8>,
}

/// A statement that has begun.
#[derive(Debug, Default)]
pub(super) struct Statement {
    pub(super) duration_micros: Option<u64>,
    pub(super) rows: u64,
    pub(super) rows_affected: Option<u64>,
}

/// How far a phase of a statement is.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub(super) statement: u32,
    pub(super) phase: String,
    pub(super) unit: String,
    pub(super) done: u64,
    pub(super) total: u64,
    /// When it was first told of, and how far it was then.
    first: (i64, u64),
    at: i64,
}

impl Progress {
    /// Seconds that are left at the speed so far; `None`: nobody knows.
    pub(super) fn seconds_left(&self) -> Option<u64> {
        let (since, before) = self.first;
        let (elapsed, made) = (self.at.checked_sub(since)?, self.done.checked_sub(before)?);
        let left = self.total.checked_sub(self.done).filter(|left| *left > 0)?;
        if elapsed <= 0 || made == 0 {
            return None;
        }
        Some((left as f64 * elapsed as f64 / made as f64 / 1e6).ceil() as u64)
    }
}

/// The beginning of the newest result set.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) statement: u32,
    pub(super) names: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// A progress bar that the program draws by itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bar {
    pub(super) percent: u8,
    pub(super) text: String,
}

/// What is known of jobs that were looked at.
#[derive(Clone, Default)]
pub struct Views(Arc<Mutex<VecDeque<(JobId, SharedView)>>>);

/// A view and those who use it. The one that refreshes it has it alone. An open page holds it for as long as it is open:
/// otherwise each of its summaries could read the whole log again.
pub(super) type SharedView = Arc<tokio::sync::Mutex<View>>;

impl Views {
    /// The view of a job, perhaps still to be read. It is kept at least as long as the result is held.
    pub(super) fn of(&self, job: &JobId) -> SharedView {
        let mut all = self.lock();
        let found = all.iter().position(|(id, _)| id == job).and_then(|at| all.remove(at));
        let entry = found.unwrap_or_else(|| (job.clone(), Arc::default()));
        let view = Arc::clone(&entry.1);
        all.push_back(entry);
        evict(&mut all);
        view
    }

    /// Drops what is too much, when views are no longer held.
    pub(super) fn evict(&self) {
        evict(&mut self.lock());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(JobId, SharedView)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops the oldest views that nobody holds, until few enough are left. The lock is held, so nobody can begin to hold one.
fn evict(all: &mut VecDeque<(JobId, SharedView)>) {
    let mut surplus = all.len().saturating_sub(MAX_VIEWS);
    all.retain(|(_, view)| {
        let goes = surplus > 0 && Arc::strong_count(view) == 1;
        surplus -= usize::from(goes);
        !goes
    });
}

impl View {
    /// Reads what is new.
    ///
    /// # Errors
    /// The log's.
    pub(super) async fn refresh(&mut self, job: &JobId, log: &dyn ResultLog) -> Result<(), LogError> {
        loop {
            let page = log.read(job, self.position, PAGE_BYTES).await?;
            if page.records.is_empty() {
                self.position = self.position.min(page.last_position);
                return Ok(());
            }
            for stored in page.records {
                self.position = stored.position;
                self.take(stored);
            }
        }
    }

    fn take(&mut self, stored: StoredRecord) {
        let Some(record) = stored.record else { return };
        let index = record.statement.unwrap_or_default();
        let at = record.time_unix_micros;
        match record.payload {
            Some(Payload::Started(_)) if self.statements.len() < MAX_STATEMENTS => {
                self.statements.insert(index, Statement::default());
            }
            Some(Payload::Ended(ended)) => {
                if let Some(statement) = self.statements.get_mut(&index) {
                    statement.duration_micros = Some(ended.duration_micros);
                    statement.rows_affected = ended.rows_affected;
                }
            }
            Some(Payload::Head(head)) => self.take_head(index, head),
            Some(Payload::Rows(rows)) => self.take_rows(index, &rows),
            Some(Payload::Progress(told)) => {
                self.take_progress(index, told.phase, told.unit, (told.done, told.total), at);
            }
            Some(Payload::Metrics(told)) => {
                if let Some(round) = told.step {
                    for metric in told.metrics {
                        if self.series.len() < MAX_SERIES || self.series.contains_key(&metric.name) {
                            self.series.entry(metric.name).or_default().push(round, metric.value);
                        }
                    }
                }
            }
            Some(Payload::Notice(notice)) if notice.kind() != notice::Kind::End => {
                self.notices.push_back((at, notice));
                if self.notices.len() > MAX_NOTICES {
                    self.notices.pop_front();
                }
            }
            Some(Payload::Model(model)) if self.models.len() < MAX_MODELS => {
                self.models.retain(|it| it.name != model.name);
                self.models.push(model);
            }
            Some(Payload::Output(output)) if output.stream() == Stream::Stderr => {
                self.take_stderr(&output.data);
            }
            _ => {}
        }
    }

    fn take_head(&mut self, statement: u32, head: Head) {
        let names = head.column_names.into_iter().take(SHOWN_COLUMNS).collect();
        self.table = Table { statement, names, rows: Vec::new() };
    }

    fn take_rows(&mut self, index: u32, rows: &Rows) {
        if let Some(statement) = self.statements.get_mut(&index) {
            statement.rows += u64::from(rows.count);
        }
        let room = SHOWN_ROWS - self.table.rows.len();
        let Ok(batch) = Batch::new(rows) else { return };
        for row in 0..batch.row_count().min(room) {
            let cells = batch.row(row).take(SHOWN_COLUMNS).map(|cell| {
                let mut text = String::new();
                cell.push_text(&mut text);
                text.chars().take(SHOWN_CHARACTERS).collect()
            });
            self.table.rows.push(cells.collect());
        }
    }

    fn take_progress(
        &mut self,
        statement: u32,
        phase: String,
        unit: String,
        (done, total): (u64, u64),
        at: i64,
    ) {
        let known = self.progress.iter_mut().find(|it| it.statement == statement && it.phase == phase);
        match known {
            Some(known) if done >= known.done => {
                (known.done, known.total, known.at) = (done, total, at);
            }
            Some(known) => {
                (known.done, known.total, known.first, known.at) = (done, total, (at, done), at);
            }
            None => {
                let first = (at, done);
                self.progress.push_back(Progress { statement, phase, unit, done, total, first, at });
                if self.progress.len() > MAX_PROGRESS {
                    self.progress.pop_front();
                }
            }
        }
    }

    /// Bars such as tqdm's write their line over with carriage returns.
    fn take_stderr(&mut self, data: &[u8]) {
        let tail = &data[data.len().saturating_sub(LINE_BYTES)..];
        self.stderr_line.extend_from_slice(tail);
        if let Some(end) = self.stderr_line.iter().rposition(|byte| *byte == b'\n') {
            self.stderr_line.drain(..=end);
        }
        if self.stderr_line.len() > LINE_BYTES {
            self.stderr_line.drain(..self.stderr_line.len() - LINE_BYTES);
        }
        let line = String::from_utf8_lossy(&self.stderr_line);
        let newest = line.rsplit('\r').map(str::trim).find(|it| !it.is_empty());
        self.bar =
            newest.and_then(bar).or_else(|| if tail.ends_with(b"\n") { None } else { self.bar.take() });
    }
}

/// `45%|███   | 45/100 [00:10<00:12, 4.5it/s]`, perhaps with a title before it.
fn bar(line: &str) -> Option<Bar> {
    let (before, after) = line.split_once("%|")?;
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next()?;
    let percent: u8 = digits.parse().ok().filter(|it| *it <= 100)?;
    let title = before[..before.len() - digits.len()].trim().trim_end_matches(':');
    let figures = after.split_once('|').map_or("", |(_, figures)| figures.trim());
    let text = [title, figures].into_iter().filter(|it| !it.is_empty()).collect::<Vec<_>>().join(" ");
    Some(Bar { percent, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_read_as_they_are_drawn() {
        let told = bar("epoch 3:  45%|████▌     | 45/100 [00:10<00:12,  4.50it/s]").unwrap();
        assert_eq!(told, Bar { percent: 45, text: "epoch 3 45/100 [00:10<00:12,  4.50it/s]".into() });
        assert_eq!(bar("  7%|▋ | 7/100").unwrap().percent, 7);
        for none in ["", "100 %", "a 500%| |", "50% done", "%|"] {
            assert_eq!(bar(none), None, "{none}");
        }
    }

    #[test]
    fn the_newest_bar_counts_and_goes_with_its_line() {
        let mut view = View::default();
        for part in ["\r 10%|█", "    | 1/10", "\r 20%|██   | 2/10 [00:0"] {
            view.take_stderr(part.as_bytes());
        }
        assert_eq!(view.bar.as_ref().unwrap().percent, 20);
        view.take_stderr(b"\r100%|##| 10/10 [00:01<00:00]\n");
        assert_eq!(view.bar, None);
        view.take_stderr(&[b'x'; 100_000]);
        assert!(view.stderr_line.len() <= LINE_BYTES);
    }

    #[test]
    fn views_that_are_held_stay_and_others_are_few() {
        let views = Views::default();
        let jobs: Vec<_> = (0..2 * MAX_VIEWS).map(|_| JobId::generate()).collect();
        let held: Vec<_> = jobs.iter().map(|job| views.of(job)).collect();
        let idle = JobId::generate();
        let before = Arc::downgrade(&views.of(&idle));
        drop(views.of(&JobId::generate()));
        assert_eq!(before.strong_count(), 0, "nobody holds it, and there are too many");
        for (job, view) in jobs.iter().zip(&held) {
            assert!(Arc::ptr_eq(&views.of(job), view));
        }
        assert_eq!(views.lock().len(), jobs.len());
        drop(held);
        views.evict();
        assert_eq!(views.lock().len(), MAX_VIEWS);
        assert_eq!(views.lock().back().unwrap().0, jobs[jobs.len() - 1], "the oldest went");
    }

    #[test]
    fn the_time_left_follows_from_the_speed() {
        let mut view = View::default();
        let mut told = |done, at| {
            view.take_progress(0, "train".into(), "rounds".into(), (done, 100), at);
            view.progress[0].seconds_left()
        };
        assert_eq!(told(10, 0), None);
        assert_eq!(told(20, 1_000_000), Some(8));
        assert_eq!(told(100, 9_000_000), None);
        assert_eq!(told(5, 10_000_000), None, "it began again");
    }
}
