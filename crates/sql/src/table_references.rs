//! References to tables in a SELECT: the names in FROM and JOIN.

use std::collections::HashSet;

use super::dialect::Dialect;
use super::scanner::{Token, TokenKind};
use super::tokens::Tokens;

/// State of one nesting level of parentheses.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Whether the level has a SELECT. Without one, `FROM` belongs to a function call, as in `TRIM(' ' FROM a)`.
    has_select: bool,
    /// Whether the current position is in a list of tables, where a table follows a comma.
    in_tables: bool,
}

/// Words that end the list of tables after FROM.
const AFTER_TABLES: [&str; 12] = [
    "WHERE",
    "GROUP",
    "HAVING",
    "ORDER",
    "LIMIT",
    "OFFSET",
    "FETCH",
    "WINDOW",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "FOR",
];
/// Maximum number of tokens that are read of a list of columns. Keeps the time linear.
const MAX_LOOKAHEAD: usize = 1000;
/// Words that may stand between FROM or JOIN and a name.
const BEFORE_NAME: [&str; 2] = ["ONLY", "LATERAL"];

/// The referenced tables, each as the parts of its name in lower case: `d.T` is `["d", "t"]`. Common table expressions (WITH)
/// are left out, and those that are not `wanted`: a program may name millions.
pub(super) fn referenced_tables(
    select: &str,
    dialect: Dialect,
    wanted: impl Fn(&[String]) -> bool,
) -> Vec<Vec<String>> {
    let mut tables: Vec<Vec<String>> = Vec::new();
    let mut defined: HashSet<String> = HashSet::new();
    let mut levels = vec![Level::default()];
    let mut expects_table = false;
    let mut tokens = Tokens::new(select, dialect);
    let mut before = None;
    while let Some(token) = tokens.next() {
        let expected = std::mem::take(&mut expects_table);
        let level = levels.last().copied().unwrap_or_default();
        let mut now = level;
        if token.is_symbol('(') {
            // Parenthesized tables: `FROM (a JOIN b)`.
            levels.push(Level { has_select: expected, in_tables: expected });
            expects_table = expected;
            before = Some(token);
            continue;
        } else if token.is_symbol(')') {
            if levels.len() > 1 {
                levels.pop();
            }
            before = Some(token);
            continue;
        } else if token.is("SELECT") {
            now = Level { has_select: true, in_tables: false };
        } else if token.is("FROM") && level.has_select && !before.is_some_and(|it| it.is("DISTINCT")) {
            now.in_tables = true;
            expects_table = true;
        } else if token.is_one_of(&["JOIN", "STRAIGHT_JOIN"]) || (token.is_symbol(',') && level.in_tables) {
            expects_table = true;
        } else if token.is_one_of(&AFTER_TABLES) {
            now.in_tables = false;
        } else if expected && token.is_one_of(&BEFORE_NAME) {
            expects_table = true;
        } else if let Some(first) = name_of(&token, dialect) {
            if expected {
                let mut parts = vec![first];
                while tokens.at_symbol('.') {
                    tokens.next();
                    parts.extend(tokens.next().and_then(|part| name_of(&part, dialect)));
                }
                // A name before a parenthesis is a function.
                if !tokens.at_symbol('(') && wanted(&parts) {
                    tables.push(parts);
                }
            } else if !level.in_tables
                && !level.has_select
                && wanted(std::slice::from_ref(&first))
                && is_with_definition(&tokens)
            {
                defined.insert(first);
            }
        }
        if let Some(level) = levels.last_mut() {
            *level = now;
        }
        before = Some(token);
    }
    tables.retain(|parts| !matches!(parts.as_slice(), [name] if defined.contains(name)));
    tables
}

/// Whether `AS` or `(a, b) AS` follows, as after a name that a WITH clause defines.
fn is_with_definition(tokens: &Tokens<'_>) -> bool {
    let mut lookahead = tokens.clone();
    if lookahead.at_symbol('(') {
        lookahead.by_ref().take(MAX_LOOKAHEAD).find(|token| token.is_symbol(')'));
    }
    lookahead.at(&["AS"])
}

/// A name as the database compares it. In PostgreSQL, a quoted name is case-sensitive.
fn name_of(token: &Token<'_>, dialect: Dialect) -> Option<String> {
    let name = token.name()?;
    let is_exact = dialect == Dialect::Postgresql && token.kind == TokenKind::Quoted;
    // PostgreSQL folds unquoted names to lower case, so a quoted name with upper case matches none of them.
    Some(if is_exact { token.text.trim_matches('"').to_owned() } else { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(select: &str) -> Vec<String> {
        referenced_tables(select, Dialect::Mysql, |_| true).into_iter().map(|parts| parts.join(".")).collect()
    }

    #[test]
    fn names_in_from_and_join_are_tables() {
        for (select, found) in [
            ("SELECT a, t FROM T", vec!["t"]),
            ("SELECT s.a FROM `D`.`t` AS s, u JOIN v ON v.a = t.x, w WHERE x IN (SELECT y FROM z)", {
                vec!["d.t", "u", "v", "w", "z"]
            }),
            ("SELECT * FROM (SELECT * FROM a) s LEFT JOIN (b, c) ON 1 ORDER BY d, e", vec!["a", "b", "c"]),
            ("SELECT TRIM(' ' FROM t), EXTRACT(YEAR FROM t) FROM u", vec!["u"]),
            ("SELECT a IS DISTINCT FROM t FROM u", vec!["u"]),
            ("WITH t AS (SELECT * FROM a) SELECT * FROM t JOIN b ON 1", vec!["a", "b"]),
            ("WITH t(x, y) AS (SELECT 1, 2), u AS (SELECT * FROM a) SELECT * FROM t, u", vec!["a"]),
            ("SELECT * FROM generate_series(1, 2), t", vec!["t"]),
            ("SELECT 't' FROM a UNION SELECT 1, t FROM b", vec!["a", "b"]),
            ("SELECT 1", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(tables(select), found, "{select}");
        }
    }

    #[test]
    fn quoted_name_keeps_its_case_in_postgresql_only() {
        let found = |dialect| referenced_tables("SELECT * FROM \"T\", u, \"v\"", dialect, |_| true).concat();
        assert_eq!(found(Dialect::Postgresql), ["T", "u", "v"]);
        assert_eq!(found(Dialect::Sqlite), ["t", "u", "v"]);
    }
}
