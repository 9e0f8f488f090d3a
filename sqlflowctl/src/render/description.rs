//! Common parts of the descriptions of jobs and models.

use jiff::Timestamp;

use sqlflow_text::escape::escaped_lines;

/// Appends a line with a name and a value, which must be escaped. Nothing if the value is empty.
pub(super) fn push_field(text: &mut String, name: &str, value: &str) {
    if !value.is_empty() {
        text.push_str(&format!("{name:<9} {value}\n"));
    }
}

/// Appends a program, if there is one.
pub(super) fn push_program(text: &mut String, sql: &str) {
    if !sql.is_empty() {
        text.push_str("program\n");
        for line in escaped_lines(sql).lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
}

/// A time in UTC to the second, without its zone; empty if there is none.
pub(super) fn short_time(time: Option<Timestamp>) -> String {
    time.map_or(String::new(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// A time with its zone.
pub(super) fn full_time(time: Option<Timestamp>) -> String {
    time.map_or(String::new(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// A duration in at most two units: `0.4 s`, `3 min 12 s`, `2 d 5 h`. Never negative, although clocks may differ.
pub(super) fn span(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs_f64().max(0.0);
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let seconds = seconds as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {} s", seconds % 60),
        (0, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// The age of a time: `12 s ago`, `3 min ago`.
pub(super) fn ago(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(time).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s ago"),
        (0, 0, _) => format!("{minutes} min ago"),
        (0, _, _) => format!("{hours} h ago"),
        _ => format!("{days} d ago"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_units() {
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        let spans = [0, 400, 59_900, 60_000, 192_000, 7_500_000, 190_800_000];
        assert_eq!(
            spans.map(|it| span(at(0), at(it))),
            ["0.0 s", "0.4 s", "59.9 s", "1 min 0 s", "3 min 12 s", "2 h 5 min", "2 d 5 h"]
        );
        assert_eq!(
            spans.map(|it| ago(at(0), at(it))),
            ["0 s ago", "0 s ago", "59 s ago", "1 min ago", "3 min ago", "2 h ago", "2 d ago"]
        );
        assert_eq!(
            (span(at(5_000), at(0)), ago(at(5_000), at(0))),
            ("0.0 s".to_owned(), "0 s ago".to_owned())
        );
    }
}
