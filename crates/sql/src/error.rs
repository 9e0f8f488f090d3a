//! Errors of a program, with their positions.

use std::fmt;

use super::position::Position;
use super::suggest::nearest;

/// Maximum length of a quoted piece of the program in a message, in characters.
const MAX_QUOTED: usize = 40;

/// Maximum length of a message in bytes.
pub(super) const MAX_MESSAGE: usize = 400;

/// An error of a program, with its position.
///
/// Its text is one sentence: `line 3, column 14: found "LABLE", expected LABEL or INTO; did you mean LABEL?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub kind: SqlErrorKind,
}

/// What is wrong with a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlErrorKind {
    /// The program does not parse.
    Syntax {
        /// The unexpected token, quoted, or `the end of the program`.
        found: String,
        /// The possible tokens, such as `LABEL, USING or INTO`.
        expected: String,
        /// A similar keyword.
        suggestion: Option<String>,
    },
    /// The program parses, but this release cannot execute it.
    Unsupported(String),
    /// The program parses, but is inconsistent: an invalid model name, a column function without its size.
    Semantic(String),
    /// The program needs a database session that lasts longer than one step.
    Session(String),
    /// The program exceeds a limit.
    TooLarge(String),
    /// The program has no statement.
    Empty,
}

impl SqlError {
    pub(super) const fn new(at: Position, kind: SqlErrorKind) -> Self {
        Self { line: at.line, column: at.column, kind }
    }

    /// A syntax error: `found` instead of one of `expected`.
    pub(super) fn syntax(at: Position, found: Found<'_>, expected: &[&str]) -> Self {
        let suggestion = match found {
            Found::Text(word) => nearest(word, expected).map(str::to_owned),
            Found::End => None,
        };
        Self::new(
            at,
            SqlErrorKind::Syntax { found: found.to_string(), expected: alternatives(expected), suggestion },
        )
    }

    /// Adds to what a syntax error expected.
    pub(super) fn with_note(mut self, note: &str) -> Self {
        if let SqlErrorKind::Syntax { expected, .. } = &mut self.kind {
            expected.push_str(note);
        }
        self
    }

    pub(super) fn semantic(at: Position, message: impl Into<String>) -> Self {
        Self::new(at, SqlErrorKind::Semantic(clip(message.into())))
    }

    pub(super) fn session(at: Position, message: impl Into<String>) -> Self {
        Self::new(at, SqlErrorKind::Session(clip(message.into())))
    }

    pub(super) fn unsupported(at: Position, message: impl Into<String>) -> Self {
        Self::new(at, SqlErrorKind::Unsupported(message.into()))
    }

    pub(super) fn too_large(at: Position, message: impl Into<String>) -> Self {
        Self::new(at, SqlErrorKind::TooLarge(message.into()))
    }

    /// The line of the error, and below it a caret under the column, for a terminal.
    ///
    /// Tabs are kept, so that the caret is in the right place. Empty if `sql` has no such line.
    #[must_use]
    pub fn caret(&self, sql: &str) -> String {
        let Some(line) = sql.split('\n').nth(self.line - 1) else {
            return String::new();
        };
        let line = line.trim_end_matches('\r');
        let indent: String =
            line.chars().take(self.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        format!("{line}\n{indent}^")
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |f: &mut fmt::Formatter<'_>| write!(f, "line {}, column {}: ", self.line, self.column);
        match &self.kind {
            SqlErrorKind::Syntax { found, expected, suggestion } => {
                at(f)?;
                write!(f, "found {found}, expected {expected}")?;
                match suggestion {
                    Some(keyword) => write!(f, "; did you mean {keyword}?"),
                    None => Ok(()),
                }
            }
            SqlErrorKind::Unsupported(message)
            | SqlErrorKind::Semantic(message)
            | SqlErrorKind::Session(message)
            | SqlErrorKind::TooLarge(message) => {
                at(f)?;
                f.write_str(message)
            }
            SqlErrorKind::Empty => f.write_str("the program has no statement"),
        }
    }
}

impl std::error::Error for SqlError {}

/// All errors of a program, ordered by position. The text has a line for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlErrors(Vec<SqlError>);

impl SqlErrors {
    /// Maximum number of errors in the text.
    const SHOWN: usize = 20;

