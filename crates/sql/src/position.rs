//! Positions in a program: line and column.

/// A position in a program, for messages. Both numbers start at 1, and the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl Position {
    /// Start of a program.
    pub const START: Self = Self { line: 1, column: 1 };

    /// Position of a byte offset. Reads the program from its start, so it is meant for one error, not for every token.
    pub(super) fn of(sql: &str, offset: usize) -> Self {
        PositionCursor::new(sql).advance(offset)
    }
}

/// Converts ascending byte offsets to positions. Reads each byte of the program once.
#[derive(Debug, Clone)]
pub(super) struct PositionCursor<'a> {
    sql: &'a str,
    offset: usize,
    position: Position,
}

impl<'a> PositionCursor<'a> {
    pub(super) const fn new(sql: &'a str) -> Self {
        Self { sql, offset: 0, position: Position::START }
    }

    /// Position of `offset`, which must be at a character boundary and not before the previous one.
    pub(super) fn advance(&mut self, offset: usize) -> Position {
        let passed = &self.sql[self.offset..offset];
        match passed.rfind('\n') {
            None => self.position.column += passed.chars().count(),
            Some(last) => {
                self.position.line += passed.bytes().filter(|&byte| byte == b'\n').count();
                self.position.column = 1 + passed[last + 1..].chars().count();
            }
        }
        self.offset = offset;
        self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_counts_characters_and_line_counts_newlines() {
        let sql = "é = 1\r\n  ü;";
        let at = |needle| {
            let place = Position::of(sql, sql.find(needle).expect("the program contains it"));
            (place.line, place.column)
        };
        assert_eq!(at("é"), (1, 1));
        assert_eq!(at("="), (1, 3));
        assert_eq!(at("ü"), (2, 3));
        assert_eq!(at(";"), (2, 4));
    }
}
