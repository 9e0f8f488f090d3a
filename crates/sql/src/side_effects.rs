//! Side effects of a query: what it changes besides returning rows. The lists of functions follow the manuals of MySQL,
//! PostgreSQL and SQLite.

use super::nodes::MAX_NODES;
use super::scanner::{Token, TokenKind};
use super::tokens::Tokens;

/// Built-in functions with an effect that outlives the query.
const WRITING_FUNCTIONS: [&str; 14] = [
    "nextval",
    "setval",
    "set_config",
    "pg_notify",
    "pg_terminate_backend",
    "pg_cancel_backend",
    "pg_switch_wal",
    "pg_reload_conf",
    "query_to_xml",
    "get_lock",
    "release_lock",
    "release_all_locks",
    "load_extension",
    "writefile",
];
/// Name prefixes of such functions.
const WRITING_PREFIXES: [&str; 7] =
    ["dblink", "lo_", "pg_advisory_", "pg_create_", "pg_drop_", "pg_file_", "pg_try_advisory_"];

/// Functions that may change tables or settings: they execute SQL from a string, load code, or set something.
const OPAQUE_FUNCTIONS: [&str; 6] =
    ["set_config", "query_to_xml", "pg_reload_conf", "load_extension", "writefile", "edit"];
/// Name prefixes of such functions.
const OPAQUE_PREFIXES: [&str; 2] = ["dblink", "pg_file_"];

fn is_writing_function(token: &Token<'_>) -> bool {
    token.is_one_of(&WRITING_FUNCTIONS) || begins_with(token, &WRITING_PREFIXES)
}

/// Whether a call of this function may change tables or settings.
pub(super) fn is_opaque_function(token: &Token<'_>) -> bool {
    token.is_one_of(&OPAQUE_FUNCTIONS) || begins_with(token, &OPAQUE_PREFIXES)
}

fn begins_with(token: &Token<'_>, prefixes: &[&str]) -> bool {
    let matches = |prefix: &&str| {
        token.text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    token.kind == TokenKind::Word && prefixes.iter().any(matches)
}

/// Side effects of a query.
#[derive(Debug, Default)]
pub(super) struct SideEffects {
    /// The query changes or locks something that outlives the session.
    pub(super) lasting: bool,
    /// Name of the temporary table that the query creates.
    pub(super) temporary: Option<String>,
    /// Names of the session variables that the query sets.
    pub(super) variables: Vec<String>,
}

impl SideEffects {
    /// Adds a variable's name. A program with too many is refused.
    fn add_variable(&mut self, name: Option<&Token<'_>>) {
        if self.variables.len() <= MAX_NODES {
            self.variables.extend(name.and_then(Token::name));
        }
    }
}

/// Reads the rest of a query. `may_write`: the query may contain a statement that writes, as in `WITH d AS (DELETE …)`.
pub(super) fn side_effects(tokens: &mut Tokens<'_>, may_write: bool) -> SideEffects {
    let mut effects = SideEffects::default();
    // The last three tokens, latest first.
    let mut passed: [Option<Token<'_>>; 3] = [None; 3];
    while let Some(token) = tokens.next() {
        let before = |words: &[&str]| passed[0].is_some_and(|token| token.is_one_of(words));
        let after_bracket = passed[0].is_some_and(|token| token.is_symbol('(') || token.is_symbol(')'));
        if token.is("INTO") {
            into(tokens, &mut effects);
        } else if token.is_one_of(&["UPDATE", "SHARE"]) && before(&["FOR", "KEY", "IN"]) {
            effects.lasting = true;
        } else if may_write
            && after_bracket
            && token.is_one_of(&["INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE"])
        {
            // `INSERT(` and `REPLACE(` are functions.
            effects.lasting |= !tokens.at_symbol('(');
        } else if token.kind == TokenKind::Word && tokens.at_symbol('(') {
            effects.lasting |= is_writing_function(&token);
        } else if token.is_symbol('=') && passed[0].is_some_and(|token| token.is_symbol(':')) {
            // MySQL's `@name := value`.
            if passed[2].is_some_and(|token| token.is_symbol('@')) {
                effects.add_variable(passed[1].as_ref());
            }
        }
        effects.lasting |= token.kind == TokenKind::Executed;
        passed = [Some(token), passed[0], passed[1]];
    }
    effects
}

/// `INTO @a, @b`, `INTO TEMP t`, `INTO t`, `INTO OUTFILE 'f'`.
fn into(tokens: &mut Tokens<'_>, effects: &mut SideEffects) {
    if tokens.at_symbol('@') {
        while tokens.at_symbol('@') {
            tokens.next();
            effects.add_variable(tokens.next().as_ref());
            if tokens.at_symbol(',') {
                tokens.next();
            }
        }
        return;
    }
    let mut temporary = false;
    while tokens.at(&["TEMP", "TEMPORARY", "LOCAL", "GLOBAL", "TABLE"]) {
        temporary |= tokens.at(&["TEMP", "TEMPORARY"]);
        tokens.next();
    }
    match tokens.qualified_name() {
        Some((name, in_schema)) if temporary || in_schema => effects.temporary = Some(name),
        _ => effects.lasting = true,
    }
}