    /// Sorts errors by position, and keeps the first at each position. `None` if there are none.
    pub(super) fn of(mut errors: Vec<SqlError>) -> Option<Self> {
        errors.sort_by_key(|error| (error.line, error.column));
        errors.dedup_by_key(|error| (error.line, error.column));
        (!errors.is_empty()).then_some(Self(errors))
    }

    /// The errors, ordered by position.
    pub fn iter(&self) -> impl Iterator<Item = &SqlError> {
        self.0.iter()
    }
}

impl From<SqlError> for SqlErrors {
    fn from(error: SqlError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for SqlErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.0.iter().take(Self::SHOWN).enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        match self.0.len().saturating_sub(Self::SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n{more} more error(s)"),
        }
    }
}

impl std::error::Error for SqlErrors {}

/// What a syntax error found instead of the expected tokens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found<'a> {
    Text(&'a str),
    End,
}

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("the end of the program"),
            // A string in double quotes has its own.
            Self::Text(text)
                if text.len() > 1
                    && text.starts_with('"')
                    && text.ends_with('"')
                    && text.chars().count() <= MAX_QUOTED =>
            {
                f.write_str(text)
            }
            Self::Text(text) => match text.char_indices().nth(MAX_QUOTED) {
                None => write!(f, "\"{text}\""),
                Some((cut, _)) => write!(f, "\"{}…\"", &text[..cut]),
            },
        }
    }
}

/// Truncates a message, which may quote long names and expressions of the program; between words, if possible.
fn clip(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE - " …".len()));
        let words = message.rfind(' ').filter(|&blank| blank > MAX_MESSAGE / 2).unwrap_or(message.len());
        message.truncate(words);
        message.push_str(" …");
    }
    message
}

/// `A, B or ","`: words unchanged, symbols in quotes.
fn alternatives(expected: &[&str]) -> String {
    let is_symbol = |text: &str| text.chars().all(|c| c.is_ascii_punctuation());
    let shown: Vec<String> = expected
        .iter()
        .map(|text| if is_symbol(text) { format!("\"{text}\"") } else { (*text).to_owned() })
        .collect();
    match shown.as_slice() {
        [] => "nothing more".to_owned(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_error_has_a_suggestion_and_a_caret() {
        let sql = "SELECT 1\n\tTO TRIAN x";
        let at = Position { line: 2, column: 5 };
        let error = SqlError::syntax(at, Found::Text("TRIAN"), &["TRAIN", "PREDICT", "RUN"]);
        assert_eq!(
            error.to_string(),
            "line 2, column 5: found \"TRIAN\", expected TRAIN, PREDICT or RUN; did you mean TRAIN?"
        );
        assert_eq!(error.caret(sql), "\tTO TRIAN x\n\t   ^");
    }

    #[test]
    fn errors_are_sorted_and_their_text_is_bounded() {
        let at = |line, column| SqlError::semantic(Position { line, column }, format!("{line}.{column}"));
        assert_eq!(SqlErrors::of(Vec::new()), None);
        let few = SqlErrors::of(vec![at(2, 1), at(1, 7), at(1, 7)]).expect("there are some");
        assert_eq!(few.to_string(), "line 1, column 7: 1.7\nline 2, column 1: 2.1");
        let many = SqlErrors::of((1..=30).map(|line| at(line, 1)).collect()).expect("there are some");
        assert_eq!(many.to_string().lines().count(), SqlErrors::SHOWN + 1);
        assert!(many.to_string().ends_with("\n10 more error(s)"));
    }

    #[test]
    fn long_message_is_truncated_between_words() {
        let message = |text: String| SqlError::semantic(Position::START, text).to_string();
        let cut = message(format!("model {} {}", "a".repeat(300), "word ".repeat(50)));
        assert!(cut.ends_with(" word word …") && cut.len() < MAX_MESSAGE + 30, "{cut}");
        let one = message(format!("model {}", "é".repeat(300)));
        assert!(one.ends_with("é …") && one.len() < MAX_MESSAGE + 30, "{one}");
    }

    #[test]
    fn long_unexpected_token_is_truncated_between_characters() {
        let error = SqlError::syntax(Position::START, Found::Text(&"é".repeat(99)), &["INTO"]);
        assert_eq!(error.to_string().matches('é').count(), MAX_QUOTED);
    }
}
