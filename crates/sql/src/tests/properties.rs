//! Properties of all programs.

use proptest::prelude::*;

use super::super::expression_parser::parse_expression;
use super::super::{Dialect, compile, parse_program};
use super::cases::programs;

/// Statements with tricky quotes and comments, valid in every dialect.
const STANDARD: [&str; 9] = [
    "SELECT 1",
    " SELECT ';', 'it''s' ",
    "\nINSERT INTO t VALUES (\"a;\", '-- x')",
    "/* ; ' */ SELECT 2 /* \" */ + 1",
    "-- ; to train x\nUPDATE t SET a = 'TO TRAIN e INTO m'",
    "SELECT (a TO TRAIN) FROM t",
    "CREATE TABLE t (a INT)",
    "\t\u{a0}USE d",
    "DELETE FROM t WHERE s LIKE '%;'",
];

const EXTENDED: [&str; 5] = [
    "SELECT * FROM t TO TRAIN E WITH a=\"x;\", b=[1,-2] COLUMN c, DENSE(d, 3) LABEL l INTO m",
    "SELECT ';' TO PREDICT r.c USING m",
    " SELECT a\nFROM t TO EXPLAIN m WITH s='-- ;' INTO r",
    "(SELECT 1) TO EVALUATE m LABEL \"l\" INTO r",
    "SHOW TRAIN m",
];

fn dialect() -> impl Strategy<Value = Dialect> {
    proptest::sample::select(&Dialect::ALL[..])
}

/// Text of any expression.
fn expression() -> impl Strategy<Value = String> {
    let leaf = proptest::sample::select(
        &["a", "a.b-c", "multi:softmax", "1", ".5e-3", "'x\\'y'", "\"it's\"", "f()"][..],
    )
    .prop_map(str::to_owned);
    leaf.prop_recursive(6, 40, 4, |inner| {
        let operators = &["AND", "or", ">", "<", "=", "<=", ">=", "!=", "<>", "+", "-", "*", "/", "%"][..];
        let items = proptest::collection::vec(inner.clone(), 0..4);
        prop_oneof![
            (inner.clone(), proptest::sample::select(operators), inner.clone())
                .prop_map(|(left, op, right)| format!("{left} {op} {right}")),
            inner.clone().prop_map(|of| format!("({of})")),
            inner.clone().prop_map(|of| format!("- {of}")),
            inner.prop_map(|of| format!("NOT {of}")),
            items.clone().prop_map(|items| format!("[{}]", items.join(","))),
            items.prop_map(|items| format!("F({})", items.join(" , "))),
        ]
    })
}

/// A case with a few pieces of it moved, doubled or dropped.
fn mutated_case() -> impl Strategy<Value = String> {
    let edits = proptest::collection::vec((any::<usize>(), any::<usize>(), any::<usize>()), 1..6);
    (proptest::sample::select(programs()), edits).prop_map(|(sql, edits)| {
        let mut chars: Vec<char> = sql.chars().collect();
        for (from, length, to) in edits {
            if chars.is_empty() {
                break;
            }
            let from = from % chars.len();
            let piece: Vec<char> = chars[from..].iter().copied().take(length % 9).collect();
            if to % 2 == 0 {
                chars.drain(from..from + piece.len());
            }
            let to = to % (chars.len() + 1);
            chars.splice(to..to, piece);
        }
        chars.into_iter().collect()
    })
}

/// Checks the properties that hold for any text.
fn check(sql: &str, dialect: Dialect) -> Result<(), TestCaseError> {
    let program = match parse_program(sql, dialect) {
        Ok(program) => program,
        Err(error) => {
            let lines = sql.split('\n').count();
            prop_assert!((1..=lines).contains(&error.line), "{error}");
            let line = sql.split('\n').nth(error.line - 1).unwrap_or_default();
            prop_assert!((1..=line.chars().count() + 1).contains(&error.column), "{error}");
            prop_assert!(!error.to_string().is_empty() && error.caret(sql).ends_with('^'));
            return Ok(());
        }
    };
    let mut end = 0;
    for statement in &program.statements {
        prop_assert_eq!(&sql[statement.span.clone()], &statement.text);
        prop_assert!(statement.span.start >= end);
        // There is no statement between two statements.
        let gap = parse_program(&sql[end..statement.span.start], dialect);
        prop_assert!(gap.is_ok_and(|gap| gap.statements.is_empty()));
        end = statement.span.end;
    }
    let rest = parse_program(&sql[end..], dialect);
    prop_assert!(rest.is_ok_and(|rest| rest.statements.is_empty()));
    let _ = compile(sql, dialect);
    Ok(())
}

proptest! {
    // Failures are printed whole; a file of seeds would be one more thing to keep.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn joined_statements_are_split_again(
        statements in proptest::collection::vec(proptest::sample::select([&STANDARD[..], &EXTENDED[..]].concat()), 0..9),
        dialect in dialect(),
    ) {
        let sql: String = statements.iter().map(|statement| format!("{statement};")).collect();
        let program = parse_program(&sql, dialect).expect("every statement is good");
        let texts: String = program.statements.iter().map(|statement| statement.text.as_str()).collect();
        prop_assert_eq!(program.statements.len(), statements.len());
        for (got, statement) in program.statements.iter().zip(&statements) {
            prop_assert_eq!(got.text.trim().strip_suffix(';'), Some(statement.trim_start()));
        }
        prop_assert_eq!(texts, sql);
    }

    #[test]
    fn canonical_text_parses_to_the_same_expression(text in expression()) {
        let expr = parse_expression(&text).expect("the expression parses");
        prop_assert_eq!(parse_expression(&expr.to_string()), Ok(expr));
    }

    #[test]
    fn any_text_is_split_or_rejected(sql in "\\PC*", dialect in dialect()) {
        check(&sql, dialect)?;
    }

    #[test]
    fn any_mix_of_quotes_and_comments_is_split_or_rejected(
        sql in "([;'\"`#$\\[\\]()/*!\\\\\n @:=,.-]|a|é|1|TO |TRAIN |SELECT |FROM |SHOW |CREATE TRIGGER |BEGIN |END |IF){0,40}",
        dialect in dialect(),
    ) {
        check(&sql, dialect)?;
    }

    #[test]
    fn mutated_case_is_split_or_rejected(sql in mutated_case(), dialect in dialect()) {
        check(&sql, dialect)?;
    }
}
