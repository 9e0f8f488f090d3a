//! Timeline of attempts: a bar for each, over a scale of time.
//!
//! Only the bars are drawn, and stretch to the width of the screen. All text is beside them, so it stays legible on a
//! phone.

use maud::{Markup, html};
use sqlflow_job::{Attempt, Job, Reason, Role, Stage, Step};
use sqlflow_job_store::JobRecord;
use sqlflow_os::clock;

use super::format::{badge, duration, step_name};

/// Width of a bar's drawing, in its own units, and its height.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 20.0;
/// Maximum number of attempts; the first ones are left out.
const MAX_ATTEMPTS: usize = 100;

/// The scale: parts of equal length, at most six.
#[derive(Debug, PartialEq)]
struct Scale {
    part_ms: i64,
    parts: i64,
}

impl Scale {
    /// Scale for this many milliseconds.
    fn of(total_ms: i64) -> Self {
        const SECOND: i64 = 1000;
        const MINUTE: i64 = 60 * SECOND;
        const HOUR: i64 = 60 * MINUTE;
        const DAY: i64 = 24 * HOUR;
        let total_ms = total_ms.max(1);
        let is_enough = |part: &i64| total_ms <= 6 * part;
        let decimals = (0..5).flat_map(|power| [1, 2, 5].map(|it| it * 10_i64.pow(power)));
        let parts = decimals
            .take_while(|part| *part < 20 * SECOND)
            .chain([20, 30].map(|it| it * SECOND))
            .chain([1, 2, 5, 10, 20, 30].map(|it| it * MINUTE))
            .chain([1, 2, 4, 8, 12].map(|it| it * HOUR))
            .chain([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].map(|it| it * DAY));
        let part_ms = parts.into_iter().find(is_enough).unwrap_or(total_ms);
        Self { part_ms, parts: (total_ms + part_ms - 1) / part_ms }
    }

    /// `0`, `500 ms`, `20 s`, `1 h`.
    fn label(&self, part: i64) -> String {
        let ms = part * self.part_ms;
        match ms {
            0 => "0".to_owned(),
            1..1000 => format!("{ms} ms"),
            1000..60_000 if ms % 1000 == 0 => format!("{} s", ms / 1000),
            1000..60_000 => format!("{:.1} s", ms as f64 / 1000.0),
            60_000..3_600_000 if ms % 60_000 == 0 => format!("{} min", ms / 60_000),
            3_600_000..86_400_000 if ms % 3_600_000 == 0 => format!("{} h", ms / 3_600_000),
            86_400_000.. if ms % 86_400_000 == 0 => format!("{} d", ms / 86_400_000),
            _ => duration(ms),
        }
    }
}

/// An attempt with its step.
struct Row<'a> {
    step: usize,
    of: &'a Step,
    number: usize,
    attempt: &'a Attempt,
}

pub(super) fn timeline(record: &JobRecord) -> Markup {
    let now = record.ended_ms.unwrap_or_else(clock::now_ms);
    let scale = Scale::of(now - record.created_ms);
    let mut rows: Vec<_> = record
        .job
        .steps
        .iter()
        .enumerate()
        .flat_map(|(step, of)| {
            let row = move |(index, attempt)| Row { step, of, number: index + 1, attempt };
            of.attempts.iter().enumerate().map(row)
        })
        .collect();
    if rows.is_empty() {
        return html! {};
    }
    let left_out = rows.len().saturating_sub(MAX_ATTEMPTS);
    rows.drain(..left_out);
    html! {
        section aria-labelledby="phases-title" {
            h2 #phases-title { "Timeline" }
            @if left_out > 0 { p .dim { "The last " (MAX_ATTEMPTS) " attempts." } }
            p .legend aria-hidden="true" {
                @for name in ["launch", "schedule", "pull", "start", "run"] {
                    @if rows.iter().any(|row| spans(row.attempt, now).iter().any(|it| it.name == name)) {
                        span { span class={ "key " (name) } {} (name) }
                    }
                }
            }
            ol .timeline { @for row in &rows { (attempt(row, record, now, &scale)) } }
            div class={ "scale parts-" (scale.parts) } aria-hidden="true" {
                @for part in 0..scale.parts { span { (scale.label(part)) } }
            }
            p .dim { "Since the job was taken; each bar is an attempt." }
        }
    }
}

