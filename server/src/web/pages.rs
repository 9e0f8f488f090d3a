//! Web pages, complete without JavaScript. `summary` contains what changes while a job runs.

mod cause;
mod chart;
mod display;
mod format;
mod list;
mod search;
mod statements;
mod summary;
mod timeline;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Form, Router};
use futures::stream;
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;
use sqlflow_identity::Caller;
use sqlflow_job::{CursorToken, JobId, JobKey};
use sqlflow_job_store::JobRecord;
use sqlflow_proto::record::record::Payload;

use super::tail::{Tail, tail};
use super::view::READ_TIME;
use super::{Web, assets, identity};
use crate::access::{Action, Right, Via, audit};

pub(super) use summary::summary;

/// Bytes of records that are read at once.
const PAGE_BYTES: usize = 256 << 10;
/// Maximum bytes of a program that are shown.
const SHOWN_SQL: usize = 64 << 10;

pub(super) fn routes() -> Router<Web> {
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/jobs") }))
        .route("/jobs", get(list::list))
        .route("/sign-in", post(identity::sign_in))
        .route("/sign-out", post(identity::sign_out))
        .route("/jobs/{id}", get(job).post(enter))
        .route("/jobs/{id}/log", get(download))
        .route("/jobs/{id}/display/{position}", get(display::display))
        .route("/jobs/{id}/search", get(search::search))
        .merge(assets())
}

/// Query parameters of every address of a job.
#[derive(Deserialize)]
pub(super) struct Key {
    #[serde(default)]
    pub(super) key: String,
}

/// Why a page cannot be shown.
pub(super) struct Refusal(StatusCode, Markup);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Html(page("Job", None, &self.1).into_string())).into_response()
    }
}

impl Refusal {
    /// With this code and content.
    pub(super) fn new(code: StatusCode, body: Markup) -> Self {
        Self(code, body)
    }

    fn fault(error: &dyn std::error::Error) -> Self {
        let body = html! { h1 { "Not now" } p { (error.to_string()) } };
        Self(StatusCode::SERVICE_UNAVAILABLE, body)
    }
}

impl Web {
    /// Loads the job for a reader, if the key is valid or the caller may access it.
    pub(super) async fn open(&self, id: &str, key: &str, caller: &Caller) -> Result<JobRecord, Refusal> {
        let record = self.find(id, key, caller).await?;
        // Their own pages have keys as well.
        let is_theirs = caller.may_access(record.principal.as_deref());
        let right = if is_theirs { Right::Identity } else { Right::Link };
        audit(caller, Action::Read, &record.job.id, right, Via::Page);
        Ok(record)
    }

    async fn find(&self, id: &str, key: &str, caller: &Caller) -> Result<JobRecord, Refusal> {
        let locked = || locked(self, &format!("/jobs/{id}"));
        let Ok(id) = id.parse::<JobId>() else { return Err(locked()) };
        let has_key = self.links.opens(key, &id);
        if !has_key && !caller.is_allowed() {
            return Err(locked());
        }
        match self.store.load(&id).await {
            Ok(Some(record)) if has_key || caller.may_access(record.principal.as_deref()) => Ok(record),
            // Without a right, the response does not reveal whether the job exists.
            Ok(_) if !has_key => Err(locked()),
            Ok(_) => {
                let body = html! { h1 { "Gone" } p { "This job is older than the server keeps jobs." } };
                Err(Refusal(StatusCode::NOT_FOUND, body))
            }
            Err(error) => Err(Refusal::fault(&error)),
        }
    }
}

fn locked(web: &Web, path: &str) -> Refusal {
    let body = html! {
        h1 { "This job's page needs its key" }
        p {
            "Open it by the link that came with the job, which " code { "sqlflowctl describe" } " prints again. This browser then "
            "finds it in the list until the link expires. Or show the job's token:"
        }
        form method="post" {
            label for="token" { "Token" }
            input #token name="token" type="password" required autocomplete="off";
            button { "Open" }
        }
        @if let Some(link) = super::oidc::sign_in_link(web, path) { (link) }
    };
    Refusal(StatusCode::FORBIDDEN, body)
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    token: String,
}

/// Redirects from a job's token to its page.
async fn enter(
    State(web): State<Web>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Form(entry): Form<Entry>,
) -> Result<Redirect, Refusal> {
    identity::from_this_site(&headers)?;
    let token = entry.token.trim().parse::<CursorToken>();
    let Ok(CursorToken { key: JobKey::Token(token), .. }) = token else { return Err(locked(&web, "/jobs")) };
    match web.store.resolve(token.hash()).await {
        Ok(Some(id)) => {
            audit(&caller, Action::Read, &id, Right::Token, Via::Page);
            Ok(Redirect::to(&web.links.path(&id)))
        }
        Ok(None) => Err(locked(&web, "/jobs")),
        Err(error) => Err(Refusal::fault(&error)),
    }
}

