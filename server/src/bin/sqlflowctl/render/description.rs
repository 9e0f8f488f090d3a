//! What the descriptions of a job and of a model have in common.

use jiff::Timestamp;

use sqlflow_server::text::escape::escaped_lines;

/// Appends a line with a name and a value, which is safe to show; nothing when the value is empty.
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

/// A time to the second, for a person; empty when there is none.
pub(super) fn short_time(time: Option<Timestamp>) -> String {
    time.map_or(String::new(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}
