//! Statements that can be checked before an earlier statement does its work: a training of hours must not end in a
//! misspelt column of the next statement.

use std::collections::HashSet;

use super::ast::{Body, Program, Statement};
use super::classify::{StandardKind, Tokens};
use super::overwrites::bare_name;
use super::steps::{Step, StepKind};

/// A statement that follows in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// Its index in the program.
    pub statement: usize,
    /// It names a table that the row itself makes: what it reads is not there yet. What it makes still counts.
    pub hangs_on_row: bool,
}

/// Gives each step that begins a row of extended statements what follows in the row.
///
/// What changes the database or the session ends a row, as what follows may need it. Queries do not, and are a part of it.
pub(super) fn plan_ahead(program: &Program, steps: &mut [Step]) {
    let mut first: Option<usize> = None;
    let mut made: HashSet<String> = HashSet::new();
    for place in 0..steps.len() {
        let statements = steps[place].kind.statements().to_vec();
        let is_extended = matches!(steps[place].kind, StepKind::Extended(_));
        if !is_extended && !statements.iter().all(|&index| only_reads(&program.statements[index])) {
            first = None;
            continue;
        }
        let Some(first) = first else {
            if is_extended {
                first = Some(place);
                made = made_by(program, &statements).collect();
            }
            continue;
        };
        for &statement in &statements {
            let hangs_on_row = mentions(&program.statements[statement], program, &made);
            steps[first].ahead.push(Ahead { statement, hangs_on_row });
        }
        made.extend(made_by(program, &statements));
    }
}

/// The names of the tables that the statements make.
fn made_by<'a>(program: &'a Program, statements: &'a [usize]) -> impl Iterator<Item = String> + 'a {
    statements.iter().filter_map(|&it| program.statements[it].body.result_table().map(bare_name))
}

fn only_reads(statement: &Statement) -> bool {
    match &statement.body {
        Body::Standard(standard) => standard.repeatable && standard.kind == StandardKind::Query,
        _ => false,
    }
}

/// Whether one of its selects, or the query that it is, has one of these names anywhere.
fn mentions(statement: &Statement, program: &Program, made: &HashSet<String>) -> bool {
    if made.is_empty() {
        return false;
    }
    let has = |sql: &str| {
        Tokens::new(sql, program.dialect).any(|token| token.name().is_some_and(|name| made.contains(&name)))
    };
    match &statement.body {
        Body::Standard(_) => has(&statement.text),
        body => body.selects().any(|sql| has(&sql)),
    }
}

#[cfg(test)]
mod tests {
    use crate::{Dialect, compile};

    #[test]
    fn what_does_not_hang_on_the_row_itself_is_checked_ahead() {
        let train = |from: &str| format!("SELECT * FROM {from} TO TRAIN xgboost.gbtree LABEL y INTO m;\n");
        let predict = |from: &str, into: &str| format!("SELECT * FROM {from} TO PREDICT {into}.y USING m;\n");
        // Those that cannot be checked have a minus.
        let ahead = |sql: &str| -> Vec<Vec<i64>> {
            let compiled = compile(sql, Dialect::Mysql).unwrap_or_else(|error| panic!("{sql}: {error}"));
            let number = |it: super::Ahead| {
                let index = i64::try_from(it.statement).unwrap();
                if it.hangs_on_row { -index } else { index }
            };
            compiled.steps.into_iter().map(|step| step.ahead.into_iter().map(number).collect()).collect()
        };
        let row = [train("t"), predict("t", "d.p"), predict("`P`", "q"), predict("u", "r")].concat();
        assert_eq!(
            ahead(&row),
            [vec![1, -2, 3], vec![], vec![], vec![]],
            "the third reads what the second makes"
        );
        let read = [
            train("t"),
            "SELECT 1; SHOW TABLES;\n".to_owned(),
            predict("t", "p"),
            "SELECT * FROM p;".to_owned(),
        ]
        .concat();
        assert_eq!(ahead(&read), [vec![1, 2, 3, -4], vec![], vec![], vec![]]);
        for between in ["CREATE TABLE u (a INT);", "USE d;", "SET @a = 1;"] {
            let changed = [train("t"), between.to_owned(), predict("u", "p"), predict("v", "q")].concat();
            assert_eq!(ahead(&changed), [vec![], vec![], vec![3], vec![]], "{between}");
        }
        let held_out = train("t").replace("LABEL", "WITH validation.select='SELECT * FROM p' LABEL");
        assert_eq!(ahead(&[predict("t", "p"), held_out].concat()), [vec![-1], vec![]]);
    }
}
