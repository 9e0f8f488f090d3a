//! Classification of standard statements by their keywords: whether a statement is repeatable, and what it leaves in its
//! session. There are no errors: an unknown statement is [`StandardKind::Other`] and not repeatable. The rules follow the
//! manuals of MySQL, MariaDB, PostgreSQL and SQLite; if in doubt, a statement is not repeatable.

use super::dialect::Dialect;
use super::nodes::MAX_NODES;
use super::scanner::{Token, TokenKind};
use super::side_effects::{SideEffects, side_effects};
use super::tokens::Tokens;

/// Classification of a standard statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandardStatement {
    /// Kind of the statement.
    pub kind: StandardKind,
    /// Whether it is repeatable: executed twice, it has the effect of once. A SELECT that calls a user-defined function
    /// counts as repeatable, although the function may write something.
    pub repeatable: bool,
}

/// Kind of a standard statement. Names are in lower case, without quotes and without schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StandardKind {
    /// Returns rows: SELECT, VALUES, TABLE, SHOW, DESCRIBE, EXPLAIN, or a PRAGMA that reads. A SELECT with a lasting side
    /// effect is a query that is not repeatable.
    Query,
    /// Selects a database.
    Use {
        /// The database's name as written.
        database: String,
    },
    /// Changes a setting of the session, in a way that can be replayed in another session: SET, or PostgreSQL's
    /// `SELECT set_config('name', 'value', false)`.
    Set,
    /// Sets session variables to computed values. A replay might compute other values.
    SetVariables {
        /// Names of the variables, without `@`.
        names: Vec<String>,
    },
    /// Turns autocommit on or off. While it is off, a transaction is always open.
    SetAutocommit {
        /// Whether autocommit is on.
        on: bool,
    },
    /// Creates a temporary table, view, sequence or function, which ends with the session.
    CreateTemporaryTable {
        /// Its name.
        name: String,
    },
    /// Drops tables, temporary or not.
    DropTables {
        /// Their names.
        names: Vec<String>,
    },
    /// Begins a transaction.
    BeginTransaction,
    /// Commits or rolls back a transaction.
    EndTransaction,
    /// Sets a savepoint. In SQLite this begins a transaction if none is open.
    Savepoint {
        /// Its name.
        name: String,
    },
    /// Releases a savepoint. In SQLite this ends the transaction that the savepoint began.
    ReleaseSavepoint {
        /// Its name.
        name: String,
    },
    /// Anything else: DDL, DML, calls.
    Other,
}

/// Classifies one statement.
#[must_use]
pub fn classify(sql: &str, dialect: Dialect) -> StandardStatement {
    let tokens = Tokens::new(sql, dialect);
    // `/*!40101 SET NAMES utf8 */` is classified by its content. Nested executed comments are not.
    if let Some(inner) = tokens.peek().and_then(|token| token.executed()) {
        return Classifier { tokens: Tokens::new(inner, dialect), dialect }.statement();
    }
    Classifier { tokens, dialect }.statement()
}

/// Whether only calls of `set_config('name', 'value', false)` follow SELECT. Such a statement is a SET.
fn sets_config(mut tokens: Tokens<'_>) -> bool {
    loop {
        if tokens.accept(&["pg_catalog"]) && !tokens.next().is_some_and(|token| token.is_symbol('.')) {
            return false;
        }
        let mut is_next = |wanted: &dyn Fn(&Token<'_>) -> bool| tokens.next().is_some_and(|it| wanted(&it));
        let has_call = is_next(&|it| it.is("set_config"))
            && is_next(&|it| it.is_symbol('('))
            && is_next(&|it| it.kind == TokenKind::String)
            && is_next(&|it| it.is_symbol(','))
            && is_next(&|it| it.kind == TokenKind::String)
            && is_next(&|it| it.is_symbol(','))
            && is_next(&|it| it.is("false"))
            && is_next(&|it| it.is_symbol(')'));
        if !has_call {
            return false;
        }
        match tokens.next() {
            None => return true,
            Some(token) if token.is_symbol(';') => return true,
            Some(token) if token.is_symbol(',') => {}
            Some(_) => return false,
        }
    }
}

const OTHER: StandardStatement = StandardStatement { kind: StandardKind::Other, repeatable: false };

const fn repeatable(kind: StandardKind) -> StandardStatement {
    StandardStatement { kind, repeatable: true }
}

struct Classifier<'a> {
    tokens: Tokens<'a>,
    dialect: Dialect,
}

