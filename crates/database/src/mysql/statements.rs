//! Properties of statements, by their text.

use sqlflow_sql::Dialect;

use crate::form::is_part_of_word;

/// Whether a statement is a select that is the same if it is prepared first. Preparing may change the values of
/// `ROW_COUNT()`, `@@warning_count` and the like, and fixes the types of variables.
pub(super) fn may_be_prepared(sql: &str) -> bool {
    /// Length of a statement beyond which it is not parsed twice.
    const MAX_LENGTH: usize = 64 << 10;

    if sql.len() > MAX_LENGTH || sql.contains('@') {
        return false;
    }
    let word = sqlflow_sql::leading_words(sql, Dialect::Mysql, 1);
    if !word.first().is_some_and(|word| matches!(word.as_str(), "SELECT" | "WITH")) {
        return false;
    }
    let sql = sql.to_ascii_uppercase();
    let mut words = sql.split(|it| !is_part_of_word(it));
    let of_the_session = ["ROW_COUNT", "FOUND_ROWS", "LAST_INSERT_ID"];
    words.clone().any(|word| word == "FROM") && !words.any(|word| of_the_session.contains(&word))
}

/// Whether a statement changes the encoding of the session to another one than UTF-8.
pub(super) fn changes_encoding(sql: &str) -> bool {
    let word = sqlflow_sql::leading_words(sql, Dialect::Mysql, 1);
    if word.first().is_none_or(|word| word != "SET") {
        return false;
    }
    let sql = sql.to_ascii_lowercase();
    let words: Vec<&str> = sql.split(|it| !is_part_of_word(it)).filter(|it| !it.is_empty()).collect();
    let is_encoding = |pair: &[&str]| {
        matches!(pair[0], "names" | "charset")
            || pair[0].starts_with("character_set_")
            || pair == ["character", "set"]
    };
    !sql.contains("utf8mb4")
        && words.iter().zip(words.iter().skip(1).chain([&""])).any(|(a, b)| is_encoding(&[*a, *b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_change_the_encoding_are_recognized() {
        for sql in [
            "SET NAMES latin1",
            " set\tnames 'latin1'",
            "SET CHARACTER  SET latin1",
            "SET @@session.character_set_client = 'latin1'",
            "SET a = 1, CHARSET latin1",
        ] {
            assert!(changes_encoding(sql), "{sql}");
        }
        for sql in ["SET NAMES utf8mb4", "SET x = 1", "SELECT names", "SET character = 1, set_x = 2", ""] {
            assert!(!changes_encoding(sql), "{sql}");
        }
    }

    #[test]
    fn selects_that_may_be_prepared_are_recognized() {
        for sql in ["SELECT * FROM t", " /* x */ select f\nfrom t", "WITH q AS (SELECT 1) SELECT * FROM q"] {
            assert!(may_be_prepared(sql), "{sql}");
        }
        let long = format!("SELECT * FROM t WHERE f IN ({})", "1, ".repeat(30_000));
        for sql in [
            "SELECT 1",
            "SELECT fromage",
            "SHOW TABLES FROM d",
            "SELECT @x FROM t",
            "SELECT row_count() FROM t",
            "DELETE FROM t",
            &long,
            "",
        ] {
            assert!(!may_be_prepared(sql), "{sql}");
        }
    }
}
