//! Statements that can be checked before an earlier statement does its work: a training of hours must not end in a
//! misspelt column of the next statement.

use std::collections::HashSet;

use super::ast::{Body, Program, Statement};
use super::changes::{Change, change};
use super::classify::{StandardKind, Tokens};
use super::dialect::Dialect;
use super::overwrites::bare_name;
use super::scan::TokenKind;
use super::steps::{Step, StepKind};

/// Longest name of a table, in bytes, that is looked for at the beginning of a longer name.
const MAX_PREFIX: usize = 256;

/// A statement that follows in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// Its index in the program.
    pub statement: usize,
    /// It cannot be checked: it names a table that the row itself makes or changes, or its session is not known. What it
    /// does still counts.
    pub hangs_on_row: bool,
    /// What it changes for the checks of later statements.
    pub effect: Effect,
}

/// What a standard statement changes for the checks of later statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Rows of tables.
    Rows,
    /// Settings of the session.
    Session,
    /// Tables and views.
    Objects {
        /// Their names in lower case, without their schema.
        names: Vec<String>,
        /// They may be dropped.
        drops: bool,
    },
}

/// Gives each step that begins a row of statements what follows in the row.
///
/// What may change anything ends a row. Within a row, a statement is not checked if it names what the row makes. So a
/// second row begins, inside the first one, behind what it makes. A statement is in two rows at most: the first one, and
/// the latest.
pub(super) fn plan_ahead(program: &Program, steps: &mut [Step]) {
    let mut planner = Planner { program, steps, rows: Vec::new() };
    for place in 0..planner.steps.len() {
        match planner.steps[place].kind.clone() {
            StepKind::Extended(statement) => planner.extended(place, statement),
            StepKind::StandardRun(run) => planner.run(&run),
        }
    }
}

/// A row of statements.
struct Row {
    /// The step that begins it.
    step: usize,
    /// The names of what its statements make or change.
    made: HashSet<String>,
}

struct Planner<'a> {
    program: &'a Program,
    steps: &'a mut [Step],
    /// None, one, or two of them.
    rows: Vec<Row>,
}

/// What the statements of a run have done to their session.
#[derive(Default)]
struct Session {
    /// A setting of the transaction holds.
    has_local: bool,
    /// Settings were changed since the last transaction ended.
    has_settings: bool,
    /// Variables have values that are not known.
    has_variables: bool,
}

impl Planner<'_> {
    fn extended(&mut self, step: usize, statement: usize) {
        self.add(statement, false, &Effect::None);
        if self.rows.last().is_none_or(|row| !row.made.is_empty()) {
            self.rows.truncate(1);
            self.rows.push(Row { step, made: HashSet::new() });
        }
        if let Some(table) = self.program.statements[statement].body.result_table() {
            self.make(&[bare_name(table)]);
        }
    }

    fn run(&mut self, run: &[usize]) {
        let mut session = Session::default();
        for &index in run {
            if self.rows.is_empty() {
                return;
            }
            match self.effect(index, &mut session) {
                Some(effect) => {
                    self.add(index, session.has_local, &effect);
                    if let Effect::Objects { names, .. } = &effect {
                        self.make(names);
                    }
                }
                None => self.rows.clear(),
            }
        }
    }

    /// What a standard statement changes. `None` if it may be anything.
    fn effect(&self, index: usize, session: &mut Session) -> Option<Effect> {
        let statement = &self.program.statements[index];
        let Body::Standard(standard) = &statement.body else { return None };
        session.has_variables |= matches!(standard.kind, StandardKind::SetVariables { .. });
        match change(&statement.text, standard, self.program.dialect) {
            Change::Nothing => Some(Effect::None),
            Change::Rows => Some(Effect::Rows),
            Change::Objects { names, drops } => Some(Effect::Objects { names, drops }),
            Change::Transaction => {
                session.has_local = true;
                Some(Effect::None)
            }
            Change::EndOfTransaction { rolls_back } => {
                // Only PostgreSQL undoes settings.
                let is_undone = rolls_back && self.program.dialect == Dialect::Postgresql;
                let is_known = !(is_undone && (session.has_settings || session.has_local));
                session.has_local = false;
                session.has_settings = false;
                is_known.then_some(Effect::None)
            }
            Change::Session => {
                session.has_settings = true;
                let reads_variable = session.has_variables && statement.text.contains('@');
                let hangs = self.rows.iter().any(|row| mentions(statement, self.program, &row.made));
                (!session.has_local && !reads_variable && !hangs).then_some(Effect::Session)
            }
            Change::Unknown => None,
        }
    }

    /// Adds a statement to the rows.
    fn add(&mut self, statement: usize, is_unknown: bool, effect: &Effect) {
        for row in &self.rows {
            let hangs_on_row =
                is_unknown || mentions(&self.program.statements[statement], self.program, &row.made);
            let ahead = Ahead { statement, hangs_on_row, effect: effect.clone() };
            self.steps[row.step].ahead.push(ahead);
        }
    }

    fn make(&mut self, names: &[String]) {
        for row in &mut self.rows {
            for name in names {
                // In a text, a name with a blank is not one word.
                row.made.extend(words(name).map(str::to_owned));
                row.made.insert(name.clone());
            }
        }
    }
}