fn attempt(row: &Row<'_>, record: &JobRecord, now: i64, scale: &Scale) -> Markup {
    let Row { step, of, number, attempt } = row;
    let (begun_ms, state) = (record.created_ms, state(&record.job, attempt));
    let whole = (scale.parts * scale.part_ms) as f64;
    let at = |ms: i64| ((ms - begun_ms) as f64 / whole * WIDTH).clamp(0.0, WIDTH);
    let all = spans(attempt, now);
    let (from, to) = (attempt.created_ms, attempt.ended_ms.unwrap_or(now));
    let name = step_name(*step, of);
    html! {
        li class=(state) {
            p {
                span .what {
                    (capital(&name)) @if of.attempts.len() > 1 { ", attempt " (number) }
                    @if attempt.role == Role::Cleanup { ", cleans up" }
                } " "
                @if state != "succeeded" { (badge(state)) " " }
                @if let Some(outcome) = attempt.outcome().filter(|_| state == "failed") {
                    (outcome.reason.name().replace('_', " ")) " "
                }
                span .dim {
                    "from " (duration(from - begun_ms)) ", " b { (duration(to - from)) } ": "
                    @for (at, Stage { name, begin_ms, end_ms }) in all.iter().enumerate() {
                        @if at > 0 { ", " } (name) " " (duration(end_ms - begin_ms))
                    }
                }
                @if let Some(url) = attempt.tracker_url.as_deref().filter(|url| is_web(url)) { " " a href=(url) { "At its platform" } }
            }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" aria-hidden="true" {
                @for part in 1..scale.parts {
                    @let x = part as f64 / scale.parts as f64 * WIDTH;
                    line .tick x1=(x) x2=(x) y1="0" y2=(HEIGHT) {}
                }
                @for Stage { name, begin_ms, end_ms } in &all {
                    // Wide enough to be visible.
                    rect class=(name) x=(format!("{:.1}", at(*begin_ms))) y="3" height=(HEIGHT - 6.0)
                        width=(format!("{:.1}", (at(*end_ms) - at(*begin_ms)).max(2.0))) {}
                }
            }
        }
    }
}

/// State of an attempt. It is also ended by a cancel when a limit of the job was reached.
fn state(job: &Job, attempt: &Attempt) -> &'static str {
    let is_cancelled = || job.cancel.as_ref().is_some_and(|failure| failure.cause.is_cancel());
    match attempt.outcome() {
        None if attempt.attached_ms.is_some() => "running",
        None => "pending",
        Some(outcome) if outcome.succeeded() => "succeeded",
        Some(outcome) if outcome.reason == Reason::Cancelled && is_cancelled() => "cancelled",
        Some(_) => "failed",
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |it| it.to_uppercase().chain(characters).collect())
}

/// Whether the address may be a link: a platform's text must not contain a script.
fn is_web(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://")
}

fn spans(one: &Attempt, now: i64) -> Vec<Stage> {
    let end = one.ended_ms.unwrap_or(now);
    let mut all = one.launch_stages(now);
    if let Some(attached) = one.attached_ms {
        all.push(Stage { name: "run", begin_ms: attached, end_ms: end });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_has_at_most_six_parts_of_round_lengths() {
        let scale = |ms| {
            let scale = Scale::of(ms);
            (1..=scale.parts).map(|part| scale.label(part)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(scale(0), "1 ms");
        assert_eq!(scale(470), "100 ms 200 ms 300 ms 400 ms 500 ms");
        assert_eq!(scale(2_600), "500 ms 1 s 1.5 s 2 s 2.5 s 3 s");
        assert_eq!(scale(61_000), "20 s 40 s 1 min 1 min 20 s");
        assert_eq!(scale(3_700_000), "20 min 40 min 1 h 1 h 20 min");
        assert_eq!(scale(100 * 3_600_000), "1 d 2 d 3 d 4 d 5 d");
        for ms in [1, 999, 86_400_000, i64::MAX / 8] {
            assert!((1..=6).contains(&Scale::of(ms).parts), "{ms}");
        }
    }
}
