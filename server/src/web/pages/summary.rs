//! The part of a job's page that changes while it runs: state, progress, results, phases, models, and the reason for
//! a failure.

use std::time::Duration;

use maud::{Markup, html};
use sqlflow_job::{Attempt, Failure, Job, JobState, Phase, Step};
use sqlflow_job_store::JobRecord;
use sqlflow_os::clock;
use sqlflow_proto::record::EarlierModel;
use sqlflow_result_log::LogError;
use sqlflow_text::mention::mention;

use super::format::{badge, duration, kinds, moment, size};
use super::statements;
use super::timeline::timeline;
use crate::trace;
use crate::web::Web;
use crate::web::view::{JobView, Progress, SharedView};

/// A summary, and whether it covers the whole log.
pub(in crate::web) struct Summary {
    pub(in crate::web) markup: Markup,
    pub(in crate::web) is_whole: bool,
}

/// Renders the summary from the record and the job's view. Reads the log for this time at most.
pub(in crate::web) async fn summary(
    web: &Web,
    record: &JobRecord,
    view: &SharedView,
    time: Duration,
) -> Result<Summary, LogError> {
    let mut view = view.lock().await;
    view.refresh(&record.job.id, web.log.as_ref(), time).await?;
    name_statements(web, record, &mut view).await;
    let view = &*view;
    let page = format!("/jobs/{}", record.job.id);
    let key = web.links.key(&record.job.id);
    let markup = html! {
        (head(web, record, view))
        @if let JobState::Failed(failure) = &record.job.state { (end(record, view, failure)) }
        (progress(record, view))
        (statements::statements(record, view, &|position| format!("{page}/display/{position}?key={key}")))
        (timeline(record))
        (models(view))
        (notices(view))
    };
    Ok(Summary { markup, is_whole: view.unread == 0 })
}

/// Looks up the first words of statements that have started. Without them a page shows their numbers.
async fn name_statements(web: &Web, record: &JobRecord, view: &mut JobView) {
    if view.statements.nameless().next().is_none() {
        return;
    }
    let Ok(headings) = web.store.headings(&record.job.id).await else { return };
    for (index, heading) in view.statements.nameless() {
        *heading = Some(headings.get(index as usize).cloned().unwrap_or_default());
    }
}

fn head(web: &Web, record: &JobRecord, view: &JobView) -> Markup {
    let job = &record.job;
    let now = record.ended_ms.unwrap_or_else(clock::now_ms);
    let all: u32 = job.steps.iter().map(|it| it.statement_count).sum();
    html! {
        h1 { @if job.title.is_empty() { "Job " code { (job.id) } } @else { (job.title) } }
        p .state { (badge(job.state.name())) " " (sentence(job, view)) }
        @if view.unread > 0 {
            p .dim role="note" { "The log is still being read: " (view.unread) " records of it are not in what follows." }
        }
        dl .facts {
            dt { "Job" } dd { code { (job.id) } }
            dt { "Does" } dd { (kinds(job)) }
            dt { "Begun" } dd { (moment(record.created_ms)) }
            dt { @if record.ended_ms.is_some() { "Took" } @else { "For" } } dd { (duration(now - record.created_ms)) }
            dt { "Statements" } dd { (view.statements.done()) " of " (all) " done" }
            @if !record.user_id.is_empty() { dt { "User" } dd { (record.user_id) } }
            @if let Some(url) = trace_url(web, job) { dt { "Trace" } dd { a href=(url) { "Show" } } }
        }
    }
}

/// Its pending reason, or its activity.
fn sentence(job: &Job, view: &JobView) -> String {
    match &job.state {
        JobState::Succeeded | JobState::Failed(_) => return String::new(),
        JobState::Pending | JobState::Running => {}
    }
    if let Some(failure) = &job.cancel {
        return format!("is being ended: {}", failure.message);
    }
    let attempt = job.current_step().and_then(|step| job.steps.get(step as usize)?.attempts.last());
    let runs = attempt.is_some_and(|it| matches!(it.phase, Phase::Attached { .. }));
    match view.notices.back() {
        // A running job has no pending reason.
        Some((_, notice)) if !runs => notice.text.clone(),
        _ if runs => String::new(),
        _ => "waits to be started".to_owned(),
    }
}

