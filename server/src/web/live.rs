//! Live updates of a job's web page: server-sent events with the summary when it changes, and with the growing log.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Display;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures::Stream;
use serde::Deserialize;
use sqlflow_identity::Caller;
use sqlflow_job::JobId;
use sqlflow_job_store::known_job;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::Web;
use super::log_text::{LogText, Piece, PieceKind};
use super::pages;
use crate::admission::{RETRY_AFTER, Resource, Slot};
use crate::read_recorder::ReadRecorder;
use crate::retry_hint;
use sqlflow_sync::lock;

/// Maximum number of pages with live updates; further ones get 503.
const MAX_PAGES: usize = 512;
/// Minimum time between two reads of the log, so that many small records are sent together.
const PACE: Duration = Duration::from_millis(100);
/// Period of reading the log without a signal: other servers may write too.
const POLL_PERIOD: Duration = Duration::from_millis(500);
/// Minimum time between two summaries, which cost more than a line.
const SUMMARY_PERIOD: Duration = Duration::from_millis(500);
/// Timeout for a summary's reads of an unread log, which delay lines.
const READ_TIME: Duration = Duration::from_millis(250);
/// A page that is further behind skips to this distance from the end: at most 4 MB, mostly far less.
const TAIL_RECORDS: u64 = 64;
/// Maximum bytes of records per page and read, about 5 MB/s. The rest is left out with a notice: a browser must keep
/// up.
const LOOK_BYTES: usize = 512 << 10;

static PAGES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MAX_PAGES)));

/// Maximum number of pages of one job with live updates. Its link may be anywhere, and leaves room for other jobs' pages.
const MAX_PAGES_OF_JOB: usize = 64;

static PAGES_OF_JOBS: LazyLock<Mutex<HashMap<JobId, usize>>> = LazyLock::new(Mutex::default);

/// An open page of a job.
struct JobSlot(JobId);

impl JobSlot {
    /// `None`: the job has as many as it may.
    fn take(job: &JobId) -> Option<Self> {
        let mut all = lock(&PAGES_OF_JOBS);
        let open = all.entry(job.clone()).or_default();
        if *open >= MAX_PAGES_OF_JOB {
            return None;
        }
        *open += 1;
        Some(Self(job.clone()))
    }
}

impl Drop for JobSlot {
    fn drop(&mut self) {
        let mut all = lock(&PAGES_OF_JOBS);
        if let Some(open) = all.get_mut(&self.0) {
            *open -= 1;
            if *open == 0 {
                all.remove(&self.0);
            }
        }
    }
}

pub(super) fn routes() -> Router<Web> {
    Router::new().route("/jobs/{id}/live", get(live))
}

#[derive(Deserialize)]
struct Live {
    #[serde(default)]
    key: String,
    #[serde(default)]
    after: u64,
}

