//! Tests of `first_words`: what is hidden in each dialect, and that no secret is shown.

use proptest::prelude::*;
use proptest::sample::select;

use super::super::splitter::parse_program;
use super::Dialect::{Mysql, Postgresql, Sqlite};
use super::*;

fn title(sql: &str, dialect: Dialect) -> String {
    let program = parse_program(sql, dialect).unwrap_or_else(|error| panic!("{dialect}: {sql}: {error}"));
    first_words(sql, &program)
}

fn check(dialect: Dialect, cases: &[(&str, &str)]) {
    for (sql, expected) in cases {
        assert_eq!(title(sql, dialect), *expected, "{dialect}: {sql}");
    }
}

#[test]
fn title_has_the_first_words_and_hides_strings() {
    for dialect in Dialect::ALL {
        check(
            dialect,
            &[
                ("SELECT 1;", "SELECT 1;"),
                ("\u{feff}SELECT 1;;\n SELECT 2", "SELECT 1; SELECT 2"),
                ("-- nightly 'x\n/* for ana */ SELECT  a,\n\tb FROM t", "SELECT a, b FROM t"),
                ("SELECT 'it''s a secret', \"ana\"\"s\" FROM t", "SELECT '…', '…' FROM t"),
                ("-- nothing", ""),
                ("SELECT a/*b*/c", "SELECT a c"),
                (
                    "SELECT * FROM t TO TRAIN e WITH a.b='it\\'s',c=\"x\" LABEL `my l` -- z\nINTO m;",
                    "SELECT * FROM t TO TRAIN e WITH a.b='…',c='…' LABEL `my l` INTO m;",
                ),
                ("DROP MODEL m; SHOW MODELS", "DROP MODEL m; SHOW MODELS"),
            ],
        );
        let long = title(&"SELECT é, ".repeat(10_000), dialect);
        assert!(long.ends_with('…') && long.chars().count() <= MAX_CHARACTERS + 1, "{long}");
        assert_eq!(title(&format!("SELECT '{}' FROM t", "x".repeat(20_000)), dialect), "SELECT '…'…");
        assert_eq!(title(&format!("SELECT 1 /*{}*/ FROM t", "x".repeat(20_000)), dialect), "SELECT 1…");
        assert_eq!(title(&format!("{};SELECT 1", " ".repeat(20_000)), dialect), "…");
        let exact = format!("SELECT {}", "x".repeat(MAX_CHARACTERS - 7));
        assert_eq!(title(&exact, dialect), exact);
        assert_eq!(title(&format!("{exact}y"), dialect), format!("{exact}…"));
    }
}

#[test]
fn title_hides_strings_and_comments_of_its_dialect() {
    let backslash = r"INSERT INTO t VALUES ('C:\', 'secret')";
    let hidden = "INSERT INTO t VALUES ('…', '…')";
    check(
        Mysql,
        &[
            ("SELECT 'a\\'b', \"ana\\\"s\", 7 FROM `t'x`", "SELECT '…', '…', 7 FROM `t'x`"),
            ("# don't log\nCREATE USER a IDENTIFIED BY 'pw'", "CREATE USER …"),
            ("# don't log\nINSERT INTO t VALUES ('pw')", "INSERT INTO t VALUES ('…')"),
            ("SELECT /*! STRAIGHT_JOIN */ a", "SELECT '…' a"),
            ("SELECT /*! '*/ secret', ' */ a", "SELECT '…'…"),
            // Hive's comment.
            ("SELECT 1 --don't\nFROM t WHERE a = 'secret'' FROM t", "SELECT 1 -…"),
        ],
    );
    check(
        Postgresql,
        &[
            (backslash, hidden),
            ("SELECT $$s'e$$, 7", "SELECT '…', 7"),
            ("SELECT $x$secret$x$, $1", "SELECT '…', $1"),
            ("SELECT 1$$don't$$, 'secret'", "SELECT 1'…', '…'"),
            ("SELECT $🦀$don't$🦀$, 'secret'", "SELECT '…', '…'"),
            (r"SELECT E'it\'s', U&'d\0061', 'C:\'", "SELECT '…', U&'…', '…'"),
            ("SELECT E'a' -- b\n  'it\\'s', 'secret' FROM t", "SELECT '…', '…' FROM t"),
            ("SELECT E'a' 'C:\\', 'secret'", "SELECT '…' '…', '…'"),
            ("SELECT a # b /* /* don't */ 'c */, 'secret'", "SELECT a # b , '…'"),
            ("SELECT 1 TO /* /* */ don't */ TRAIN e LABEL l INTO m", "SELECT 1 TO TRAIN e LABEL l INTO m"),
        ],
    );
    check(
        Sqlite,
        &[
            (backslash, hidden),
            ("SELECT [it's], `b'c`, 'secret' FROM t", "SELECT [it's], `b'c`, '…' FROM t"),
            ("SELECT [a\nit's], 'secret', 'x''", "SELECT…"),
            ("é/*", "é"),
        ],
    );
}

