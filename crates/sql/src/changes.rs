//! Changes by standard statements that prechecks of later statements depend on: tables, columns, types and settings. A
//! statement whose changes are not known is [`Change::Unknown`]: of what follows it, only the syntax is checked. The lists
//! follow the manuals of MySQL, MariaDB, PostgreSQL and SQLite.

use super::classify::{StandardKind, StandardStatement};
use super::dialect::Dialect;
use super::scanner::{Token, TokenKind};
use super::side_effects::is_opaque_function;
use super::tokens::Tokens;

/// Change by a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that a precheck depends on.
    Nothing,
    /// Rows; tables and columns stay as they are.
    Rows,
    /// Settings of the session.
    Session,
    /// Settings of the current transaction.
    Transaction,
    /// The end of a transaction, or a rollback to a savepoint.
    EndOfTransaction {
        /// Whether its changes are rolled back.
        rolls_back: bool,
    },
    /// Tables or views.
    Objects {
        /// Their names in lower case, without schema. For an index, also the name of its table.
        names: Vec<String>,
        /// Whether they may be dropped.
        drops: bool,
    },
    /// Possibly anything.
    Unknown,
}

/// PRAGMAs of SQLite that apply to the whole process, and change no tables.
const PROCESS_WIDE: [&str; 4] =
    ["hard_heap_limit", "soft_heap_limit", "temp_store_directory", "data_store_directory"];
/// Pure functions that are common in values of settings.
const PURE_FUNCTIONS: [&str; 6] = ["CONCAT", "CONCAT_WS", "REPLACE", "IF", "IFNULL", "COALESCE"];
/// Keywords that may precede TABLE, VIEW or INDEX.
const BEFORE_OBJECT: [&str; 11] = [
    "OR",
    "TEMP",
    "TEMPORARY",
    "GLOBAL",
    "LOCAL",
    "UNLOGGED",
    "MATERIALIZED",
    "RECURSIVE",
    "UNIQUE",
    "FULLTEXT",
    "SPATIAL",
];
/// Verbs of statements about storage, locks and notifications, which change nothing that a precheck depends on.
const NO_CHANGE: [&str; 16] = [
    "SAVEPOINT",
    "RELEASE",
    "LOCK",
    "UNLOCK",
    "VACUUM",
    "REINDEX",
    "OPTIMIZE",
    "CHECK",
    "CHECKSUM",
    "REPAIR",
    "CHECKPOINT",
    "CLUSTER",
    "NOTIFY",
    "LISTEN",
    "UNLISTEN",
    "FLUSH",
];

/// Verbs in MySQL of statements that may set `sql_mode` by a text or body that is not seen here.
const OPAQUE_VERBS: [&str; 11] =
    ["CALL", "EXECUTE", "BEGIN", "IF", "CASE", "LOOP", "WHILE", "REPEAT", "FOR", "DECLARE", "LOAD"];

/// Whether the database reads later statements by the same grammar, whatever else a statement changes. In MySQL, the
/// grammar depends on `sql_mode`. In PostgreSQL it depends on settings for a backslash in strings only, for which the
/// submitter looks.
pub(super) fn keeps_grammar(sql: &str, standard: &StandardStatement, dialect: Dialect) -> bool {
    let mut tokens = Tokens::new(sql, dialect);
    let is_opaque = |verb: Token<'_>| {
        verb.kind == TokenKind::Executed
            || (verb.is_one_of(&OPAQUE_VERBS) && standard.kind == StandardKind::Other)
    };
    dialect != Dialect::Mysql
        || (!sql.to_ascii_lowercase().contains("sql_mode") && !tokens.verb(dialect).is_some_and(is_opaque))
}

/// Determines the change by a standard statement.
pub(super) fn change(sql: &str, standard: &StandardStatement, dialect: Dialect) -> Change {
    let mut tokens = Tokens::new(sql, dialect);
    let inner = tokens.peek().and_then(|token| token.executed());
    if let Some(inner) = inner {
        tokens = Tokens::new(inner, dialect);
    }
    if tokens.clone().any(|token| token.kind == TokenKind::Executed) {
        return Change::Unknown;
    }
    while tokens.at_symbol('(') {
        tokens.next();
    }
    let Some(verb) = tokens.verb(dialect) else {
        return Change::Nothing;
    };
    let reader = Reader { tokens, dialect };
    match &standard.kind {
        StandardKind::Set | StandardKind::Use { .. } => reader.setting(&verb),
        // `SET autocommit = 0, sql_mode = …` is not replayed.
        StandardKind::SetAutocommit { .. } if reader.tokens.clone().any(|it| it.is_symbol(',')) => {
            Change::Unknown
        }
        StandardKind::SetAutocommit { .. } => Change::Nothing,
        StandardKind::SetVariables { .. } if verb.is("SET") => Change::Nothing,
        _ => reader.statement(&verb, standard),
    }
}

