//! What changes on a job's page while it runs: state, phases, progress, curves, rows, models, the cause of death.

use maud::{Markup, html};

use crate::clock;
use crate::job::{Attempt, Job, JobState, Phase, Role, Step};
use crate::log::LogError;
use crate::store::JobRecord;
use crate::trace;
use crate::web::Web;
use crate::web::series::Series;
use crate::web::view::{Progress, SharedView, View};

/// Width of what is drawn, in its own units.
const WIDTH: f64 = 600.0;
const CURVE_HEIGHT: f64 = 120.0;
const BAR_HEIGHT: i64 = 18;
const SHOWN_STATEMENTS: usize = 50;

/// All of it, from the record and what the log tells: the view is the job's.
pub(in crate::web) async fn summary(
    web: &Web,
    record: &JobRecord,
    view: &SharedView,
) -> Result<Markup, LogError> {
    let mut view = view.lock().await;
    view.refresh(&record.job.id, web.log.as_ref()).await?;
    Ok(html! {
        (head(web, record, &view))
        (progress(record, &view))
        (phases(record))
        (curves(&view))
        (table(&view))
        (models(&view))
        (notices(&view))
    })
}

fn head(web: &Web, record: &JobRecord, view: &View) -> Markup {
    let job = &record.job;
    let now = record.ended_ms.unwrap_or_else(clock::now_ms);
    let done = view.statements.values().filter(|it| it.duration_micros.is_some()).count();
    let all: u32 = job.steps.iter().map(|it| it.statement_count).sum();
    html! {
        h1 { "Job " code { (job.id) } }
        p .state { (badge(job)) " " (sentence(job, view)) }
        dl .facts {
            dt { "Begun" } dd { (moment(record.created_ms)) }
            dt { @if record.ended_ms.is_some() { "Took" } @else { "For" } } dd { (duration(now - record.created_ms)) }
            dt { "Statements" } dd { (done) " of " (all) }
            @if !record.user_id.is_empty() { dt { "User" } dd { (record.user_id) } }
            @if let Some(url) = trace_url(web, job) { dt { "Trace" } dd { a href=(url) { "Show" } } }
        }
        @if let JobState::Failed(failure) = &job.state { (death(job, &failure.message)) }
    }
}

/// Why it waits, or what it does.
fn sentence(job: &Job, view: &View) -> String {
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
        // Once it runs it waits for nothing.
        Some((_, notice)) if !runs => notice.text.clone(),
        _ if runs => String::new(),
        _ => "waits to be started".to_owned(),
    }
}

fn death(job: &Job, message: &str) -> Markup {
    let last = job.steps.iter().filter_map(Step::last_run).next_back();
    let outcome = last.and_then(Attempt::outcome);
    html! {
        section .death aria-labelledby="death-title" {
            h2 #death-title { "Why it failed" }
            p { (message) }
            @if let Some(outcome) = outcome {
                @if !outcome.evidence.is_empty() { p .dim { (outcome.evidence) } }
                @if !outcome.detail.is_empty() {
                    details { summary { "Traceback" } pre tabindex="0" { (outcome.detail) } }
                }
            }
        }
    }
}

fn progress(record: &JobRecord, view: &View) -> Markup {
    if record.job.state.is_final() || (view.progress.is_empty() && view.bar.is_none()) {
        return html! {};
    }
    html! {
        section aria-labelledby="progress-title" {
            h2 #progress-title { "Progress" }
            @if let Some(newest) = view.progress.back() { (bar(newest)) }
            @if let Some(told) = &view.bar {
                p .bar {
                    progress max="100" value=(told.percent) aria-label="The program's own bar" {}
                    span { (told.percent) " % " (told.text) }
                }
            }
        }
    }
}

fn bar(told: &Progress) -> Markup {
    let left =
        told.seconds_left().map(|it| format!(", {} left", duration(i64::try_from(it).unwrap_or(0) * 1000)));
    html! {
        p .bar {
            @if told.total > 0 {
                progress max=(told.total) value=(told.done) aria-label=(told.phase) {}
            } @else { progress aria-label=(told.phase) {} }
            span {
                (told.phase) ": " (told.done)
                @if told.total > 0 { " of " (told.total) }
                " " (told.unit) @if let Some(left) = left { (left) }
            }
        }
    }
}

/// A row for each attempt, its phases side by side, over the time from the job's beginning to now.
fn phases(record: &JobRecord) -> Markup {
    let now = record.ended_ms.unwrap_or_else(clock::now_ms);
    let total = (now - record.created_ms).max(1) as f64;
    let attempts: Vec<_> = record
        .job
        .steps
        .iter()
        .enumerate()
        .flat_map(|(step, it)| {
            it.attempts.iter().enumerate().map(move |(number, one)| (step, it, number + 1, one))
        })
        .collect();
    if attempts.is_empty() {
        return html! {};
    }
    let at = |ms: i64| (ms - record.created_ms) as f64 / total * WIDTH;
    let height = BAR_HEIGHT * i64::try_from(attempts.len()).unwrap_or(1);
    html! {
        section aria-labelledby="phases-title" {
            h2 #phases-title { "Timeline" }
            svg .timeline viewBox={ "0 0 " (WIDTH) " " (height) } preserveAspectRatio="none" aria-hidden="true" {
                @for (row, (_, _, _, one)) in attempts.iter().enumerate() {
                    @for (name, from, to) in spans(one, now) {
                        rect class=(name) x=(at(from)) y=(BAR_HEIGHT * i64::try_from(row).unwrap_or(0) + 2)
                            width=((at(to) - at(from)).max(1.0)) height=(BAR_HEIGHT - 4) {}
                    }
                }
            }
            ol .phases {
                @for (step, of, number, one) in &attempts {
                    li {
                        "Step " (step + 1) " (" (of.kind) ")" @if *number > 1 { ", attempt " (number) } @if one.role == Role::CleanUp { " (cleans up)" } ": "
                        @for (at, (name, from, to)) in spans(one, now).into_iter().enumerate() {
                            @if at > 0 { ", " }
                            span class={ "key " (name) } {} (name) " " (duration(to - from))
                        }
                        @if let Some(url) = one.tracker_url.as_deref().filter(|url| is_web(url)) { " — " a href=(url) { "at its platform" } }
                        @if let Some(outcome) = one.outcome().filter(|it| !it.succeeded()) { " — " (outcome.message) }
                    }
                }
            }
        }
    }
}

