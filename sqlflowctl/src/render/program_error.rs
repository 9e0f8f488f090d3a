//! What is wrong with a program, with the place in it.

use sqlflow_text::escape::{escaped, width};

/// Characters of a line that are shown around the place.
const SHOWN: usize = 100;

/// The message, one error on a line, and below each the line that it speaks of with a caret, when it begins `line L, column C`;
/// both count from 1, columns in characters.
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
    fn the_caret_stands_below_the_place() {
        let shown = program_error("line 2, column 4: found x, expected y", "SELECT 1;\n漢字 FRM t");
        assert_eq!(shown, "line 2, column 4: found x, expected y\n  |\n2 | 漢字 FRM t\n  |      ^");
    }

    #[test]
    fn each_error_has_its_place() {
        let shown = program_error("line 1, column 1: one\nno place\nline 2, column 3: two", "ab\ncde");
        assert_eq!(
            shown,
            "line 1, column 1: one\n  |\n1 | ab\n  | ^\nno place\nline 2, column 3: two\n  |\n2 | cde\n  |   ^"
        );
    }

    #[test]
    fn a_tab_is_shown_as_wide_as_it_counts() {
        assert!(program_error("line 1, column 2: no", "\tx").ends_with("1 | \\tx\n  |   ^"));
    }

    #[test]
    fn the_end_of_the_program_is_a_place_too() {
        assert!(program_error("line 1, column 9: no", "SELECT 1").ends_with("1 | SELECT 1\n  |         ^"));
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let sql = format!("{}X{}", "a".repeat(5_000), "b".repeat(5_000));
        let shown = program_error("line 1, column 5001: no", &sql);
        let lines: Vec<&str> = shown.lines().collect();
        let caret = lines[3].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[2].chars().nth(caret), Some('X'));
        assert!(lines[2].chars().count() < SHOWN + 10);
    }

    #[test]
    fn a_message_without_a_place_stands_alone() {
        for message in
            ["the program is empty", "line 0, column 0: x", "line 9, column 1: x", "line 1, column : x"]
        {
            assert_eq!(program_error(message, "SELECT 1"), message);
        }
    }
}
