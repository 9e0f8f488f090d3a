//! Lines of a job's whole log that contain a text. The time is linear in the log, and ends at a deadline. Pieces of the log
//! are searched on threads for work that may take long, so that other requests are served meanwhile.

use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Response};
use maud::html;
use serde::Deserialize;
use sqlflow_identity::Caller;
use sqlflow_job::JobId;
use sqlflow_proto::record::StoredRecord;
use sqlflow_result_log::{LogError, ResultLog};

use super::{PAGE_BYTES, Refusal, page};
use crate::admission::{RETRY_AFTER, Resource};
use crate::retry_hint;
use crate::web::Web;
use crate::web::log_text::{LogText, Piece, PieceKind};

/// Maximum number of lines in a search result, and bytes of each.
const FOUND_LINES: usize = 200;
const SHOWN_BYTES: usize = 4000;
/// Bytes of a line that are searched as one.
const LINE_BYTES: usize = 64 << 10;
/// Maximum length of the text.
const MAX_TEXT: usize = 1000;
/// Timeout for a search.
const SEARCH_TIME: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
pub(super) struct Search {
    #[serde(default)]
    key: String,
    #[serde(default)]
    q: String,
}

pub(super) async fn search(
    State(web): State<Web>,
    Path(id): Path<String>,
    Query(Search { key, q }): Query<Search>,
    Extension(caller): Extension<Caller>,
) -> Result<Html<String>, Response> {
    let record = web.open(&id, &key, &caller).await.map_err(Refusal::into_response)?;
    if q.len() > MAX_TEXT {
        let body = html! { h1 { "Too long" } p { "Search for at most " (MAX_TEXT) " bytes." } };
        return Err(Refusal::new(StatusCode::BAD_REQUEST, body).into_response());
    }
    let slot = web.admission.take_of_reader(Resource::Search, &caller, &record.job.id);
    let _slot = slot.map_err(|exceeded| {
        let body = html! { h1 { "Not now" } p { (exceeded.to_string()) } };
        retry_hint::response(Refusal::new(StatusCode::TOO_MANY_REQUESTS, body), RETRY_AFTER)
    })?;
    let Found { lines, stopped } = find(web.log.as_ref(), &record.job.id, &q, SEARCH_TIME)
        .await
        .map_err(|error| Refusal::fault(&error).into_response())?;
    let body = html! {
        h1 { "Lines with “" (q) "”" }
        p { a href={ "/jobs/" (id) "?key=" (key) } { "Back to the job" } }
        @if let Some(unread) = stopped {
            p role="status" {
                "The search has stopped after " (SEARCH_TIME.as_secs()) " seconds: the last " (unread)
                " records of the log are not searched. Download the log for all."
            }
        }
        @if lines.len() >= FOUND_LINES { p .dim { "The first " (FOUND_LINES) " of them." } }
        @if lines.is_empty() { p { "None." } } @else {
            div #log tabindex="0" role="region" aria-label="Lines" {
                @for piece in &lines { span class=(piece.kind.name()) { (piece.text) "\n" } }
            }
        }
    };
    Ok(Html(page(&format!("Search in job {id}"), None, &body).into_string()))
}

/// Result of a search.
struct Found {
    lines: Vec<Piece>,
    /// Number of records that were not searched because the time was over.
    stopped: Option<u64>,
}

async fn find(log: &dyn ResultLog, job: &JobId, what: &str, time: Duration) -> Result<Found, LogError> {
    let (begun, mut after) = (Instant::now(), 0);
    let mut searcher = Searcher::new(what);
    loop {
        let read = log.read(job, after, PAGE_BYTES).await?;
        let Some(last) = read.records.last() else { break };
        after = last.position;
        let records = read.records;
        // The runtime is shutting down if there is no result.
        let Ok(searched) = tokio::task::spawn_blocking(move || searcher.take_all(&records)).await else {
            return Ok(Found { lines: Vec::new(), stopped: Some(read.behind) });
        };
        searcher = searched;
        if searcher.is_full() {
            break;
        }
        if begun.elapsed() >= time && read.behind > 0 {
            return Ok(Found { lines: searcher.finish(), stopped: Some(read.behind) });
        }
    }
    Ok(Found { lines: searcher.finish(), stopped: None })
}

/// Finds lines in records.
struct Searcher {
    what: String,
    text: LogText,
    /// Unfinished lines of stdout and stderr.
    unfinished: [String; 2],
    found: Vec<Piece>,
}

impl Searcher {
    fn new(what: &str) -> Self {
        let text = LogText::default();
        Self { what: what.to_lowercase(), text, unfinished: Default::default(), found: Vec::new() }
    }

    fn is_full(&self) -> bool {
        self.found.len() >= FOUND_LINES
    }

