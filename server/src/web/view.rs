//! View of a job: data from its log, read once and kept up to date.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlflow_job::JobId;
use sqlflow_proto::record::{ModelPublished, Notice, StoredRecord, notice, output::Stream, record::Payload};
use sqlflow_result_log::{LogError, ResultLog};

use super::progress_bar::{Bar, Bars};
use super::statements::Statements;

use sqlflow_sync::lock;

/// Maximum number of cached views without an open page; the least recently used is evicted. Together with open pages
/// there are never more than this, or than open pages need.
const MAX_VIEWS: usize = 64;
/// Bytes of records that are read at once.
const PAGE_BYTES: usize = 1 << 20;
/// Timeout for reading a view for a page: of a log of gigabytes it shows what was read by then, and continues with
/// that.
pub(super) const READ_TIME: Duration = Duration::from_secs(2);
const MAX_PROGRESS: usize = 16;
const MAX_NOTICES: usize = 50;
const MAX_MODELS: usize = 64;
/// Maximum bytes of a text, which may come from any program.
const TEXT_BYTES: usize = 1000;

/// Data of a job from its log: about 500 KB at most, see the limits above and those of [`Statements`].
#[derive(Debug, Default)]
pub(super) struct JobView {
    position: u64,
    /// Number of records that are not read yet.
    pub(super) unread: u64,
    pub(super) statements: Statements,
    pub(super) progress: VecDeque<Progress>,
    pub(super) notices: VecDeque<(i64, Notice)>,
    pub(super) models: Vec<ModelPublished>,
    bars: Bars,
}

/// Progress of a statement's phase.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub(super) statement: u32,
    pub(super) phase: String,
    pub(super) unit: String,
    pub(super) done: u64,
    pub(super) total: u64,
    /// Time of its first report, and its progress then.
    first: (i64, u64),
    at: i64,
}

impl Progress {
    /// Estimated seconds left; `None`: unknown.
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

/// Cached views.
#[derive(Clone, Default)]
pub struct JobViews(Arc<Mutex<VecDeque<(JobId, SharedView)>>>);

/// A shared view. The task that refreshes it has it exclusively. An open page holds it all the time: otherwise each
/// of its summaries might read the whole log again.
pub(super) type SharedView = Arc<tokio::sync::Mutex<JobView>>;

impl JobViews {
    /// The view of a job, possibly unread. It is kept at least as long as the result is held.
    pub(super) fn of(&self, job: &JobId) -> SharedView {
        let mut all = self.lock();
        let found = all.iter().position(|(id, _)| id == job).and_then(|at| all.remove(at));
        let entry = found.unwrap_or_else(|| (job.clone(), Arc::default()));
        let view = Arc::clone(&entry.1);
        all.push_back(entry);
        evict(&mut all);
        view
    }

    /// Evicts views over the limit, when they are no longer held.
    pub(super) fn evict(&self) {
        evict(&mut self.lock());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(JobId, SharedView)>> {
        lock(&self.0)
    }
}

/// Evicts the oldest views without a holder, down to the limit. The lock is held, so no new holder can appear.
fn evict(all: &mut VecDeque<(JobId, SharedView)>) {
    let mut surplus = all.len().saturating_sub(MAX_VIEWS);
    all.retain(|(_, view)| {
        let goes = surplus > 0 && Arc::strong_count(view) == 1;
        surplus -= usize::from(goes);
        !goes
    });
}

impl JobView {
    /// Reads new records, until this time is over. Then `unread` is not 0.
    ///
    /// # Errors
    /// Errors of the log.
    pub(super) async fn refresh(
        &mut self,
        job: &JobId,
        log: &dyn ResultLog,
        time: Duration,
    ) -> Result<(), LogError> {
        let begun = Instant::now();
        loop {
            let page = log.read(job, self.position, PAGE_BYTES).await?;
            self.unread = page.behind;
            if page.records.is_empty() {
                self.position = self.position.min(page.last_position);
                return Ok(());
            }
            for stored in page.records {
                self.position = stored.position;
                self.take(stored);
            }
            if self.unread > 0 && begun.elapsed() >= time {
                return Ok(());
            }
        }
    }

    /// A progress bar that the program draws itself.
    pub(super) fn bar(&self) -> Option<&Bar> {
        self.bars.newest.as_ref()
    }

