//! Names in SQL texts. Any word may be one, also in literals and comments, because their borders depend on settings of
//! the session. The time is linear in the text.

use std::borrow::Cow;

/// Maximum length of a quoted name in bytes. Databases allow 64 characters, each of which may be a doubled quote.
const MAX_QUOTED: usize = 1200;

/// A text whose case does not matter.
pub(super) struct Folded(String);

impl Folded {
    pub(super) fn new(text: &str) -> Self {
        Self(folded(text).into_owned())
    }

    /// Whether a name occurs as a word, or in quotes.
    pub(super) fn mentions(&self, name: &str) -> bool {
        let name = folded(name);
        let forms = [name.replace('"', "\"\""), name.replace('`', "``"), name.into_owned()];
        forms.iter().any(|form| self.has_word(form))
    }

    fn has_word(&self, word: &str) -> bool {
        let text = self.0.as_str();
        let Some(first) = word.chars().next() else { return false };
        let mut from = 0;
        while let Some(found) = text[from..].find(word) {
            let (before, after) = (&text[..from + found], &text[from + found + word.len()..]);
            if !before.ends_with(is_plain) && !after.starts_with(is_plain) {
                return true;
            }
            from += found + first.len_utf8();
        }
        false
    }
}

/// Whether a name occurs in a text as a word, or in quotes. Case does not matter.
pub(super) fn mentions(text: &str, name: &str) -> bool {
    Folded::new(text).mentions(name)
}

/// A text in lower case, each character by itself, as databases have it.
pub(super) fn folded(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.chars().flat_map(char::to_lowercase).collect())
    }
}

/// Every word and every quoted name in lower case, also several times.
pub(super) fn words(text: &str) -> Vec<Cow<'_, str>> {
    let mut found = Vec::new();
    for (start, end) in runs(text, is_letter) {
        let word = &text[start..end];
        if is_number(word) {
            continue;
        }
        if !word.is_ascii() {
            // Some databases do not take every character beyond ASCII for a letter.
            let parts = runs(word, is_plain).map(|(start, end)| &word[start..end]);
            found.extend(parts.filter(|part| part.len() < word.len()).map(folded));
        }
        found.push(folded(word));
    }
    found.extend(quoted_names(text).map(|quoted| quoted.name(text)));
    found
}

/// Every name before a parenthesis in lower case, also several times. Whitespace and comments may be between them.
pub(super) fn calls(text: &str) -> Vec<Cow<'_, str>> {
    let reaches = reaches_parenthesis(text.as_bytes());
    let is_called = |end: usize| {
        let is_quoted = matches!(text.as_bytes().get(end), Some(b'"' | b'`'));
        reaches[end] || is_quoted && reaches[end + 1]
    };
    let plain =
        runs(text, is_letter).filter(|(_, end)| is_called(*end)).map(|(start, end)| &text[start..end]);
    let mut found: Vec<_> = plain.filter(|word| !is_number(word)).map(folded).collect();
    found.extend(quoted_names(text).filter(|it| reaches[it.end]).map(|it| it.name(text)));
    found
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

/// Names may begin with a digit or `$`, and may have any character beyond ASCII.
fn is_letter(it: char) -> bool {
    !it.is_ascii() || is_plain(it)
}

fn is_plain(it: char) -> bool {
    it.is_alphanumeric() || matches!(it, '_' | '$')
}

/// Start and end of each part of a text that consists of such characters.
fn runs(text: &str, is_part: fn(char) -> bool) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].find(is_part)?;
        at = text[start..].find(|it| !is_part(it)).map_or(text.len(), |length| start + length);
        Some((start, at))
    })
}

/// A quoted name at a place of a text.
struct Quoted {
    start: usize,
    end: usize,
}

impl Quoted {
    /// The name in lower case, without its quotes.
    fn name<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let quote = &text[self.start..=self.start];
        let name = &text[self.start + 1..self.end - 1];
        if name.contains(quote) {
            Cow::Owned(folded(name).replace(&quote.repeat(2), quote))
        } else {
            folded(name)
        }
    }
}

/// What may be a quoted name. A quote in a literal or comment has no partner, so any quote may begin a name. But none
/// follows another quote of the same sort: there the two are one character of a name.
fn quoted_names(text: &str) -> impl Iterator<Item = Quoted> {
    names_in(text, b'"').chain(names_in(text, b'`'))
}

fn names_in(text: &str, quote: u8) -> impl Iterator<Item = Quoted> {
    let bytes = text.as_bytes();
    let mut at = 0;
    // A run of quotes whose first one may begin a name. An even number of quotes within a name are its characters.
    let mut open = None;
    std::iter::from_fn(move || {
        loop {
            let start = at + bytes[at..].iter().position(|byte| *byte == quote)?;
            let count = bytes[start..].iter().take_while(|byte| **byte == quote).count();
            at = start + count;
            let begin = if count % 2 == 0 { (count > 2).then_some(start) } else { open.replace(start) };
            if let Some(start) = begin.filter(|start| at - start <= MAX_QUOTED) {
                return Some(Quoted { start, end: at });
            }
        }
    })
}

