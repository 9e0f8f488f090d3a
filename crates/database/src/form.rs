//! Recognizes the most common forms of statements, in time linear in their length.

/// What follows the recognized beginning of a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form<'a> {
    rest: &'a str,
}

impl<'a> Form<'a> {
    /// The form of a statement, which may begin with whitespace.
    pub(crate) fn new(sql: &'a str) -> Self {
        Self { rest: sql.trim_start() }
    }

    /// The text that is not recognized yet.
    pub(crate) fn rest(&self) -> &'a str {
        self.rest
    }

    /// Skips whitespace. Returns whether there is any.
    pub(crate) fn space(&mut self) -> bool {
        let before = self.rest.len();
        self.rest = self.rest.trim_start();
        self.rest.len() < before
    }

    /// Skips a sign.
    pub(crate) fn sign(&mut self, sign: char) -> bool {
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Skips a word in any case.
    pub(crate) fn word(&mut self, word: &str) -> bool {
        let Some((start, rest)) = self.rest.split_at_checked(word.len()) else { return false };
        let is_word = start.eq_ignore_ascii_case(word) && !rest.starts_with(is_part_of_word);
        if is_word {
            self.rest = rest;
        }
        is_word
    }

    /// Skips a word in any case, and the whitespace that follows it.
    pub(crate) fn keyword(&mut self, word: &str) -> bool {
        let mut after = *self;
        let is_keyword = after.word(word) && after.space();
        if is_keyword {
            *self = after;
        }
        is_keyword
    }

    /// Skips what consists of such characters.
    pub(crate) fn take(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|it| !is_part(it)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// Skips a name with or without quotes, perhaps with a schema. Returns whether there is one.
    pub(crate) fn quotable_name(&mut self) -> bool {
        let before = self.rest.len();
        loop {
            let taken = self.take(|it| is_part_of_word(it) || matches!(it, '$' | '.'));
            let quoted = self.rest.chars().next().filter(|it| matches!(it, '"' | '`')).and_then(|quote| {
                let end = self.rest[1..].find(quote).filter(|it| *it > 0)?;
                Some(&self.rest[end + 2..])
            });
            match quoted {
                Some(rest) => self.rest = rest,
                None if taken.is_empty() => return self.rest.len() < before,
                None => {}
            }
        }
    }
}

/// Whether a character may be a part of a word.
pub(crate) fn is_part_of_word(it: char) -> bool {
    it.is_alphanumeric() || it == '_'
}

/// The text from each of its words on.
pub(crate) fn from_each_word(text: &str) -> impl Iterator<Item = Form<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|it| !is_part_of_word(it));
        let found = (!rest.is_empty()).then_some(Form { rest });
        rest = rest.trim_start_matches(is_part_of_word);
        found
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_end_at_their_borders() {
        let mut form = Form::new(" \n create  Table\tä");
        assert!(!form.word("CREAT") && !form.keyword("CREATED"));
        assert!(form.keyword("CREATE") && form.word("TABLE") && form.space() && !form.space());
        assert_eq!(form.rest(), "ä");
        assert!(!form.word("a") && !form.sign('a') && form.sign('ä') && !form.sign('ä'));
        let mut last = Form::new("TABLE");
        assert!(!last.keyword("TABLE") && last.word("TABLE"));
    }

    #[test]
    fn names_may_have_quotes_and_schemas() {
        for (text, rest) in [
            ("a b", " b"),
            ("\"a b\".`c d`.e$1é (", " ("),
            ("main.\"t\"x y", " y"),
            ("a\"b", "\"b"),
            ("a\"\"b", "\"\"b"),
            ("a`", "`"),
        ] {
            let mut form = Form::new(text);
            assert!(form.quotable_name(), "{text}");
            assert_eq!(form.rest(), rest, "{text}");
        }
        for text in ["", "(", "\"a", "[a]"] {
            assert!(!Form::new(text).quotable_name(), "{text}");
        }
    }

    #[test]
    fn texts_begin_at_each_word() {
        let found: Vec<_> = from_each_word(" a+bé (c_1)").map(|it| it.rest().to_owned()).collect();
        assert_eq!(found, ["a+bé (c_1)", "bé (c_1)", "c_1)"]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String, word in "[A-Z]{1,3}") {
            let mut form = Form::new(&text);
            let _ = (form.keyword(&word), form.quotable_name(), from_each_word(&text).count());
        }
    }
}