    fn take_all(mut self, records: &[StoredRecord]) -> Self {
        for stored in records {
            if self.is_full() {
                break;
            }
            if let Some(piece) = self.text.take(stored) {
                self.take(&piece);
            }
        }
        self
    }

    /// Each byte is looked at once.
    fn take(&mut self, piece: &Piece) {
        let at = match piece.kind {
            PieceKind::Notice => {
                self.keep_if_found(piece.kind, &piece.text);
                return;
            }
            PieceKind::Stdout => 0,
            PieceKind::Stderr => 1,
        };
        for part in piece.text.split_inclusive(['\n', '\r']) {
            let mut rest = part;
            while !rest.is_empty() {
                let end = rest.ceil_char_boundary(LINE_BYTES - self.unfinished[at].len());
                self.unfinished[at].push_str(&rest[..end]);
                rest = &rest[end..];
                if self.unfinished[at].len() >= LINE_BYTES {
                    self.end_line(at, piece.kind);
                }
            }
            if part.ends_with(['\n', '\r']) {
                self.end_line(at, piece.kind);
            }
        }
    }

    fn end_line(&mut self, at: usize, kind: PieceKind) {
        let mut line = std::mem::take(&mut self.unfinished[at]);
        self.keep_if_found(kind, line.trim_end());
        line.clear();
        self.unfinished[at] = line;
    }

    fn finish(mut self) -> Vec<Piece> {
        for (at, kind) in [PieceKind::Stdout, PieceKind::Stderr].into_iter().enumerate() {
            self.end_line(at, kind);
        }
        self.found
    }

    fn keep_if_found(&mut self, kind: PieceKind, line: &str) {
        if !line.is_empty() && !self.is_full() && line.to_lowercase().contains(&self.what) {
            let shown = &line[..line.floor_char_boundary(SHOWN_BYTES)];
            let text = if shown.len() < line.len() { format!("{shown} …") } else { shown.to_owned() };
            self.found.push(Piece { kind, text });
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::record::{Output, Record, output::Stream, record::Payload};
    use sqlflow_result_log::{Entry, Producer};

    use super::*;
    use crate::fixture;

    fn search(what: &str, pieces: &[(PieceKind, &str)]) -> Vec<String> {
        let mut searcher = Searcher::new(what);
        for (kind, text) in pieces {
            searcher.take(&Piece { kind: *kind, text: (*text).to_owned() });
        }
        searcher.finish().into_iter().map(|it| it.text).collect()
    }

    #[test]
    fn lines_are_found_across_pieces_and_streams() {
        use PieceKind::{Notice, Stderr, Stdout};
        let pieces = [
            (Stdout, "one tw"),
            (Stderr, "Two\r"),
            (Stdout, "o\nthree\n"),
            (Notice, "two more"),
            (Stderr, "two"),
        ];
        assert_eq!(search("TWO", &pieces), ["Two", "one two", "two more", "two"]);
        assert_eq!(search("four", &pieces), [""; 0]);
    }

    #[test]
    fn long_lines_are_cut_and_searched_in_parts() {
        let line = format!("{}needle{}\nneedle\n", "é".repeat(LINE_BYTES), "x".repeat(2 * LINE_BYTES));
        let found = search("needle", &[(PieceKind::Stdout, &line)]);
        assert_eq!(found.len(), 2);
        assert!(found[0].len() <= SHOWN_BYTES + 4 && found[1] == "needle", "{found:?}");
    }

    #[tokio::test]
    async fn search_stops_at_its_deadline_and_says_how_much_it_left() {
        let dir = tempfile::tempdir().unwrap();
        let log = fixture::log(&dir.path().join("log"));
        let job = JobId::generate();
        let entry = |text: &str| {
            let data = format!("{text}{}\n", " ".repeat(PAGE_BYTES)).into_bytes().into();
            let output = Output { stream: Stream::Stdout.into(), offset: 0, data };
            let record = Record { payload: Some(Payload::Output(output)), ..Record::default() };
            Entry { producer: Producer::server(0), record }
        };
        log.append(&job, vec![entry("needle 1"), entry("needle 2"), entry("needle 3")]).await.unwrap();
        let found = find(&log, &job, "needle", Duration::ZERO).await.unwrap();
        assert_eq!((found.lines.len(), found.stopped), (1, Some(2)));
        let found = find(&log, &job, "needle", SEARCH_TIME).await.unwrap();
        assert_eq!((found.lines.len(), found.stopped), (3, None));
    }

    /// With quadratic time, it would take minutes.
    #[test]
    fn time_is_linear_in_the_length_of_a_piece() {
        for text in ["\n".repeat(4 << 20), "\r".repeat(4 << 20), "x".repeat(16 << 20)] {
            assert_eq!(search("needle", &[(PieceKind::Stdout, &text)]), [""; 0]);
        }
    }
}