/// For each place of a text, and its end: whether a parenthesis opens there, or after whitespace and comments. MySQL
/// executes the content of some comments.
fn reaches_parenthesis(text: &[u8]) -> Vec<bool> {
    let length = text.len();
    let mut reaches = vec![false; length + 1];
    // Only PostgreSQL ends a line with a carriage return.
    let (mut line_end, mut carriage_return) = (length, length);
    // Places of the next two `*/`.
    let (mut closing, mut second_closing) = (None, None);
    for at in (0..length).rev() {
        let rest = &text[at..];
        if rest.starts_with(b"\n") {
            line_end = at;
        } else if rest.starts_with(b"\r") {
            carriage_return = at;
        } else if rest.starts_with(b"*/") {
            (closing, second_closing) = (Some(at), closing);
        }
        reaches[at] = match rest {
            [b'(', ..] => true,
            [b' ' | b'\t'..=b'\r', ..] => reaches[at + 1],
            [b'/', b'*', b'!', ..] => reaches[at + 3 + digits(&rest[3..])],
            [b'/', b'*', b'M', b'!', ..] => reaches[at + 4 + digits(&rest[4..])],
            [b'/', b'*', ..] => {
                // The asterisk of `/*/` does not close the comment.
                let end = if closing == Some(at + 1) { second_closing } else { closing };
                end.is_some_and(|end| reaches[end + 2])
            }
            [b'*', b'/', ..] => reaches[at + 2],
            [b'-', b'-', ..] | [b'#', ..] => reaches[line_end] || reaches[carriage_return],
            _ => false,
        };
    }
    reaches
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted(names: Vec<Cow<'_, str>>) -> Vec<String> {
        let mut names: Vec<String> = names.into_iter().map(Cow::into_owned).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    #[test]
    fn words_are_names_with_and_without_quotes() {
        for (text, expected) in [
            ("SELECT A.b_1, 12, $c FROM 2020v", &["$c", "2020v", "a", "b_1", "from", "select"][..]),
            ("vé€x", &["vé", "vé€x", "x"]),
            ("\"a b\" `C``d`", &["a", "a b", "b", "c", "c`d", "d"]),
            // Quotes of a literal or comment have no partner.
            ("-- 5\" x\n\"a b\"", &["\n", " x\n", "a", "a b", "b", "x"]),
            ("'\"' \"a\"\"b\"", &["' ", "a", "a\"b", "b"]),
            ("\"\" \"\"\"\" \"\"\"a\"", &["\"", "\"a", "a"]),
            ("\"", &[]),
            ("", &[]),
        ] {
            let found = sorted(words(text));
            let expected: Vec<_> = expected.iter().filter(|it| **it != "\n").collect();
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{text}");
        }
        assert_eq!(sorted(words(&format!("\"{}\"", "a ".repeat(1000)))), ["a"]);
    }

    #[test]
    fn calls_are_names_before_a_parenthesis() {
        for (text, expected) in [
            ("F(1) + g (h)", &["f", "g"][..]),
            ("f/* ( */(1) g -- 1\n#\n( h /*!50000 (3) */", &["f", "g", "h"]),
            ("f /*M!100 */ (1) g */ (", &["f", "g"]),
            ("\"f n\" (1) `g``h`(1) \"i\" x", &["f n", "g`h", "h", "n"]),
            ("f /* (1) g /*/ (", &["f"]),
            ("f /* (1) g /* (", &[]),
            ("f - (1) a.b(2) 'c'(3)", &["b"]),
            ("f -- +\r(1) g -- +\r +\n(1)", &["f", "g"]),
            ("f -- (", &[]),
            ("f", &[]),
        ] {
            assert_eq!(sorted(calls(text)), expected, "{text}");
        }
    }

    #[test]
    fn names_are_mentioned_as_words() {
        for text in
            ["a outcome", "x.OUTCOME,", "\"outcome\"", "outcomes outcome", "'outcome'", "éoutcome outcome"]
        {
            assert!(mentions(text, "Outcome"), "{text}");
        }
        for text in ["outcomes", "_outcome", "outcome$", "$$outcome$$", "éoutcome", ""] {
            assert!(!mentions(text, "outcome"), "{text}");
        }
        assert!(mentions("SELECT * FROM \"a\"\"b\"", "a\"b") && mentions("`a``b`", "a`b"));
        assert!(mentions("ΟΔΟΣ", "οδοσ") && mentions("x.a.a", "a.a"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[aB1é€\"`'(/*!M#\n \\-]{0,40}", name: String) {
            let _ = (words(&text), calls(&text), mentions(&text, &name), words(&name), calls(&name));
        }

        #[test]
        fn names_are_found_after_any_comment(comment in "[a\"`']{0,8}", name in "[a-z \"`]{0,6}[a-z]") {
            let quoted = name.replace('"', "\"\"");
            let text = format!("SELECT /*{comment}*/ \"{quoted}\" (1)");
            prop_assert!(sorted(words(&text)).contains(&name) && sorted(calls(&text)).contains(&name), "{}", text);
        }
    }
}
