//! The cause of a failure for lists, which need no key: one line of its message, without the data that it may quote.

/// Maximum characters of a cause.
const MAX_CHARACTERS: usize = 160;
/// What stands for text that is left out.
const HIDDEN: &str = "…";
/// Beginnings of parts with values or with the text of the statement: details are in brackets, such as PostgreSQL's
/// `(Key (email)=(ana@example.org) already exists.)`.
const PARTS: [&str; 6] = [" (", " DETAIL: ", " CONTEXT: ", " LINE ", " HINT: ", " QUERY: "];
const QUOTES: [char; 6] = ['\'', '"', '`', '“', '”', '‘'];

/// The first line of a message. Numbers are left out, and everything between the first quotation mark and the last one,
/// because what is quoted may have quotation marks, too. `None`: nothing is left.
pub(super) fn of_message(message: &str) -> Option<String> {
    let line = message.lines().next()?;
    let end = PARTS.iter().filter_map(|part| line.find(part)).min().unwrap_or(line.len());
    let line = line[..end].trim();
    let unquoted = match (line.find(QUOTES), line.rfind(QUOTES)) {
        (Some(first), Some(last)) => {
            let after = line[last..].chars().next().map_or(last, |quote| last + quote.len_utf8());
            let rest = if first == last { "" } else { &line[after..] };
            // A bracket alone is no help.
            let rest = if rest.contains(char::is_alphabetic) { rest } else { "" };
            format!("{}{HIDDEN}{rest}", &line[..first])
        }
        _ => line.to_owned(),
    };
    let mut shown = String::new();
    for word in unquoted.split(' ') {
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown.push_str(&without_numbers(word));
    }
    if let Some((cut, _)) = shown.char_indices().nth(MAX_CHARACTERS) {
        shown.truncate(cut);
        shown.push_str(HIDDEN);
    }
    shown.contains(char::is_alphabetic).then_some(shown)
}

/// Digits are left out of a word that does not begin with a letter: names such as `t1` stay.
fn without_numbers(word: &str) -> String {
    if word.starts_with(char::is_alphabetic) {
        return word.to_owned();
    }
    let is_digit = |c: char| c.is_ascii_digit();
    match (word.find(is_digit), word.rfind(is_digit)) {
        (Some(first), Some(last)) => format!("{}{HIDDEN}{}", &word[..first], &word[last + 1..]),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_has_no_data() {
        for (message, expected) in [
            ("integer overflow", "integer overflow"),
            ("no such table: nosuch; did you mean t1?", "no such table: nosuch; did you mean t1?"),
            ("UNIQUE constraint failed: once.a", "UNIQUE constraint failed: once.a"),
            ("near \"SELEC\": syntax error", "near …: syntax error"),
            ("Duplicate entry 'ana@x.org' for key 'u.email'", "Duplicate entry …"),
            ("syntax error near 'x = 'secret'' at line 1", "syntax error near … at line …"),
            ("it is unterminated: 'secret", "it is unterminated: …"),
            (
                "duplicate key value violates unique constraint \"u\" (Key (a)=(secret) already exists.)",
                "duplicate key value violates unique constraint …",
            ),
            (
                "duplicate key value violates unique constraint \"u\" DETAIL: Key (a)=(secret) already exists.",
                "duplicate key value violates unique constraint …",
            ),
            ("column does not exist LINE 1: SELECT secret", "column does not exist"),
            ("label y, row 17: 300 is not a class", "label y, row …: … is not a class"),
            ("value -1.5e3 (2024-01-02) is out of range", "value -…"),
            ("near \"SHOW\": syntax error; SQLite has no SHOW; write 'x'", "near …"),
            ("first\nsecret", "first"),
        ] {
            assert_eq!(of_message(message).as_deref(), Some(expected), "{message}");
        }
        for nothing in ["", "\n", "17", "'secret'"] {
            assert_eq!(of_message(nothing), None, "{nothing:?}");
        }
        let long = of_message(&"é".repeat(1000)).unwrap();
        assert_eq!(long.chars().count(), MAX_CHARACTERS + 1);
    }
}