/// Whether a browser may be led there: a platform's word is not trusted with a script.
fn is_web(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://")
}

fn spans(one: &Attempt, now: i64) -> Vec<(&'static str, i64, i64)> {
    let end = one.ended_ms.unwrap_or(now);
    let mut all = one.way_to_agent(now);
    if let Some(attached) = one.attached_ms {
        all.push(("run", attached, end));
    }
    all
}

fn curves(view: &View) -> Markup {
    html! {
        @if !view.series.is_empty() {
            section aria-labelledby="curves-title" {
                h2 #curves-title { "Measurements" }
                div .curves { @for (name, series) in &view.series { (curve(name, series)) } }
            }
        }
    }
}

fn curve(name: &str, series: &Series) -> Markup {
    let points = series.points();
    let bounds = |pick: fn(&(u64, f64)) -> f64| {
        points.iter().map(pick).fold((f64::MAX, f64::MIN), |(low, high), it| (low.min(it), high.max(it)))
    };
    let ((first, last), (low, high)) = (bounds(|it| it.0 as f64), bounds(|it| it.1));
    let scale =
        |value: f64, (low, high): (f64, f64)| if high > low { (value - low) / (high - low) } else { 0.5 };
    let line: Vec<_> = points
        .iter()
        .map(|(round, value)| {
            let x = scale(*round as f64, (first, last)) * WIDTH;
            let y = (1.0 - scale(*value, (low, high))) * CURVE_HEIGHT;
            format!("{x:.1},{y:.1}")
        })
        .collect();
    html! {
        figure {
            figcaption {
                (name) @if let Some((round, value)) = series.last() { ": " b { (format!("{value:.6}")) } " in round " (round) }
            }
            @if points.len() > 1 {
                svg viewBox={ "0 -4 " (WIDTH) " " (CURVE_HEIGHT + 8.0) } preserveAspectRatio="none" role="img"
                    aria-label={ (name) " from " (format!("{low:.6}")) " to " (format!("{high:.6}")) } {
                    polyline points=(line.join(" ")) {}
                }
            }
        }
    }
}

fn table(view: &View) -> Markup {
    let shown: Vec<_> =
        view.statements.iter().filter(|(_, it)| it.rows > 0 || it.rows_affected.is_some()).collect();
    html! {
        @if !shown.is_empty() {
            section aria-labelledby="rows-title" {
                h2 #rows-title { "Rows" }
                ul {
                    @for (index, it) in shown.iter().take(SHOWN_STATEMENTS) {
                        li {
                            "Statement " (**index + 1) ": " (it.rows) @if it.rows == 1 { " row" } @else { " rows" }
                            @if let Some(changed) = it.rows_affected { ", " (changed) " changed" }
                        }
                    }
                }
                @if !view.table.rows.is_empty() {
                    div .scrolls tabindex="0" role="region" aria-label="First rows" {
                        table {
                            caption { "First rows of statement " (view.table.statement + 1) }
                            thead { tr { @for name in &view.table.names { th scope="col" { (name) } } } }
                            tbody { @for row in &view.table.rows { tr { @for cell in row { td { (cell) } } } } }
                        }
                    }
                }
            }
        }
    }
}

fn models(view: &View) -> Markup {
    html! {
        @if !view.models.is_empty() {
            section aria-labelledby="models-title" {
                h2 #models-title { "Models" }
                @for model in &view.models {
                    @let last = model.name.rsplit('/').next().unwrap_or_default();
                    h3 { (model.name) }
                    dl .facts {
                        dt { "Folder" } dd { code { (model.uri) } }
                        dt { "Files" } dd { code { (last) ".tar.gz" } " (" (model.size_bytes) " bytes), " code { "sqlflow.gob" } }
                        dt { "SHA-256" } dd { code { (format!("{:x}", model.sha256)) } }
                        dt { "More" } dd { code { "sqlflowctl models show " (model.name) } }
                    }
                }
            }
        }
    }
}

fn notices(view: &View) -> Markup {
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

/// A state as a word with a colour.
pub(super) fn badge(job: &Job) -> Markup {
    html! { span class={ "badge " (job.state.name()) } { (job.state.name()) } }
}

/// `2026-11-26 09:55:22`, UTC.
pub(super) fn moment(ms: i64) -> Markup {
    let text = jiff::Timestamp::from_millisecond(ms)
        .map(|it| it.strftime("%Y-%m-%d %H:%M:%S").to_string())
        .unwrap_or_default();
    html! { time datetime={ (text) "Z" } { (text) " UTC" } }
}

/// `12 ms`, `1.5 s`, `3 min 20 s`, `2 h 5 min`.
pub(super) fn duration(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match seconds {
        0 => format!("{} ms", ms.max(0)),
        1..=9 => format!("{:.1} s", ms.max(0) as f64 / 1000.0),
        10..=59 => format!("{seconds} s"),
        60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Where the job's trace is shown, if it is anywhere.
fn trace_url(web: &Web, job: &Job) -> Option<String> {
    (!web.trace_url.is_empty()).then(|| web.trace_url.replace("{trace}", &trace::id(job)))
}
