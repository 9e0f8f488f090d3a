//! Times, sizes and states as text.

use maud::{Markup, html};

use sqlflow_job::{Job, Step};

/// Maximum number of kinds of steps in a list.
const MAX_KINDS: usize = 8;

/// A state as a coloured word.
pub(super) fn badge(state: &str) -> Markup {
    html! { span class={ "badge " (state) } { (state) } }
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

/// `1 row`, `3 rows`.
pub(super) fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// `812 bytes`, `3.4 MB`.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => counted(bytes, "byte"),
        1000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// Description of a job: `3 standard, train, evaluate`.
pub(super) fn kinds(job: &Job) -> String {
    let mut runs: Vec<(&str, u32)> = Vec::new();
    for step in &job.steps {
        match runs.last_mut() {
            Some((kind, count)) if *kind == step.kind.name() => *count += step.statement_count,
            _ => runs.push((step.kind.name(), step.statement_count)),
        }
    }
    let more = runs.len() > MAX_KINDS;
    let one = |(kind, count): (&str, u32)| {
        let kind = kind.replace('_', " ");
        if count == 1 { kind } else { format!("{count} {kind}") }
    };
    let mut words: Vec<_> = runs.into_iter().take(MAX_KINDS).map(one).collect();
    words.extend(more.then(|| "…".to_owned()));
    words.join(", ")
}

/// The models that a job makes or uses, each once.
pub(super) fn models(job: &Job) -> Vec<&str> {
    let mut models: Vec<&str> = Vec::new();
    for model in job.steps.iter().map(|step| step.model.as_str()).filter(|it| !it.is_empty()) {
        if models.len() < MAX_KINDS && !models.contains(&model) {
            models.push(model);
        }
    }
    models
}

/// `step 2 (train), model m`
pub(super) fn step_name(index: usize, step: &Step) -> String {
    let model = if step.model.is_empty() { String::new() } else { format!(", model {}", step.model) };
    format!("step {} ({}){model}", index + 1, step.kind.name().replace('_', " "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn job_is_described_by_its_steps() {
        let step = |kind: &str, model: &str, statement_count| Step {
            kind: kind.into(),
            model: model.to_owned(),
            statement_count,
            ..fixture::step(true)
        };
        let mut job = fixture::job(true);
        job.steps = vec![
            step("standard", "", 3),
            step("train", "m", 1),
            step("train", "n", 1),
            step("show_train", "m", 1),
        ];
        assert_eq!(kinds(&job), "3 standard, 2 train, show train");
        assert_eq!(models(&job), ["m", "n"]);
        assert_eq!(step_name(1, &job.steps[1]), "step 2 (train), model m");
        assert_eq!(step_name(0, &job.steps[0]), "step 1 (standard)");
        assert_eq!(
            (counted(1, "row"), counted(0, "row"), size(2048)),
            ("1 row".into(), "0 rows".into(), "2.0 kB".into())
        );
    }
}
