//! Short forms of statements, for messages.

/// The first characters of a statement, on one line, without comments before it.
#[must_use]
pub fn mention(sql: &str, most: usize) -> String {
    let line = without_comments(sql).split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(most) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line,
    }
}

/// A statement without its leading comments; unchanged if there is nothing else.
fn without_comments(sql: &str) -> &str {
    let mut rest = sql.trim_start();
    loop {
        let after = match rest.strip_prefix("/*") {
            Some(comment) => comment.split_once("*/"),
            None if rest.starts_with("--") => rest.split_once('\n'),
            None => return if rest.is_empty() { sql } else { rest },
        };
        let Some((_, after)) = after else { return sql };
        rest = after.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_comments_are_removed() {
        let mention = |sql| mention(sql, 72);
        assert_eq!(mention("-- one\n/* two\n */ -- three\nSELECT  1 -- four"), "SELECT 1 -- four");
        assert_eq!(mention("-- cut in its mid"), "-- cut in its mid");
        assert_eq!(mention("/* cut"), "/* cut");
        assert_eq!(mention("-- all\n"), "-- all");
    }

    #[test]
    fn long_statement_is_truncated() {
        assert_eq!(mention(&"漢".repeat(100), 72), format!("{}…", "漢".repeat(72)));
    }
}