struct Reader<'a> {
    tokens: Tokens<'a>,
    dialect: Dialect,
}

impl Reader<'_> {
    fn setting(mut self, verb: &Token<'_>) -> Change {
        if verb.is("SET") && self.is_computed() {
            return Change::Unknown;
        }
        let is_global = verb.is("PRAGMA")
            && self.tokens.qualified_name().is_some_and(|(name, _)| PROCESS_WIDE.contains(&name.as_str()));
        if is_global { Change::Nothing } else { Change::Session }
    }

    /// Whether the value may depend on rows or come from a stored routine. A precheck, which executes the SET earlier, might
    /// compute another value.
    fn is_computed(&self) -> bool {
        let mut tokens = self.tokens.clone();
        while let Some(token) = tokens.next() {
            let is_call = token.kind == TokenKind::Word && tokens.at_symbol('(');
            if token.is("SELECT") || (is_call && !token.is_one_of(&PURE_FUNCTIONS)) {
                return true;
            }
        }
        false
    }

    fn statement(mut self, verb: &Token<'_>, standard: &StandardStatement) -> Change {
        match verb.text.to_ascii_uppercase().as_str() {
            "SELECT" | "VALUES" | "TABLE" | "WITH" => self.query(),
            "SHOW" | "HELP" | "DESCRIBE" | "DESC" | "EXPLAIN" if standard.repeatable => Change::Nothing,
            "PRAGMA" if standard.kind == StandardKind::Query => Change::Nothing,
            "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "MERGE" | "TRUNCATE" | "REFRESH" => self.rows(),
            "LOAD" if self.tokens.at(&["DATA", "XML"]) => self.rows(),
            "COPY" => match self.tokens.clone().any(|token| token.is("PROGRAM")) {
                true => Change::Unknown,
                false => self.rows(),
            },
            "BEGIN" | "START" if standard.kind == StandardKind::BeginTransaction => Change::Nothing,
            "COMMIT" | "END" => Change::EndOfTransaction { rolls_back: false },
            // Settings outlast PREPARE TRANSACTION.
            "PREPARE" if standard.kind == StandardKind::EndTransaction => {
                Change::EndOfTransaction { rolls_back: false }
            }
            "ROLLBACK" | "ABORT" => Change::EndOfTransaction { rolls_back: true },
            // Settings of the current transaction.
            "SET" if self.tokens.at(&["TRANSACTION", "CONSTRAINTS"]) => Change::Nothing,
            "SET" if self.tokens.at(&["LOCAL"]) => Change::Transaction,
            // MariaDB's `ANALYZE UPDATE …` executes the UPDATE.
            "ANALYZE" if self.dialect != Dialect::Mysql => Change::Nothing,
            "ANALYZE" if self.tokens.at(&["TABLE", "LOCAL", "NO_WRITE_TO_BINLOG"]) => Change::Nothing,
            "CREATE" => self.create(),
            "DROP" => self.drop(),
            _ if verb.is_one_of(&NO_CHANGE) => Change::Nothing,
            _ => Change::Unknown,
        }
    }

    /// Change by a query, which may contain an INSERT.
    fn query(&mut self) -> Change {
        let mut change = Change::Nothing;
        let mut before: Option<Token<'_>> = None;
        while let Some(token) = self.tokens.next() {
            let after = |words: &[&str]| before.is_some_and(|it| it.is_one_of(words));
            if self.tokens.at_symbol('(') && is_opaque_function(&token) {
                return Change::Unknown;
            }
            let begins = before.is_some_and(|it| it.is_symbol('(') || it.is_symbol(')'));
            let is_change = token.is_one_of(&["INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE"]);
            if begins && is_change && !self.tokens.at_symbol('(') {
                change = Change::Rows;
            } else if token.is("INTO")
                && self.dialect == Dialect::Postgresql
                && !after(&["INSERT", "MERGE"])
                && change == Change::Nothing
            {
                while self.tokens.accept(&["TEMP", "TEMPORARY", "LOCAL", "GLOBAL", "UNLOGGED", "TABLE"]) {}
                change = match self.tokens.qualified_name() {
                    Some((name, _)) => Change::Objects { names: vec![name], drops: false },
                    None => Change::Unknown,
                };
            }
            before = Some(token);
        }
        change
    }

    /// A change of rows. The change is unknown if a system table of the database is changed.
    fn rows(self) -> Change {
        let mut tokens = self.tokens;
        while let Some(token) = tokens.next() {
            let Some(name) = token.name() else { continue };
            let is_call = tokens.at_symbol('(');
            let is_system_table = match self.dialect {
                Dialect::Mysql => name == "mysql" && tokens.at_symbol('.'),
                Dialect::Postgresql => name.starts_with("pg_") && !name.starts_with("pg_temp") && !is_call,
                Dialect::Sqlite => {
                    name.starts_with("sqlite_") && (name.ends_with("_master") || name.ends_with("_schema"))
                }
            };
            if is_system_table || (is_call && is_opaque_function(&token)) {
                return Change::Unknown;
            }
        }
        Change::Rows
    }

    fn create(&mut self) -> Change {
        let mut drops = false;
        loop {
            if self.tokens.accept(&["REPLACE"]) {
                drops = true;
            } else if !self.tokens.accept(&BEFORE_OBJECT) {
                break;
            }
        }
        let is_index = self.tokens.at(&["INDEX"]);
        if !self.tokens.accept(&["TABLE", "VIEW", "INDEX"]) {
            return Change::Unknown;
        }
        self.tokens.accept(&["CONCURRENTLY"]);
        self.skip_if_exists();
        let mut names = Vec::new();
        if !self.tokens.at(&["ON"]) {
            names.extend(self.tokens.qualified_name().map(|(name, _)| name));
        }
        if is_index {
            self.tokens.by_ref().find(|token| token.is("ON"));
            self.tokens.accept(&["ONLY"]);
            names.extend(self.tokens.qualified_name().map(|(name, _)| name));
        }
        if names.is_empty() || self.tokens.calls(is_opaque_function) {
            Change::Unknown
        } else {
            Change::Objects { names, drops }
        }
    }

    fn drop(&mut self) -> Change {
        self.tokens.accept(&["TEMPORARY", "MATERIALIZED"]);
        if !self.tokens.accept(&["TABLE", "VIEW", "INDEX"]) {
            return Change::Unknown;
        }
        self.tokens.accept(&["CONCURRENTLY"]);
        self.skip_if_exists();
        let mut names = Vec::new();
        loop {
            let Some((name, _)) = self.tokens.qualified_name() else {
                return Change::Unknown;
            };
            names.push(name);
            if !self.tokens.at_symbol(',') && !self.tokens.accept(&["ON"]) {
                break;
            }
            if self.tokens.at_symbol(',') {
                self.tokens.next();
            }
        }
        // CASCADE also drops objects that depend on them.
        let cascades = self.tokens.any(|token| token.is("CASCADE"));
        if cascades { Change::Unknown } else { Change::Objects { names, drops: true } }
    }

    fn skip_if_exists(&mut self) {
        if self.tokens.accept(&["IF"]) {
            self.tokens.accept(&["NOT"]);
            self.tokens.accept(&["EXISTS"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::classify::classify;
    use super::*;

    fn of(sql: &str, dialect: Dialect) -> Change {
        change(sql, &classify(sql, dialect), dialect)
    }

    fn objects(names: &[&str], drops: bool) -> Change {
        Change::Objects { names: names.iter().map(|&name| name.to_owned()).collect(), drops }
    }

    use Dialect::{Mysql, Postgresql, Sqlite};

    #[test]
    fn changes_of_rows_and_of_objects_are_distinguished() {
        for (sql, dialect) in [
            ("INSERT INTO t VALUES (1)", Sqlite),
            ("-- x\nUPDATE t SET a = 1", Mysql),
            ("DELETE FROM sqlite_sequence", Sqlite),
            ("REPLACE INTO t VALUES (1)", Mysql),
            ("SET STATEMENT a = 1 FOR UPDATE t SET b = 1", Mysql),
            ("/*!40101 DELETE FROM t */", Mysql),
            ("TRUNCATE t", Postgresql),
            ("LOAD DATA INFILE 'f' INTO TABLE t", Mysql),
            ("COPY t FROM 'f'", Postgresql),
            ("WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", Postgresql),
            ("WITH d AS (SELECT 1) INSERT INTO t SELECT * FROM d", Postgresql),
            ("INSERT INTO t SELECT pg_sleep(1)", Postgresql),
        ] {
            assert_eq!(of(sql, dialect), Change::Rows, "{sql}");
        }
        for (sql, dialect, expected) in [
            ("CREATE TABLE d.T (a INT)", Mysql, objects(&["t"], false)),
            ("CREATE TEMP TABLE IF NOT EXISTS \"T u\" AS SELECT 1", Sqlite, objects(&["t u"], false)),
            ("CREATE OR REPLACE VIEW v AS SELECT 1", Postgresql, objects(&["v"], true)),
            ("CREATE UNIQUE INDEX CONCURRENTLY i ON ONLY s.t (a)", Postgresql, objects(&["i", "t"], false)),
            ("CREATE INDEX ON t (a)", Postgresql, objects(&["t"], false)),
            ("CREATE TABLE t (a INT, dblink_x TEXT)", Postgresql, objects(&["t"], false)),
            ("DROP TABLE IF EXISTS t, s.u", Postgresql, objects(&["t", "u"], true)),
            ("DROP INDEX i ON t", Mysql, objects(&["i", "t"], true)),
            ("DROP MATERIALIZED VIEW v", Postgresql, objects(&["v"], true)),
            ("SELECT * INTO TEMP u FROM t", Postgresql, objects(&["u"], false)),
        ] {
            assert_eq!(of(sql, dialect), expected, "{sql}");
        }
    }

    #[test]
    fn statement_that_may_change_anything_is_unknown() {
        for (sql, dialect) in [
            ("ALTER TABLE t ADD COLUMN a INT", Sqlite),
            ("RENAME TABLE t TO u", Mysql),
            ("CREATE FUNCTION f() RETURNS INT RETURN 1", Mysql),
            ("CREATE SCHEMA s", Postgresql),
            ("DROP SCHEMA s", Postgresql),
            ("DROP TABLE t CASCADE", Postgresql),
            ("DROP FUNCTION f", Postgresql),
            ("CALL p()", Mysql),
            ("DO $$ BEGIN END $$", Postgresql),
            ("EXECUTE s", Postgresql),
            ("PREPARE s FROM 'DROP TABLE t'", Mysql),
            ("GRANT SELECT ON t TO u", Postgresql),
            ("SET GLOBAL sql_mode = ''", Mysql),
            ("SET autocommit = 0, sql_mode = 'ANSI_QUOTES'", Mysql),
            ("SET max_statement_time = (SELECT a FROM t)", Mysql),
            ("SET sql_mode = f()", Mysql),
            ("INSERT INTO t VALUES (1) /*! , (2) */", Mysql),
            ("UPDATE pg_catalog.pg_class SET relname = 'x'", Postgresql),
            ("DELETE FROM mysql.proc", Mysql),
            ("UPDATE sqlite_master SET sql = ''", Sqlite),
            ("SELECT dblink_exec('DROP TABLE t')", Postgresql),
            ("INSERT INTO t SELECT * FROM dblink('x', 'DROP TABLE t')", Postgresql),
            ("SELECT set_config('search_path', a, false) FROM t", Postgresql),
            ("SELECT load_extension('x')", Sqlite),
            ("ANALYZE UPDATE t SET a = 1", Mysql),
            ("EXPLAIN ANALYZE DELETE FROM t", Postgresql),
            ("COPY t TO PROGRAM 'x'", Postgresql),
            ("PRAGMA writable_schema = 1", Sqlite),
            ("frobnicate", Sqlite),
        ] {
            assert_eq!(of(sql, dialect), Change::Unknown, "{sql}");
        }
    }

    #[test]
    fn settings_and_transactions_are_recognized() {
        let end = |rolls_back| Change::EndOfTransaction { rolls_back };
        for (sql, dialect, expected) in [
            ("USE d", Mysql, Change::Session),
            ("SET search_path = s", Postgresql, Change::Session),
            ("SET sql_mode = CONCAT(@@sql_mode, ',ANSI')", Mysql, Change::Session),
            ("SELECT set_config('search_path', 's', false)", Postgresql, Change::Session),
            ("RESET ALL", Postgresql, Change::Session),
            ("ATTACH 'f' AS x", Sqlite, Change::Session),
            ("PRAGMA case_sensitive_like = 1", Sqlite, Change::Session),
            ("PRAGMA main.hard_heap_limit = 1", Sqlite, Change::Nothing),
            ("SET LOCAL search_path = s", Postgresql, Change::Transaction),
            ("SET TRANSACTION READ ONLY", Postgresql, Change::Nothing),
            ("SET @n = (SELECT 1)", Mysql, Change::Nothing),
            ("SELECT a INTO @n FROM t", Mysql, Change::Nothing),
            ("SELECT * FROM t INTO OUTFILE 'f'", Mysql, Change::Nothing),
            ("SET autocommit = 0", Mysql, Change::Nothing),
            ("BEGIN", Sqlite, Change::Nothing),
            ("START TRANSACTION", Mysql, Change::Nothing),
            ("COMMIT", Sqlite, end(false)),
            ("ROLLBACK TO a", Sqlite, end(true)),
            ("SAVEPOINT a", Sqlite, Change::Nothing),
            ("ANALYZE TABLE t", Mysql, Change::Nothing),
            ("VACUUM", Sqlite, Change::Nothing),
            ("SELECT nextval('s')", Postgresql, Change::Nothing),
            ("(SELECT 1) UNION SELECT REPLACE(a, 'b', 'c') FROM t FOR UPDATE", Mysql, Change::Nothing),
        ] {
            assert_eq!(of(sql, dialect), expected, "{sql}");
        }
    }
}
