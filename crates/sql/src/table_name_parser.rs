//! Names of result tables in extended clauses. In the text of a name, quoted parts are in double quotes, and have neither
//! quotes nor dots inside: it can be split at its dots.

use super::ast::Name;
use super::clause_lexer::LexemeKind;
use super::clause_parser::ClauseParser;
use super::error::SqlError;

/// The parts of a name, without their quotes.
pub(super) fn parts(name: &str) -> impl Iterator<Item = &str> {
    name.split('.').map(|part| part.trim_matches('"'))
}

/// Whether a quoted part of the name has a capital, which a database that folds names must keep.
pub(super) fn has_quoted_capital(name: &str) -> bool {
    name.split('.').any(|part| part.starts_with('"') && part.chars().any(char::is_uppercase))
}

impl ClauseParser<'_> {
    /// `INTO table`.
    pub(super) fn optional_table(&mut self) -> Result<Option<Name>, SqlError> {
        if self.accept("INTO")? { self.table_name("a table name").map(Some) } else { Ok(None) }
    }

    /// The name of a table, or of a table and its column: words and quoted parts with dots between them.
    pub(super) fn table_name(&mut self, what: &'static str) -> Result<Name, SqlError> {
        let position = self.current.position;
        let mut text = String::new();
        loop {
            let is_quoted = match self.current.kind {
                LexemeKind::Name => false,
                LexemeKind::Quoted => true,
                LexemeKind::String if self.current.text.starts_with('"') => true,
                LexemeKind::String
                | LexemeKind::Keyword
                | LexemeKind::Number
                | LexemeKind::Symbol
                | LexemeKind::Semicolon
                | LexemeKind::End => {
                    self.wanted.push(what);
                    return Err(self.unexpected());
                }
            };
            if is_quoted {
                text.push_str(&self.quoted_part()?);
            } else {
                text.push_str(self.current.text);
            }
            self.take()?;
            // A word takes the dot behind it.
            let continues = text.ends_with('.') && self.is_adjacent();
            if !continues {
                if !(self.current.is_symbol(".") && self.is_adjacent()) {
                    return Ok(Name { text, position });
                }
                text.push('.');
                self.take()?;
            }
        }
    }

    /// Whether nothing is between the last token and the current one.
    fn is_adjacent(&self) -> bool {
        self.end + self.current.text.len() == self.current.end
    }

    /// The current token as a quoted part of a table's name.
    fn quoted_part(&self) -> Result<String, SqlError> {
        let quoted = self.current.text;
        let inner = &quoted[1..quoted.len() - 1];
        if inner.is_empty() || inner.contains(['.', '"', '`', '\\']) || inner.contains(char::is_control) {
            let message = format!(
                "cannot use {quoted} as a part of a table's name: it is empty, or has a dot, a quote, a backslash or a \
                 control character; choose another name"
            );
            return Err(SqlError::semantic(self.current.position, message));
        }
        Ok(format!("\"{inner}\""))
    }
}