async fn live(
    State(web): State<Web>,
    Path(id): Path<String>,
    Query(Live { key, after }): Query<Live>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let record = match web.open(&id, &key, &caller).await {
        Ok(record) => record,
        Err(refusal) => return refusal.into_response(),
    };
    let Ok(permit) = Arc::clone(&PAGES).try_acquire_owned() else {
        return not_now(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open");
    };
    // A browser that reconnects sends its position.
    let last = headers.get("last-event-id").and_then(|it| it.to_str().ok()?.parse().ok());
    let slot = match web.admission.take_of_reader(Resource::Page, &caller, &record.job.id) {
        Ok(slot) => slot,
        Err(exceeded) => return not_now(StatusCode::TOO_MANY_REQUESTS, exceeded),
    };
    let Some(of_job) = JobSlot::take(&record.job.id) else {
        let why = format!("{MAX_PAGES_OF_JOB} pages of this job are open, which is the most");
        return not_now(StatusCode::TOO_MANY_REQUESTS, why);
    };
    let events = follow(web, record.job.id, last.unwrap_or(after), (permit, slot, of_job));
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

fn not_now(code: StatusCode, why: impl Display) -> Response {
    retry_hint::response((code, format!("{why}\n")), RETRY_AFTER)
}

fn follow(
    web: Web,
    job: JobId,
    after: u64,
    slots: (OwnedSemaphorePermit, Option<Slot>, JobSlot),
) -> impl Stream<Item = Result<Event, Infallible>> {
    // A slow page delays only its own task.
    let (sender, events) = mpsc::channel(4);
    tokio::spawn(async move {
        let _slots = slots;
        let shutdown = web.shutdown.clone();
        tokio::select! {
            () = send(&web, &job, after, &sender) => {}
            () = sender.closed() => {}
            () = shutdown.cancelled() => {}
        }
        web.views.evict();
    });
    ReceiverStream::new(events)
}

async fn send(web: &Web, job: &JobId, mut after: u64, events: &mpsc::Sender<Result<Event, Infallible>>) {
    let mut text = LogText::default();
    let mut last_sent = String::new();
    let mut reads = ReadRecorder::default();
    let view = web.views.of(job);
    let mut summary_due = tokio::time::Instant::now();
    let mut changes = web.store.watch(job);
    let Ok(Some(mut record)) = web.store.load(job).await else { return };
    loop {
        // The state first: once it is final, the log is complete.
        if changes.has_changed().unwrap_or(true) {
            match known_job::seen(&mut changes) {
                Some(known) if !known.state.is_final() => record.job = Arc::unwrap_or_clone(known),
                // Only the store has the end time.
                Some(_) | None => {
                    let Ok(Some(changed)) = web.store.load(job).await else { return };
                    record = changed;
                }
            }
        }
        let mut appended = web.log.watch(job);
        reads.record(&web.store, &record);
        let Ok(page) = web.log.read(job, after, LOOK_BYTES).await else { return };
        let mut pieces: Vec<_> = page.records.iter().filter_map(|it| text.take(it)).collect();
        after = page.records.last().map_or(after.min(page.last_position), |it| it.position);
        let behind = page.behind;
        if behind > TAIL_RECORDS {
            let Ok(begin) = web.log.tail(job, TAIL_RECORDS).await else { return };
            after = begin.max(after);
            let left_out = "… more than can be read; download the log for all of it".to_owned();
            pieces.push(Piece { kind: PieceKind::Notice, text: left_out });
        }
        let mut is_over = record.job.state.is_final() && behind == 0 && page.is_current;
        if !pieces.is_empty() && events.send(Ok(log_event(&pieces, after))).await.is_err() {
            return;
        }
        if tokio::time::Instant::now() >= summary_due || is_over {
            summary_due = tokio::time::Instant::now() + SUMMARY_PERIOD;
            let Ok(summary) = pages::summary(web, &record, &view, READ_TIME).await else { return };
            is_over &= summary.is_whole;
            let summary = summary.markup.into_string();
            if summary != last_sent {
                last_sent.clone_from(&summary);
                if events.send(Ok(Event::default().event("summary").data(summary))).await.is_err() {
                    return;
                }
            }
        }
        if is_over {
            let _ = events.send(Ok(Event::default().event("end").data(record.job.state.name()))).await;
            return;
        }
        tokio::time::sleep(PACE).await;
        if behind == 0 {
            tokio::select! {
                _ = changes.changed() => changes.mark_changed(),
                _ = appended.changed() => {}
                () = tokio::time::sleep(POLL_PERIOD) => {}
            }
        }
    }
}

/// `[["out", "text"], …]`
fn log_event(pieces: &[Piece], position: u64) -> Event {
    let pieces: Vec<_> = pieces.iter().map(|it| (it.kind.name(), it.text.as_str())).collect();
    let data = serde_json::to_string(&pieces).unwrap_or_default();
    Event::default().event("log").id(position.to_string()).data(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_one_job_are_bounded() {
        let (one, other) = (JobId::generate(), JobId::generate());
        let held: Vec<_> = (0..MAX_PAGES_OF_JOB).map(|_| JobSlot::take(&one).unwrap()).collect();
        assert!(JobSlot::take(&one).is_none() && JobSlot::take(&other).is_some());
        drop(held);
        assert!(JobSlot::take(&one).is_some());
        let known = lock(&PAGES_OF_JOBS).keys().filter(|it| [&one, &other].contains(it)).count();
        assert_eq!(known, 0);
    }
}
