//! List of jobs: a user's own, and for administrators everybody's. It contains no keys and no data: of a program its
//! first words without strings and comments, of a failure its cause.

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Html;
use maud::{Markup, html};
use serde::Deserialize;
use sqlflow_identity::Caller;
use sqlflow_job::{JobId, JobState};
use sqlflow_job_store::{JobFilter, JobRecord};
use sqlflow_os::clock;

use super::cause;
use super::format::{badge, duration, kinds, models, moment, step_name};
use super::{Refusal, page};
use crate::access::{Via, audit_list};
use crate::web::{Web, identity};

const PAGE_JOBS: u32 = 50;

#[derive(Deserialize)]
pub(super) struct Filter {
    #[serde(default)]
    state: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    before: String,
}

pub(super) async fn list(
    State(web): State<Web>,
    Query(Filter { state, user, before }): Query<Filter>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Html<String>, Refusal> {
    let caller = identity::signed_in(&web, &caller)?;
    if !state.is_empty() && !JobState::NAMES.contains(&state.as_str()) {
        return Err(wrong(&format!("there is no state “{state}”; there are {}", JobState::NAMES.join(", "))));
    }
    let oldest: Option<JobId> = match before.as_str() {
        "" => None,
        id => Some(
            id.parse().map_err(|_| wrong(&format!("“{id}” is no job id; follow the links of the list")))?,
        ),
    };
    let filter = JobFilter {
        principal: (!caller.is_admin()).then(|| caller.name().to_owned()),
        user_id: Some(user.clone()).filter(|it| !it.is_empty()),
        states: JobState::NAMES.into_iter().filter(|it| *it == state).collect(),
        before: oldest,
        // One more shows whether there is another page.
        limit: PAGE_JOBS + 1,
    };
    audit_list(caller, Via::Page);
    let mut records = web.store.list(filter).await.map_err(|error| Refusal::fault(&error))?;
    let more = records.len() > PAGE_JOBS as usize;
    records.truncate(PAGE_JOBS as usize);
    let now = clock::now_ms();
    let address = |before: &str| format!("/jobs?state={}&user={}{before}", encoded(&state), encoded(&user));
    let body = html! {
        h1 { "Jobs" }
        @if identity::has_session(&web, &headers) {
            form .tools method="post" action="/sign-out" { span { (caller.name()) } button { "Sign out" } }
        }
        form .tools role="search" {
            label for="state" { "State" }
            select #state name="state" {
                option value="" { "all" }
                @for name in JobState::NAMES { option value=(name) selected[name == state] { (name) } }
            }
            label for="user" { "User" }
            input #user name="user" value=(user);
            button { "Filter" }
        }
        @if records.is_empty() {
            p { @if before.is_empty() && state.is_empty() && user.is_empty() {
                "There is no job yet. Run one: " code { "sqlflowctl run -e 'SELECT 1'" }
            } @else { "No such job." } }
        } @else {
            // On a narrow screen rows become blocks; these roles keep the table for screen readers.
            table .jobs role="table" {
                thead role="rowgroup" { tr role="row" {
                    @for name in ["State", "Job", "Models", "User", "Begun", "Took"] { th scope="col" role="columnheader" { (name) } }
                } }
                tbody role="rowgroup" { @for record in &records { (row(record, now)) } }
            }
        }
        nav .paging aria-label="Pages of the list" {
            @if !before.is_empty() { a href=(address("")) { "Newest" } }
            @if let Some(last) = records.last().filter(|_| more) {
                a rel="next" href=(address(&format!("&before={}", last.job.id))) { "Older" }
            }
        }
    };
    Ok(Html(page("Jobs", None, &body).into_string()))
}

fn wrong(why: &str) -> Refusal {
    let body = html! { h1 { "Cannot list jobs" } p { (why) } p { a href="/jobs" { "All jobs" } } };
    Refusal(StatusCode::BAD_REQUEST, body)
}

fn row(record: &JobRecord, now: i64) -> Markup {
    let job = &record.job;
    let title = if job.title.is_empty() { job.id.as_str() } else { &job.title };
    let models = models(job).join(", ");
    html! {
        tr role="row" {
            td role="cell" { (badge(job.state.name())) }
            td .what role="cell" {
                a href={ "/jobs/" (job.id) } { (title) }
                p .dim { (kinds(job)) " · " code { (job.id) } }
                @if let Some(why) = failure(record) { p class=(job.state.name()) { (why) } }
            }
            td role="cell" data-name="Models" { (models) }
            td role="cell" data-name="User" { (record.user_id) }
            td role="cell" data-name="Begun" { (moment(record.created_ms)) }
            td role="cell" data-name="Took" { (duration(record.ended_ms.unwrap_or(now) - record.created_ms)) }
        }
    }
}

/// Kind of the failure, its step, and its cause as far as everybody may see it.
fn failure(record: &JobRecord) -> Option<String> {
    let JobState::Failed(failure) = &record.job.state else { return None };
    let words = failure.cause.in_words();
    let place = record.job.current_step().and_then(|index| {
        let step = record.job.steps.get(index as usize)?;
        Some(step_name(index as usize, step))
    });
    let place = place.map_or_else(String::new, |place| format!(", in {place}"));
    // The message of a cancel has no more than its kind.
    let cause = (!failure.cause.is_cancel()).then(|| cause::of_message(&failure.message)).flatten();
    let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
    Some(format!("{words}{place}{cause}"))
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|it| if plain(it) { char::from(it).to_string() } else { format!("%{it:02X}") }).collect()
}
