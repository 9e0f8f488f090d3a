//! What the texts of PostgreSQL's functions may do.

use std::collections::HashMap;

use super::names::Folded;
use super::tokens::quoted_end;
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

/// Whether a literal of a text mentions a name.
pub(super) fn has_in_literal(text: &str, name: &str) -> bool {
    literals(text).iter().any(|literal| Folded::new(literal).mentions(name))
}

/// The literals in a text: `'…'`, `E'…'`, `$tag$…$tag$`.
fn literals(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let dollars = DollarQuotes::new(text);
    let mut found = Vec::new();
    let mut unclosed = [false; 2];
    let mut at = 0;
    let mut before = None;
    while let Some(next) = text[at..].chars().next() {
        let is_escaped = matches!(next, 'e' | 'E') && !before.is_some_and(is_part_of_word);
        let quote = if is_escaped { at + 1 } else { at };
        let mut end = None;
        if bytes.get(quote) == Some(&b'\'') && !unclosed[usize::from(is_escaped)] {
            end = quoted_end(bytes, quote + 1, b'\'', true, is_escaped);
            unclosed[usize::from(is_escaped)] = end.is_none();
            found.extend(end.map(|end| &text[quote + 1..end - 1]));
        } else if next == '$'
            && let Some((content, after)) = dollars.at(at)
        {
            found.push(content);
            end = Some(after);
        }
        at = end.unwrap_or(at + next.len_utf8());
        before = text[..at].chars().next_back();
    }
    found
}

/// Texts in dollar quotes.
struct DollarQuotes<'a> {
    text: &'a str,
    /// For each dollar that begins a tag: the end of the tag, and the next place of the tag after it.
    closings: HashMap<usize, (usize, usize)>,
}

impl<'a> DollarQuotes<'a> {
    fn new(text: &'a str) -> Self {
        let dollars: Vec<usize> = text.match_indices('$').map(|(at, _)| at).collect();
        let tag = |place: usize| {
            let (start, end) = (*dollars.get(place)?, *dollars.get(place + 1)? + 1);
            text[start + 1..end - 1].chars().all(is_part_of_word).then(|| &text[start..end])
        };
        let mut closings = HashMap::new();
        let mut next: HashMap<&str, usize> = HashMap::new();
        for place in (0..dollars.len()).rev() {
            // A tag and the one that closes it share no dollar.
            if let Some(tag) = tag(place + 2) {
                next.insert(tag, dollars[place + 2]);
            }
            if let Some(tag) = tag(place)
                && let Some(closing) = next.get(tag)
            {
                closings.insert(dollars[place], (dollars[place] + tag.len(), *closing));
            }
        }
        Self { text, closings }
    }

    /// The text in dollar quotes that begins here, and where it ends.
    fn at(&self, place: usize) -> Option<(&'a str, usize)> {
        let (start, end) = *self.closings.get(&place)?;
        Some((&self.text[start..end], end + start - place))
    }
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
    fn literals_are_found() {
        for (text, expected) in [
            ("a 'it''s' b", &["it''s"][..]),
            ("E'\\'', e'b' 'c\\'", &["\\'", "b", "c\\"]),
            ("type'x'", &["x"]),
            ("$$a 'b' $x$ $$ 'c'", &["a 'b' $x$ ", "c"]),
            ("$q$ $$ $q$$q$b$q$", &[" $$ ", "b"]),
            ("$a$b$a c$a$", &["b$a c"]),
            ("$1 + $2 'a", &[]),
            ("'a''", &["a"]),
            ("$é$x$é$", &["x"]),
            ("", &[]),
        ] {
            assert_eq!(literals(text), expected, "{text}");
        }
        assert!(has_in_literal("SELECT f($$ \"Outcome\" $$)", "outcome"));
        assert!(has_in_literal("SELECT f($$Outcome$$)", "outcome"));
        assert!(!has_in_literal("SELECT 'outcomes' FROM outcome", "outcome"));
    }

    /// As `DollarQuotes`, in time quadratic in the text.
    fn dollar_quoted(text: &str, at: usize) -> Option<(&str, usize)> {
        let end = at + 1 + text[at + 1..].find('$')? + 1;
        let tag = &text[at..end];
        tag[1..tag.len() - 1].chars().all(is_part_of_word).then_some(())?;
        let content = text[end..].find(tag)?;
        Some((&text[end..end + content], end + content + tag.len()))
    }

    proptest! {
        #[test]
        fn dollar_quotes_are_those_of_a_simple_search(text in "[a$ ]{0,30}") {
            let quotes = DollarQuotes::new(&text);
            for (at, _) in text.match_indices('$') {
                prop_assert_eq!(quotes.at(at), dollar_quoted(&text, at), "{} {}", text, at);
            }
        }

        #[test]
        fn no_text_panics(text in "[eEst'$\\\\ \nä😀_]{0,60}") {
            let _ = (literals(&text), may_change_names(&text), may_compose(&text), running_function(&text));
        }
    }
}
