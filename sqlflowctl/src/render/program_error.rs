//! Errors of a program with their positions in its text.

use sqlflow_text::escape::{escaped, width};

/// Number of characters shown around the position.
const SHOWN: usize = 100;

/// The message, one error per line. Below an error that begins with `line L, column C` is that line of the program,
/// with a caret. Both count from 1, columns in characters.
pub(crate) fn program_error(message: &str, sql: &str) -> String {
    message.lines().map(|line| error_with_place(line, sql)).collect::<Vec<_>>().join("\n")
}

fn error_with_place(message: &str, sql: &str) -> String {
    let text = escaped(message);
    let Some((line, column)) = place(message) else { return text };
    let Some(source) = sql.split('\n').nth(line - 1) else { return text };
    let source: Vec<char> = source.trim_end_matches('\r').chars().collect();
    let before_caret = (column - 1).min(source.len());
    let start = before_caret.saturating_sub(SHOWN / 2);
    let end = source.len().min(start + SHOWN);
    let part = |from: usize, to: usize| escaped(&source[from..to].iter().collect::<String>());
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    let (left, right) = (if start > 0 { "…" } else { "" }, if end < source.len() { "…" } else { "" });
    let indent = " ".repeat(width(left) + width(&part(start, before_caret)));
    format!("{text}\n{margin} |\n{number} | {left}{}{right}\n{margin} | {indent}^", part(start, end))
}

/// Reads `line L, column C`.
fn place(message: &str) -> Option<(usize, usize)> {
    let (line, rest) = message.strip_prefix("line ")?.split_once(", column ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (line, column) = (line.parse().ok()?, rest[..digits].parse().ok()?);
    (line > 0 && column > 0).then_some((line, column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caret_is_below_the_position() {
        let shown = program_error("line 2, column 4: found x, expected y", "SELECT 1;\n漢字 FRM t");
        assert_eq!(shown, "line 2, column 4: found x, expected y\n  |\n2 | 漢字 FRM t\n  |      ^");
    }

    #[test]
    fn each_error_has_its_position() {
        let shown = program_error("line 1, column 1: one\nno place\nline 2, column 3: two", "ab\ncde");
        assert_eq!(
            shown,
            "line 1, column 1: one\n  |\n1 | ab\n  | ^\nno place\nline 2, column 3: two\n  |\n2 | cde\n  |   ^"
        );
    }

    #[test]
    fn caret_is_right_after_a_tab() {
        assert!(program_error("line 1, column 2: no", "\tx").ends_with("1 | \\tx\n  |   ^"));
    }

    #[test]
    fn error_at_the_end_of_the_program_has_a_caret() {
        assert!(program_error("line 1, column 9: no", "SELECT 1").ends_with("1 | SELECT 1\n  |         ^"));
    }

    #[test]
    fn long_line_is_cut_around_the_position() {
        let sql = format!("{}X{}", "a".repeat(5_000), "b".repeat(5_000));
        let shown = program_error("line 1, column 5001: no", &sql);
        let lines: Vec<&str> = shown.lines().collect();
        let caret = lines[3].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[2].chars().nth(caret), Some('X'));
        assert!(lines[2].chars().count() < SHOWN + 10);
    }

    #[test]
    fn message_without_a_position_is_unchanged() {
        for message in
            ["the program is empty", "line 0, column 0: x", "line 9, column 1: x", "line 1, column : x"]
        {
            assert_eq!(program_error(message, "SELECT 1"), message);
        }
    }
}