/// Whether one of its selects, or the standard statement that it is, may name one of these.
fn mentions(statement: &Statement, program: &Program, made: &HashSet<String>) -> bool {
    if made.is_empty() {
        return false;
    }
    let has = |sql: &str| {
        Tokens::new(sql, program.dialect).any(|token| match token.kind {
            // PostgreSQL looks for the table of a text such as `'t'::regclass` at once.
            TokenKind::String | TokenKind::Executed => {
                words(&token.text.to_lowercase()).any(|word| is_made(word, made))
            }
            _ => token.name().is_some_and(|name| is_made(&name, made)),
        })
    };
    match &statement.body {
        Body::Standard(_) => has(&statement.text),
        body => body.selects().any(|sql| has(&sql)),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$'))).filter(|word| !word.is_empty())
}

/// Is it one of these, or something that comes with one of them, as the sequence `t_id_seq` with a table `t`?
fn is_made(name: &str, made: &HashSet<String>) -> bool {
    let mut ends = name.char_indices().take_while(|&(at, _)| at <= MAX_PREFIX);
    made.contains(name) || ends.any(|(at, c)| c == '_' && made.contains(&name[..at]))
}

#[cfg(test)]
mod tests {
    use crate::{Dialect, compile};

    fn train(from: &str) -> String {
        format!("SELECT * FROM {from} TO TRAIN xgboost.gbtree LABEL y INTO m;\n")
    }

    fn predict(from: &str, into: &str) -> String {
        format!("SELECT * FROM {from} TO PREDICT {into}.y USING m;\n")
    }

    /// The row of each step. Those that cannot be checked have a minus.
    fn ahead(sql: &str, dialect: Dialect) -> Vec<Vec<i64>> {
        let compiled = compile(sql, dialect).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let number = |it: super::Ahead| {
            let index = i64::try_from(it.statement).unwrap();
            if it.hangs_on_row { -index } else { index }
        };
        compiled.steps.into_iter().map(|step| step.ahead.into_iter().map(number).collect()).collect()
    }

    #[test]
    fn what_does_not_hang_on_the_row_itself_is_checked_ahead() {
        let ahead = |sql: &str| ahead(sql, Dialect::Mysql);
        let row = [train("t"), predict("t", "d.p"), predict("`P`", "q"), predict("u", "r")].concat();
        assert_eq!(
            ahead(&row),
            [vec![1, -2, 3], vec![], vec![3], vec![]],
            "the third reads what the second makes, and begins a row"
        );
        let read = [
            train("t"),
            "SELECT 1; SHOW TABLES;\n".to_owned(),
            predict("t", "p"),
            "SELECT * FROM p;".to_owned(),
        ]
        .concat();
        assert_eq!(ahead(&read), [vec![1, 2, 3, -4], vec![], vec![], vec![]]);
        let held_out = train("t").replace("LABEL", "WITH validation.select='SELECT * FROM p' LABEL");
        assert_eq!(ahead(&[predict("t", "p"), held_out].concat()), [vec![-1], vec![]]);
    }

    #[test]
    fn a_change_of_anything_ends_a_row() {
        for between in ["ALTER TABLE t ADD b INT;", "CALL p();"] {
            let changed = [train("t"), between.to_owned(), predict("u", "p"), predict("v", "q")].concat();
            assert_eq!(ahead(&changed, Dialect::Mysql), [vec![], vec![], vec![3], vec![]], "{between}");
        }
        let by_variable = train("t") + "SET @a = (SELECT 1); SET x = @a; SELECT 1;";
        assert_eq!(ahead(&by_variable, Dialect::Mysql), [vec![1], vec![]]);
    }

    #[test]
    fn other_changes_do_not() {
        for between in ["INSERT INTO t VALUES (1);", "USE d;", "SET @a = 1;", "BEGIN; COMMIT;"] {
            let count = i64::try_from(between.matches(';').count()).unwrap();
            let changed = [train("t"), between.to_owned(), predict("u", "p"), predict("v", "q")].concat();
            let first: Vec<_> = (1..count + 3).collect();
            assert_eq!(ahead(&changed, Dialect::Mysql), [first, vec![], vec![], vec![]], "{between}");
        }
    }

    #[test]
    fn what_names_a_new_table_hangs_on_it() {
        let made = [
            train("t"),
            "CREATE TABLE u (id serial); INSERT INTO U VALUES (1); SELECT currval('u_id_seq'); DELETE FROM v;\n".into(),
            predict("u_id_seq", "p"),
            predict("v", "q"),
            predict("u", "r"),
        ]
        .concat();
        assert_eq!(
            ahead(&made, Dialect::Postgresql),
            [vec![1, -2, -3, 4, -5, 6, -7], vec![], vec![6], vec![7], vec![]],
        );
    }

    #[test]
    fn settings_of_a_transaction_are_not_known_to_the_checks() {
        let ahead = |between: &str| {
            let program = [train("t"), between.to_owned(), predict("t", "p")].concat();
            ahead(&program, Dialect::Postgresql).remove(0)
        };
        let local = "BEGIN; SET LOCAL search_path = s; DELETE FROM a; COMMIT; DELETE FROM b;";
        assert_eq!(ahead(local), [1, -2, -3, 4, 5, 6]);
        assert_eq!(ahead("BEGIN; SET search_path = s; COMMIT; DELETE FROM b;"), [1, 2, 3, 4, 5]);
        assert_eq!(ahead("BEGIN; SET search_path = s; ROLLBACK; DELETE FROM b;"), [1, 2]);
    }
}
