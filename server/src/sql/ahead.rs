//! Statements whose tables and columns can be checked before an earlier statement does its work: a training of hours
//! must not end in a misspelt column of the next statement.

use std::collections::HashSet;

use super::ast::{Body, Program, Statement};
use super::classify::{StandardKind, Tokens};
use super::overwrites::bare_name;
use super::steps::{Step, StepKind};

/// Gives each step that begins a row of extended statements those that follow in the row.
///
/// What changes the database or the session ends a row, as what follows may need it. A statement that reads a table which
/// the row itself makes cannot be checked before.
pub(super) fn plan_ahead(program: &Program, steps: &mut [Step]) {
    let mut first: Option<usize> = None;
    let mut made: HashSet<String> = HashSet::new();
    for place in 0..steps.len() {
        let statement = match &steps[place].kind {
            StepKind::Extended(statement) => *statement,
            StepKind::StandardRun(run) => {
                if !run.iter().all(|&index| only_reads(&program.statements[index])) {
                    first = None;
                }
                continue;
            }
        };
        let body = &program.statements[statement].body;
        match first {
            None => {
                first = Some(place);
                made.clear();
            }
            Some(first) if !mentions(body, program, &made) => steps[first].ahead.push(statement),
            Some(_) => {}
        }
        made.extend(body.result_table().map(bare_name));
    }
}

fn only_reads(statement: &Statement) -> bool {
    match &statement.body {
        Body::Standard(standard) => standard.repeatable && standard.kind == StandardKind::Query,
        _ => false,
    }
}

/// Whether one of its selects has one of these names anywhere.
fn mentions(body: &Body, program: &Program, made: &HashSet<String>) -> bool {
    if made.is_empty() {
        return false;
    }
    let has = |sql: &str| {
        Tokens::new(sql, program.dialect).any(|token| token.name().is_some_and(|name| made.contains(&name)))
    };
    body.selects().any(|sql| has(&sql))
}

#[cfg(test)]
mod tests {
    use crate::sql::{Dialect, compile};

    #[test]
    fn what_does_not_hang_on_the_row_itself_is_checked_ahead() {
        let train = |from: &str| format!("SELECT * FROM {from} TO TRAIN xgboost.gbtree LABEL y INTO m;\n");
        let predict = |from: &str, into: &str| format!("SELECT * FROM {from} TO PREDICT {into}.y USING m;\n");
        let ahead = |sql: &str| -> Vec<Vec<usize>> {
            let compiled = compile(sql, Dialect::Mysql).unwrap_or_else(|error| panic!("{sql}: {error}"));
            compiled.steps.into_iter().map(|step| step.ahead).collect()
        };
        let row = [train("t"), predict("t", "d.p"), predict("`P`", "q"), predict("u", "r")].concat();
        assert_eq!(
            ahead(&row),
            [vec![1, 3], vec![], vec![], vec![]],
            "the third reads what the second makes"
        );
        let read = [train("t"), "SELECT 1; SHOW TABLES;\n".to_owned(), predict("t", "p")].concat();
        assert_eq!(ahead(&read), [vec![3], vec![], vec![]]);
        for between in ["CREATE TABLE u (a INT);", "USE d;", "SET @a = 1;"] {
            let changed = [train("t"), between.to_owned(), predict("u", "p"), predict("v", "q")].concat();
            assert_eq!(ahead(&changed), [vec![], vec![], vec![3], vec![]], "{between}");
        }
        let held_out = train("t").replace("LABEL", "WITH validation.select='SELECT * FROM p' LABEL");
        assert_eq!(ahead(&[predict("t", "p"), held_out].concat()), [Vec::<usize>::new(), vec![]]);
    }
}
