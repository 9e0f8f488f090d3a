//! The list of jobs: what anyone may see who reaches this server. It opens no page.

use axum::extract::{Query, State};
use axum::response::Html;
use maud::html;
use serde::Deserialize;

use super::fragments::{badge, duration, moment};
use super::{Refusal, page};
use crate::clock;
use crate::job::JobState;
use crate::store::JobFilter;
use crate::web::Web;

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
) -> Result<Html<String>, Refusal> {
    let filter = JobFilter {
        user_id: Some(user.clone()).filter(|it| !it.is_empty()),
        states: JobState::NAMES.into_iter().filter(|it| *it == state).collect(),
        before: before.parse().ok(),
        // One more tells whether there is another page.
        limit: PAGE_JOBS + 1,
    };
    let mut records = web.store.list(filter).await.map_err(|error| Refusal::fault(&error))?;
    let more = records.len() > PAGE_JOBS as usize;
    records.truncate(PAGE_JOBS as usize);
    let now = clock::now_ms();
    let body = html! {
        h1 { "Jobs" }
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
        @if records.is_empty() { p { "No such job." } } @else {
            div .scrolls tabindex="0" role="region" aria-label="Jobs" {
                table {
                    thead { tr { th scope="col" { "Job" } th scope="col" { "State" } th scope="col" { "User" }
                        th scope="col" { "Begun" } th scope="col" { "Took" } } }
                    tbody {
                        @for record in &records {
                            tr {
                                td { a href={ "/jobs/" (record.job.id) } { code { (record.job.id) } } }
                                td { (badge(&record.job)) }
                                td { (record.user_id) }
                                td { (moment(record.created_ms)) }
                                td { (duration(record.ended_ms.unwrap_or(now) - record.created_ms)) }
                            }
                        }
                    }
                }
            }
        }
        @if let Some(last) = records.last().filter(|_| more) {
            p { a href={ "/jobs?state=" (state) "&user=" (encoded(&user)) "&before=" (last.job.id) } { "Older" } }
        }
    };
    Ok(Html(page("Jobs", None, &body).into_string()))
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|it| if plain(it) { char::from(it).to_string() } else { format!("%{it:02X}") }).collect()
}