async fn job(
    State(web): State<Web>,
    Path(id): Path<String>,
    Query(Key { key }): Query<Key>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    if key.is_empty()
        && let Some(known) = web.links.remembered(&id, &headers)
    {
        return Ok(Redirect::to(&known).into_response());
    }
    if key.is_empty() {
        let record = web.find(&id, &key, &caller).await?;
        // The page's links have the key.
        return Ok(Redirect::to(&web.links.path_of_visit(&record.job.id)).into_response());
    }
    let record = web.open(&id, &key, &caller).await?;
    let view = web.views.of(&record.job.id);
    let fault = |error: sqlflow_result_log::LogError| Refusal::fault(&error);
    let summary = summary(&web, &record, &view, READ_TIME).await.map_err(fault)?;
    let Tail { lines, next, is_cut } = tail(web.log.as_ref(), &record.job.id).await.map_err(fault)?;
    let sql =
        web.store.program(&record.job.id).await.map_err(|error| Refusal::fault(&error))?.unwrap_or_default();
    let is_live = !(record.job.state.is_final() && summary.is_whole);
    let body = html! {
        p #announced .for-listeners role="status" {}
        div #summary { (summary.markup) }
        section aria-labelledby="log-title" {
            h2 #log-title { "Log" }
            form .tools role="search" action={ "/jobs/" (id) "/search" } {
                input type="hidden" name="key" value=(key);
                label for="q" { "Search" }
                input #q name="q" type="search" autocomplete="off";
                button { "Search all" }
                label .script-only hidden { input #follow type="checkbox" checked; " Follow" }
                a href={ "/jobs/" (id) "/log?key=" (key) } download={ (id) ".log" } { "Download" }
            }
            @if is_cut { p .dim { "The last " (format::counted(lines.len() as u64, "line")) "; download the log for all." } }
            div #log tabindex="0" role="log" aria-live="off" aria-label="Output of the job"
                data-live=[is_live.then(|| format!("/jobs/{id}/live?key={key}&after={next}"))] {
                @for piece in &lines { span class=(piece.kind.name()) { (piece.text) } }
            }
        }
        section aria-labelledby="sql-title" {
            h2 #sql-title { "Program" }
            pre #sql tabindex="0" { (sql[..sql.floor_char_boundary(SHOWN_SQL)].trim()) }
        }
        @if is_live { noscript { p { a href={ "/jobs/" (id) "?key=" (key) } { "Load again" } } } }
    };
    let title = if record.job.title.is_empty() { format!("Job {id}") } else { record.job.title.clone() };
    let html = Html(page(&title, Some(&record), &body).into_string());
    let cookie = web.links.cookie(&record.job.id, &key);
    Ok((AppendHeaders(cookie.map(|it| (header::SET_COOKIE, it))), html).into_response())
}

/// A complete document.
pub(super) fn page(title: &str, record: Option<&JobRecord>, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) @if let Some(record) = record { " · " (record.job.state.name()) } " · SQLFlow" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/assets/page.css";
                script defer src="/assets/page.js" {}
            }
            body {
                header { nav aria-label="Pages" { a href="/jobs" { "SQLFlow jobs" } } }
                main { (body) }
            }
        }
    }
}

/// The output of all attempts, byte for byte, in the order of the log.
async fn download(
    State(web): State<Web>,
    Path(id): Path<String>,
    Query(Key { key }): Query<Key>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refusal> {
    let record = web.open(&id, &key, &caller).await?;
    let chunks = stream::try_unfold((web, record.job.id, 0), |(web, id, after)| async move {
        let page = web.log.read(&id, after, PAGE_BYTES).await?;
        let Some(last) = page.records.last().map(|it| it.position) else {
            return Ok::<_, sqlflow_result_log::LogError>(None);
        };
        let mut bytes = Vec::new();
        for stored in page.records {
            match stored.record.and_then(|it| it.payload) {
                Some(Payload::Output(output)) => bytes.extend_from_slice(&output.data),
                Some(Payload::Gap(_)) => bytes.extend_from_slice("\n[output is missing here]\n".as_bytes()),
                _ => {}
            }
        }
        Ok(Some((bytes, (web, id, last))))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{id}.log\"")),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}
