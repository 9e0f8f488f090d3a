//! What the texts of PostgreSQL's functions may do.

use sqlflow_sql::postgresql_strings;

use super::names::Folded;
use crate::form::{Form, from_each_word, is_part_of_word};

/// Words of a function that may create or change tables.
const CREATES: [&str; 7] = ["create", "alter", "drop", "rename", "execute", "set_config", "pg_settings"];
/// What a function may set that changes how tables are found.
const PLACES: [&str; 4] = ["schema", "role", "authorization", "session_authorization"];
/// PostgreSQL's own functions that run an SQL text: ends of their names.
const RUNS_TEXT: [&str; 5] =
    ["query_to_xml", "table_to_xml", "cursor_to_xml", "schema_to_xml", "database_to_xml"];

/// Whether a function may create or change tables, or change how they are found.
pub(super) fn may_change_names(text: &str) -> bool {
    from_each_word(text).any(|mut form| {
        let word = form.take(is_part_of_word).to_ascii_lowercase();
        CREATES.contains(&word.as_str()) || word.starts_with("dblink") || word == "set" && sets_place(form)
    })
}

/// Whether what follows SET changes how tables are found.
fn sets_place(mut form: Form<'_>) -> bool {
    if !form.space() {
        return false;
    }
    while form.keyword("SESSION") || form.keyword("LOCAL") {}
    let name = form.take(is_part_of_word).to_ascii_lowercase();
    name.ends_with("search_path") || PLACES.contains(&name.as_str())
}

/// The first function in a text that runs an SQL text.
pub(super) fn running_function(text: &str) -> Option<&str> {
    from_each_word(text).find_map(|mut form| {
        let word = form.take(is_part_of_word);
        let lower = word.to_ascii_lowercase();
        if lower == "ts_stat" {
            return Some(word);
        }
        let ends = RUNS_TEXT.iter().filter_map(|name| Some((lower.find(name)?, name.len())));
        ends.min().map(|(start, length)| &word[start..start + length])
    })
}

/// Whether a function may compose an SQL text from its arguments.
pub(super) fn may_compose(text: &str) -> bool {
    from_each_word(text).any(|mut form| {
        let word = form.take(is_part_of_word).to_ascii_lowercase();
        let is_one = matches!(word.as_str(), "execute" | "ts_stat");
        is_one
            || ["spi_", "dblink"].iter().any(|it| word.starts_with(it))
            || word.contains("_to_xml")
            || word.contains("plpy")
    })
}

/// Whether a string of a select or view mentions a name.
pub(super) fn has_in_string(text: &str, name: &str) -> bool {
    postgresql_strings(text).iter().any(|string| Folded::new(string).mentions(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn functions_that_change_names_are_recognized() {
        for text in [
            "BEGIN Execute 'x'; END",
            "SET search_path TO x",
            "set  local\tsession my_search_path = 1",
            "SET SESSION AUTHORIZATION x",
            "SET LOCAL ROLE x",
            "SELECT dblink_exec('x')",
            "ALTER",
        ] {
            assert!(may_change_names(text), "{text}");
        }
        for text in
            ["SELECT created, executed", "UPDATE t SET a = 1", "SET work_mem = 1", "RESET ROLE", "SET", ""]
        {
            assert!(!may_change_names(text), "{text}");
        }
    }

    #[test]
    fn functions_that_run_a_text_are_recognized() {
        assert_eq!(running_function("SELECT pg_catalog.Query_To_XML('x')"), Some("Query_To_XML"));
        assert_eq!(running_function("SELECT ts_stat('x'), query_to_xml_and_xmlschema(1)"), Some("ts_stat"));
        assert_eq!(running_function("SELECT my_cursor_to_xmlschema(1)"), Some("cursor_to_xml"));
        assert_eq!(running_function("SELECT ts_stats, to_xml"), None);
        for text in ["EXECUTE x", "plpy.execute(x)", "SPI_exec", "dblink(x)", "table_to_xml(x)", "a_plpy"] {
            assert!(may_compose(text), "{text}");
        }
        for text in ["RETURN QUERY SELECT 1", "executes", "a_spi_b", "a_dblink"] {
            assert!(!may_compose(text), "{text}");
        }
    }

    #[test]
    fn strings_mention_names() {
        for text in [
            "SELECT f($$ \"Outcome\" $$)",
            "SELECT f($$Outcome$$)",
            "SELECT a, -- it's\n rd('outcome') AS x FROM source",
            "SELECT a AS \"it's\", rd('outcome') AS x FROM source",
            "SELECT a /* it's /* */ it's */, rd('outcome') AS x FROM source",
            "SELECT 'a\\'b', rd('outcome'), 'c'",
        ] {
            assert!(has_in_string(text, "outcome"), "{text}");
        }
        for text in
            ["SELECT 'outcomes' FROM outcome", "SELECT 'a' -- 'outcome'\n FROM /* 'outcome' */ outcome"]
        {
            assert!(!has_in_string(text, "outcome"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[eEst'$\\\\ \nä😀_]{0,60}") {
            let _ = (has_in_string(&text, "e"), may_change_names(&text), may_compose(&text), running_function(&text));
        }
    }
}