    fn take(&mut self, stored: StoredRecord) {
        let Some(record) = stored.record else { return };
        let index = record.statement.unwrap_or_default();
        let at = record.time_unix_micros;
        match record.payload {
            Some(Payload::Started(_)) => self.statements.start(index),
            Some(Payload::Ended(ended)) => self.statements.end(index, &ended),
            Some(Payload::Head(head)) => self.statements.take_head(index, head),
            Some(Payload::Rows(rows)) => self.statements.take_rows(index, &rows),
            Some(Payload::Metrics(report)) => self.statements.take_metrics(index, report),
            Some(Payload::Display(display)) => self.statements.take_display(index, stored.position, &display),
            Some(Payload::Progress(report)) => {
                self.take_progress(index, report.phase, report.unit, (report.done, report.total), at);
            }
            Some(Payload::Notice(mut notice)) if notice.kind() != notice::Kind::End => {
                cut(&mut notice.text);
                self.notices.push_back((at, notice));
                if self.notices.len() > MAX_NOTICES {
                    self.notices.pop_front();
                }
            }
            Some(Payload::Model(mut model)) if self.models.len() < MAX_MODELS => {
                [&mut model.name, &mut model.uri].into_iter().for_each(cut);
                model.replaced.iter_mut().for_each(|it| cut(&mut it.trained_by));
                self.models.retain(|it| it.name != model.name);
                self.models.push(model);
            }
            Some(Payload::Output(output)) if output.stream() == Stream::Stderr => {
                self.bars.take(&output.data);
            }
            _ => {}
        }
    }

    fn take_progress(
        &mut self,
        statement: u32,
        mut phase: String,
        mut unit: String,
        (done, total): (u64, u64),
        at: i64,
    ) {
        [&mut phase, &mut unit].into_iter().for_each(cut);
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
}

fn cut(text: &mut String) {
    if text.len() > TEXT_BYTES {
        text.truncate(text.floor_char_boundary(TEXT_BYTES));
        text.push('…');
        text.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::record::{EarlierModel, Record, StatementStarted};
    use sqlflow_proto::v1::{Display, Head, Metric, Metrics, Progress as ProgressReport};

    use super::*;

    #[test]
    fn held_views_are_not_evicted() {
        let views = JobViews::default();
        let jobs: Vec<_> = (0..2 * MAX_VIEWS).map(|_| JobId::generate()).collect();
        let held: Vec<_> = jobs.iter().map(|job| views.of(job)).collect();
        let idle = JobId::generate();
        let before = Arc::downgrade(&views.of(&idle));
        drop(views.of(&JobId::generate()));
        assert_eq!(before.strong_count(), 0, "no page holds it, and the limit is exceeded");
        for (job, view) in jobs.iter().zip(&held) {
            assert!(Arc::ptr_eq(&views.of(job), view));
        }
        assert_eq!(views.lock().len(), jobs.len());
        drop(held);
        views.evict();
        assert_eq!(views.lock().len(), MAX_VIEWS);
        assert_eq!(views.lock().back().unwrap().0, jobs[jobs.len() - 1], "the oldest went");
    }

    /// A program chooses them, and one record may have 16 MiB.
    #[test]
    fn names_are_cut_when_they_are_taken_in() {
        let long = || "n".repeat(1 << 20);
        let metric = || vec![Metric { name: long(), value: 0.5 }];
        let payloads = [
            Payload::Started(StatementStarted {}),
            Payload::Head(Head { column_names: vec![long()], ..Head::default() }),
            Payload::Progress(ProgressReport { phase: long(), unit: long(), done: 1, total: 2 }),
            Payload::Metrics(Metrics { step: Some(1), metrics: metric(), kept: false }),
            Payload::Metrics(Metrics { step: None, metrics: metric(), kept: false }),
            Payload::Model(ModelPublished {
                name: long(),
                uri: long(),
                replaced: Some(EarlierModel { trained_by: long(), ..EarlierModel::default() }),
                ..ModelPublished::default()
            }),
            Payload::Display(Display { media_type: long(), data: long().into() }),
            Payload::Notice(Notice { text: long(), ..Notice::default() }),
        ];
        let mut view = JobView::default();
        for payload in payloads {
            let record = Record { statement: Some(0), payload: Some(payload), ..Record::default() };
            view.take(StoredRecord { record: Some(record), ..StoredRecord::default() });
        }
        assert_eq!((view.progress.len(), view.models.len(), view.notices.len()), (1, 1, 1));
        let size = format!("{view:?}").len();
        assert!(size < 10_000, "{size} bytes");
    }

    #[test]
    fn time_left_is_estimated_from_the_speed() {
        let mut view = JobView::default();
        let mut seconds_left = |done, at| {
            view.take_progress(0, "train".into(), "rounds".into(), (done, 100), at);
            view.progress[0].seconds_left()
        };
        assert_eq!(seconds_left(10, 0), None);
        assert_eq!(seconds_left(20, 1_000_000), Some(8));
        assert_eq!(seconds_left(100, 9_000_000), None);
        assert_eq!(seconds_left(5, 10_000_000), None, "it restarted");
    }
}