#[test]
fn title_of_a_statement_with_a_password_is_its_verb() {
    for dialect in Dialect::ALL {
        check(
            dialect,
            &[
                ("CREATE USER a IDENTIFIED BY pw; SELECT 1", "CREATE USER …; SELECT 1"),
                ("create or replace user a identified by pw", "create or replace user …"),
                ("ALTER ROLE a PASSWORD pw", "ALTER ROLE …"),
                ("SET PASSWORD = pw;", "SET PASSWORD …;"),
                ("GRANT ALL ON *.* TO a IDENTIFIED BY pw", "GRANT ALL …"),
                ("GRANT SELECT ON t TO a", "GRANT SELECT ON t TO a"),
                ("PRAGMA main.key = pw", "PRAGMA main …"),
                ("CREATE TABLE user (password TEXT)", "CREATE TABLE user (password TEXT)"),
            ],
        );
    }
}

const SECRET: &str = "hunter2";

/// Text with the secret, and with characters that may end a string or a comment.
fn inner() -> impl Strategy<Value = String> {
    let traps = "(['\"`$#*/\\\\\n;\\[\\]() !-]|--|/\\*|\\*/|\\$\\$|é|a){0,6}";
    (traps, traps).prop_map(|(before, after)| format!("{before}{SECRET}{after}"))
}

fn doubled(text: &str, quote: char) -> String {
    format!("{quote}{}{quote}", text.replace(quote, &format!("{quote}{quote}")))
}

fn escaped(text: &str, quote: char) -> String {
    format!("{quote}{}{quote}", text.replace('\\', "\\\\").replace(quote, &format!("\\{quote}")))
}

fn without(text: &str, dropped: &[char]) -> String {
    text.replace(dropped, "")
}

/// All forms of a string or comment with this text in a dialect.
fn covers(text: &str, dialect: Dialect) -> Vec<String> {
    let line = without(text, &['\n']);
    let block = without(text, &['*', '/']);
    let mut covers = vec![format!("-- {line}\n"), format!("/* {block} */")];
    match dialect {
        Mysql => {
            let slashes = text.replace('\\', "\\\\");
            covers.extend(['\'', '"'].map(|quote| escaped(text, quote)));
            covers.extend(['\'', '"'].map(|quote| doubled(&slashes, quote)));
            covers.push(format!("#{line}\n"));
            covers.push(format!("/*! {block} */"));
            covers.push(format!("/*!50000 CONCAT({}) */", escaped(&block, '\'')));
        }
        Postgresql => {
            covers.extend(['\'', '"'].map(|quote| doubled(text, quote)));
            let e = escaped(text, '\'');
            covers.extend([format!("E{e}"), format!("e'a'\n{e}"), format!("E'a' -- it's\n {e}")]);
            covers.push(format!("/* /* it's */ {block} */"));
            let dollar = without(text, &['$']);
            covers.extend([
                format!("$${dollar}$$"),
                format!("1$${dollar}$$"),
                format!("$1$${dollar}$$"),
                format!("$x_1${text}$x_1$"),
            ]);
        }
        Sqlite => covers.extend(['\'', '"'].map(|quote| doubled(text, quote))),
    }
    covers
}

/// A statement with the secret in it.
fn statement(dialect: Dialect) -> impl Strategy<Value = String> {
    let plain = select(vec!["a", "1", "b,", "+", "(c)", "\"d\"", "'e'", "`f`", "x.y", "$1", "''"]);
    let plain =
        plain.prop_map(move |it| if dialect == Postgresql { it.replace('`', "") } else { it.to_owned() });
    let hidden = (inner(), any::<prop::sample::Index>()).prop_map(move |(text, index)| {
        let covers = covers(&text, dialect);
        covers[index.index(covers.len())].clone()
    });
    let pieces = prop::collection::vec(prop_oneof![plain, hidden], 1..5);
    let clause = (inner(), 0..6_usize).prop_map(|(text, kind)| {
        let value = match kind {
            0 => escaped(&text, '"'),
            1 => format!("# {}\n 1", without(&text, &['\n'])),
            2 => format!("--{}\n 1", without(&text, &['\n'])),
            3 => format!("/* {} */ 1", without(&text, &['*', '/'])),
            _ => escaped(&text, '\''),
        };
        format!("TO TRAIN E WITH a={value} LABEL l INTO m")
    });
    let verb = select(vec!["SELECT", "INSERT INTO t VALUES", "CREATE USER a IDENTIFIED BY"]);
    prop_oneof![
        (verb, pieces.clone()).prop_map(|(verb, it)| format!("{verb} {}", it.join(" "))),
        (pieces, clause).prop_map(|(it, clause)| format!("SELECT {}\n{clause}", it.join(" "))),
    ]
}

fn program() -> impl Strategy<Value = (Dialect, String)> {
    select(&Dialect::ALL[..]).prop_flat_map(|dialect| {
        prop::collection::vec(statement(dialect), 1..4).prop_map(move |it| (dialect, it.join(";\n")))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn title_shows_no_secret((dialect, sql) in program()) {
        let title = title(&sql, dialect);
        prop_assert!(!title.contains(SECRET), "{title}");
        prop_assert!(title.chars().count() <= MAX_CHARACTERS + 1 && !title.contains(char::is_control), "{title}");
    }

    #[test]
    fn title_of_any_program_is_bounded(sql in "([;'\"`#$\\[\\]()/*!\\\\\n-]|a|é|1|TO |TRAIN |SELECT |SHOW |CREATE OR ){0,40}") {
        for dialect in Dialect::ALL {
            if let Ok(program) = parse_program(&sql, dialect) {
                let title = first_words(&sql, &program);
                prop_assert!(title.chars().count() <= MAX_CHARACTERS + 1, "{title}");
            }
        }
    }
}