/// The reason for a failure: shown here only.
fn end(record: &JobRecord, view: &JobView, failure: &Failure) -> Markup {
    let job = &record.job;
    let is_cancel = failure.cause.is_cancel();
    let outcome = job.steps.iter().filter_map(Step::last_run).next_back().and_then(Attempt::outcome);
    let stopped = view.statements.iter().rev().find(|(_, it)| it.duration_micros.is_none());
    html! {
        section class=(if is_cancel { "end cancelled" } else { "end failed" }) aria-labelledby="end-title" {
            h2 #end-title { @if is_cancel { "Why it was cancelled" } @else { "Why it failed" } }
            p .why { (failure.message) }
            @if let Some((index, statement)) = stopped {
                p { "In " a href={ "#statement-" (index + 1) } { "statement " (index + 1) }
                    @if let Some(heading) = statement.heading.as_ref().filter(|it| !it.is_empty()) {
                        ": " code { (mention(heading, statements::MENTION)) }
                    }
                }
            }
            @if let Some(outcome) = outcome {
                @if !outcome.evidence.is_empty() { p .dim { (outcome.evidence) } }
                @if !outcome.detail.is_empty() {
                    details #traceback { summary { "Traceback" } pre tabindex="0" { (outcome.detail) } }
                }
            }
        }
    }
}

fn progress(record: &JobRecord, view: &JobView) -> Markup {
    if record.job.state.is_final() || (view.progress.is_empty() && view.bar().is_none()) {
        return html! {};
    }
    html! {
        section aria-labelledby="progress-title" {
            h2 #progress-title { "Progress" }
            @if let Some(newest) = view.progress.back() { (bar(newest)) }
            @if let Some(bar) = view.bar() {
                p .bar {
                    progress max="100" value=(bar.percent) aria-label="The program's own bar" {}
                    span { (bar.percent) " % " (bar.text) }
                }
            }
        }
    }
}

fn bar(progress: &Progress) -> Markup {
    let left = progress
        .seconds_left()
        .map(|it| format!(", {} left", duration(i64::try_from(it).unwrap_or(0) * 1000)));
    html! {
        p .bar {
            @if progress.total > 0 {
                progress max=(progress.total) value=(progress.done) aria-label=(progress.phase) {}
            } @else { progress aria-label=(progress.phase) {} }
            span {
                (progress.phase) ": " (progress.done)
                @if progress.total > 0 { " of " (progress.total) }
                " " (progress.unit) @if let Some(left) = left { (left) }
            }
        }
    }
}

fn models(view: &JobView) -> Markup {
    html! {
        @if !view.models.is_empty() {
            section aria-labelledby="models-title" {
                h2 #models-title { "Models" }
                @for model in &view.models {
                    @let last = model.name.rsplit('/').next().unwrap_or_default();
                    h3 { (model.name) }
                    dl .facts {
                        dt { "Folder" } dd { code { (model.uri) } }
                        @if model.removed { dt { "State" } dd { "removed" } }
                        @if let Some(earlier) = &model.replaced {
                            dt { @if model.removed { "It was" } @else { "Replaced" } }
                            dd { (earlier_model(earlier)) }
                        }
                        @if !model.removed { dt { "Files" } dd { code { (last) ".tar.gz" } " (" (size(model.size_bytes)) "), " code { "sqlflow.gob" } }
                        dt { "SHA-256" } dd { code { (format!("{:x}", model.sha256)) } }
                        dt { "More" } dd { code { "sqlflowctl models show " (model.name) } } }
                    }
                }
            }
        }
    }
}

/// The previous content of a model's name.
fn earlier_model(earlier: &EarlierModel) -> Markup {
    html! {
        "a model"
        @if earlier.made_ms > 0 { " trained " (moment(earlier.made_ms)) }
        @if !earlier.trained_by.is_empty() { " by " (earlier.trained_by) }
    }
}

fn notices(view: &JobView) -> Markup {
    html! {
        @if !view.notices.is_empty() {
            section aria-labelledby="notices-title" {
                h2 #notices-title { "What happened" }
                ol .notices {
                    @for (micros, notice) in &view.notices { li { (moment(micros / 1000)) " " (notice.text) } }
                }
            }
        }
    }
}

/// Link to the job's trace, if there is one.
fn trace_url(web: &Web, job: &Job) -> Option<String> {
    let is_kept = job.sampled != Some(false);
    (is_kept && !web.trace_url.is_empty()).then(|| web.trace_url.replace("{trace}", &trace::id(job)))
}
