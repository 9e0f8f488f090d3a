//! Pages of a job's log, with the repair of files that cannot be read.

use std::path::Path;
use std::sync::Arc;

use sqlflow_sync::lock;
use tokio::time::Instant;

use super::{JobLog, Looked};
use crate::blocking::run_blocking;
use crate::lock::{JobLock, LOCK_WAIT, Tried};
use crate::log_state::LogState;
use crate::read::PagePlan;
use crate::repair::{fill_holes, repair_end, repair_file};
use crate::{LogError, Page, reader_positions};

/// Maximum number of times that a page is planned again, because retention replaced a file or damage was repaired.
const READ_TRIES: u32 = 32;

impl JobLog {
    /// The position after which the last `count` positions are, as far as it is known without waiting for another
    /// process.
    pub(crate) async fn position_before(self: &Arc<Self>, count: u64) -> Result<u64, LogError> {
        let before = move |view: &LogState| {
            let summary = &view.summary;
            reader_positions::to_readers(&summary.shifts, summary.last_position.saturating_sub(count))
        };
        let this = Arc::clone(self);
        let known = run_blocking(move || {
            Ok(match this.look_if_free(before)? {
                Looked::Answer(position) => Some(position),
                Looked::Busy(_) => LogState::of_old_offset(&this.folder)?.map(|view| before(&view)),
            })
        });
        match known.await? {
            Some(position) => Ok(position),
            None => self.look(before).await,
        }
    }

    /// A page. While another process holds the log's lock, only records up to the committed offset are read, which may
    /// be no new ones.
    pub(crate) async fn read(self: &Arc<Self>, after: u64, max_bytes: usize) -> Result<Page, LogError> {
        let begun = Instant::now();
        loop {
            let this = Arc::clone(self);
            let waiting = match run_blocking(move || this.read_if_free(after, max_bytes)).await? {
                Looked::Answer(page) => return Ok(page),
                Looked::Busy(waiting) => waiting,
            };
            let held = if begun.elapsed() < LOCK_WAIT {
                self.wait_for_view(waiting).await
            } else {
                Err(waiting.busy())
            };
            let this = Arc::clone(self);
            match held {
                Ok(Some(held)) => run_blocking(move || this.catch_up(Some(&held), |_| ())).await?,
                Ok(None) => {}
                // It is stopped, or its disk does not respond. What it was about to add is not acknowledged.
                Err(busy @ LogError::Busy { .. }) => {
                    let known = run_blocking(move || this.read_to_old_mark(after, max_bytes)).await?;
                    return known.ok_or(busy);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn read_if_free(&self, after: u64, max_bytes: usize) -> Result<Looked<Page>, LogError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let planned = match self.look_if_free(|view| PagePlan::new(view, after))? {
                Looked::Answer(planned) => planned,
                Looked::Busy(waiting) => {
                    let known = self.read_to_old_mark(after, max_bytes)?;
                    return Ok(match known.filter(|page| !page.records.is_empty()) {
                        Some(page) => Looked::Answer(page),
                        None => Looked::Busy(waiting),
                    });
                }
            };
            let Some(plan) = &planned.plan else {
                return Ok(Looked::Answer(planned.wanted.page(Vec::new(), true)));
            };
            match plan.read(&self.folder, max_bytes as u64) {
                Ok(found) => {
                    if let (Some((name, index)), Some(view)) = (found.index, lock(&self.view).as_mut()) {
                        view.cache_index(name, index);
                    }
                    return Ok(Looked::Answer(planned.wanted.page(found.records, true)));
                }
                // Retention replaced a file, or the log was deleted: plan again.
                Err(error) if error.is_not_found() && tries < READ_TRIES => *lock(&self.view) = None,
                Err(LogError::Corrupt { file, .. }) if tries < READ_TRIES => {
                    match JobLock::try_if_there(&self.folder)? {
                        Tried::Held(held) => self.repair(&held, &file)?,
                        Tried::Busy(waiting) => return Ok(Looked::Busy(waiting)),
                        Tried::NoFolder => *lock(&self.view) = None,
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Repairs this file, whose read failed, if it is damaged: without the lock it may only have been replaced.
    pub(super) fn repair(&self, held: &JobLock, file: &Path) -> Result<(), LogError> {
        let mut slot = lock(&self.view);
        *slot = None;
        if let Some(committed) = held.committed()? {
            repair_end(&self.folder, held, committed)?;
            fill_holes(&self.folder, held)?;
        }
        repair_file(&self.folder, held, file)
    }

    /// The next records up to the committed offset, which may be none; `None`: the lock is needed.
    fn read_to_old_mark(&self, after: u64, max_bytes: usize) -> Result<Option<Page>, LogError> {
        let Some(view) = LogState::of_old_offset(&self.folder)? else { return Ok(None) };
        let planned = PagePlan::new(&view, after);
        if planned.wanted.is_beyond_end() {
            return Ok(None);
        }
        let Some(plan) = &planned.plan else { return Ok(Some(planned.wanted.page(Vec::new(), false))) };
        match plan.read(&self.folder, max_bytes as u64) {
            Ok(found) => Ok(Some(planned.wanted.page(found.records, false))),
            // It was replaced, or is damaged; the holder of the lock can find out, or repairs it.
            Err(error) if error.is_not_found() => Ok(None),
            Err(LogError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