impl Classifier<'_> {
    fn statement(mut self) -> StandardStatement {
        while self.tokens.at_symbol('(') {
            self.tokens.next();
        }
        let Some(verb) = self.tokens.verb(self.dialect) else {
            return OTHER;
        };
        match verb.text.to_ascii_uppercase().as_str() {
            _ if verb.kind != TokenKind::Word => OTHER,
            "SELECT" if self.dialect == Dialect::Postgresql && sets_config(self.tokens.clone()) => {
                repeatable(StandardKind::Set)
            }
            "SELECT" | "VALUES" | "TABLE" => self.query(false),
            "WITH" => self.query(true),
            "SHOW" | "HELP" => repeatable(StandardKind::Query),
            "EXPLAIN" | "DESCRIBE" | "DESC" => self.explain(),
            "PRAGMA" => self.pragma(),
            "USE" => match self.tokens.next() {
                Some(name) => repeatable(StandardKind::Use { database: name.text.to_owned() }),
                None => OTHER,
            },
            "SET" => self.set(),
            "RESET" | "DISCARD" | "ATTACH" | "DETACH" => repeatable(StandardKind::Set),
            "CREATE" => self.create(),
            "DROP" => self.drop_tables(),
            "BEGIN" if self.tokens.at(&["NOT"]) => OTHER,
            "BEGIN" => repeatable(StandardKind::BeginTransaction),
            "START" if self.tokens.at(&["TRANSACTION"]) => repeatable(StandardKind::BeginTransaction),
            "COMMIT" | "END" | "ROLLBACK" | "ABORT" => self.end(),
            "PREPARE" if self.tokens.at(&["TRANSACTION"]) => {
                Self::not_repeatable(StandardKind::EndTransaction)
            }
            "SAVEPOINT" => self.savepoint(|name| StandardKind::Savepoint { name }),
            "RELEASE" => {
                self.tokens.accept(&["SAVEPOINT"]);
                self.savepoint(|name| StandardKind::ReleaseSavepoint { name })
            }
            _ => OTHER,
        }
    }

    const fn not_repeatable(kind: StandardKind) -> StandardStatement {
        StandardStatement { kind, repeatable: false }
    }

    fn query(&mut self, may_write: bool) -> StandardStatement {
        let SideEffects { lasting, temporary, variables } = side_effects(&mut self.tokens, may_write);
        let kind = match temporary {
            Some(name) => StandardKind::CreateTemporaryTable { name },
            None if !variables.is_empty() => StandardKind::SetVariables { names: variables },
            None => StandardKind::Query,
        };
        StandardStatement { kind, repeatable: !lasting }
    }

    /// EXPLAIN executes its statement only with ANALYZE.
    fn explain(&mut self) -> StandardStatement {
        let mut analyze = false;
        let mut writes = false;
        for token in self.tokens.by_ref() {
            analyze |= token.is_one_of(&["ANALYZE", "ANALYSE"]);
            writes |= token
                .is_one_of(&["INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "CREATE", "EXECUTE", "CALL"]);
            writes |= token.kind == TokenKind::Executed;
        }
        StandardStatement { kind: StandardKind::Query, repeatable: !(analyze && writes) }
    }

    fn pragma(&mut self) -> StandardStatement {
        /// PRAGMAs that have an argument and only read.
        const READ: [&str; 8] = [
            "table_info",
            "table_xinfo",
            "table_list",
            "index_list",
            "index_info",
            "index_xinfo",
            "foreign_key_list",
            "foreign_key_check",
        ];
        /// PRAGMAs that read, with or without an argument.
        const CHECK: [&str; 2] = ["integrity_check", "quick_check"];
        /// PRAGMAs that, with a value, change the database file.
        const LASTING: [&str; 11] = [
            "application_id",
            "auto_vacuum",
            "encoding",
            "incremental_vacuum",
            "journal_mode",
            "optimize",
            "page_size",
            "schema_version",
            "user_version",
            "wal_checkpoint",
            "writable_schema",
        ];
        /// PRAGMAs that change the database file even without a value.
        const ALWAYS_LASTING: [&str; 3] = ["incremental_vacuum", "optimize", "wal_checkpoint"];
        let Some((name, _)) = self.tokens.qualified_name() else {
            return OTHER;
        };
        let has_value = self.tokens.at_symbol('=') || self.tokens.at_symbol('(');
        let name = name.as_str();
        if ALWAYS_LASTING.contains(&name) || (has_value && LASTING.contains(&name)) {
            OTHER
        } else if has_value && !READ.contains(&name) && !CHECK.contains(&name) {
            repeatable(StandardKind::Set)
        } else {
            repeatable(StandardKind::Query)
        }
    }

    fn set(&mut self) -> StandardStatement {
        if self.tokens.at(&["TRANSACTION", "CONSTRAINTS"]) {
            // Applies to the current transaction only, so later sessions do not replay it.
            return repeatable(StandardKind::Other);
        }
        if self.dialect == Dialect::Postgresql && self.tokens.at(&["LOCAL"]) {
            return repeatable(StandardKind::Other);
        }
        if self.tokens.at(&["PASSWORD"]) || (self.dialect == Dialect::Mysql && self.tokens.at(&["DEFAULT"])) {
            // `SET DEFAULT ROLE` also applies to later sessions, and to sessions of other clients.
            return OTHER;
        }
        let mut names = Vec::new();
        let mut autocommit = None;
        let mut computed = false;
        let mut before: Option<Token<'_>> = None;
        while let Some(token) = self.tokens.next() {
            let starts = before.is_none_or(|before| before.is_symbol(',') || before.is_symbol('@'));
            if starts && token.is_one_of(&["GLOBAL", "PERSIST", "PERSIST_ONLY"]) {
                return OTHER; // A setting of the database server, not of the session.
            }
            if token.is("autocommit") && self.dialect == Dialect::Mysql {
                autocommit = Some(self.switched_on());
            } else if token.is_symbol('@') && before.is_none_or(|before| before.is_symbol(',')) {
                let name = self.tokens.peek().and_then(|name| name.name());
                names.extend(name.filter(|_| names.len() <= MAX_NODES));
            }
            computed |= token.is_symbol('(');
            before = Some(token);
        }
        repeatable(match autocommit {
            Some(on) => StandardKind::SetAutocommit { on },
            None if computed && !names.is_empty() => StandardKind::SetVariables { names },
            None => StandardKind::Set,
        })
    }

    /// Reads `= value`: whether the value means on.
    fn switched_on(&self) -> bool {
        let value = self.tokens.clone().find(|token| !(token.is_symbol('=') || token.is_symbol(':')));
        !value.is_some_and(|value| {
            value.is_one_of(&["OFF", "FALSE"]) || matches!(value.text, "0" | "'OFF'" | "'off'" | "\"OFF\"")
        })
    }

    fn create(&mut self) -> StandardStatement {
        let mut temporary = false;
        let found = loop {
            match self.tokens.next() {
                Some(word) if word.is_one_of(&["TEMP", "TEMPORARY"]) => temporary = true,
                Some(word)
                    if word.is_one_of(&["OR", "REPLACE", "GLOBAL", "LOCAL", "RECURSIVE", "UNLOGGED"]) => {}
                Some(word) => break word.is_one_of(&["TABLE", "VIEW", "SEQUENCE", "FUNCTION", "MACRO"]),
                None => break false,
            }
        };
        if !found {
            return OTHER;
        }
        self.skip_if_exists();
        match self.tokens.qualified_name() {
            Some((name, in_schema)) if temporary || in_schema => {
                let lasting = side_effects(&mut self.tokens, true).lasting;
                StandardStatement { kind: StandardKind::CreateTemporaryTable { name }, repeatable: !lasting }
            }
            _ => OTHER,
        }
    }

    fn drop_tables(&mut self) -> StandardStatement {
        self.tokens.accept(&["TEMPORARY", "TEMP"]);
        if !self.tokens.accept(&["TABLE", "VIEW", "SEQUENCE", "FUNCTION"]) {
            return OTHER;
        }
        self.skip_if_exists();
        let mut names = Vec::new();
        while let Some((name, _)) = self.tokens.qualified_name() {
            names.push(name);
            // The program has too many, and is refused.
            if names.len() > MAX_NODES {
                break;
            }
            if !self.tokens.at_symbol(',') {
                break;
            }
            self.tokens.next();
        }
        Self::not_repeatable(StandardKind::DropTables { names })
    }

    fn skip_if_exists(&mut self) {
        if self.tokens.accept(&["IF"]) {
            self.tokens.accept(&["NOT"]);
            self.tokens.accept(&["EXISTS"]);
        }
    }

    /// COMMIT, ROLLBACK and synonyms. A rollback to a savepoint ends no transaction, and AND CHAIN begins another one.
    fn end(&mut self) -> StandardStatement {
        let mut before: Option<Token<'_>> = None;
        for token in self.tokens.by_ref() {
            if token.is("TO") {
                return OTHER;
            }
            if token.is("CHAIN") && before.is_some_and(|before| before.is("AND")) {
                return Self::not_repeatable(StandardKind::BeginTransaction);
            }
            before = Some(token);
        }
        Self::not_repeatable(StandardKind::EndTransaction)
    }

    fn savepoint(&mut self, kind: impl FnOnce(String) -> StandardKind) -> StandardStatement {
        match self.tokens.next().and_then(|token| token.name()) {
            Some(name) => repeatable(kind(name)),
            None => OTHER,
        }
    }
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
