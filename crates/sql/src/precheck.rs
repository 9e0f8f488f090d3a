//! Prechecks: which later statements a step checks before it starts its work, so that hours of training do not end with
//! a misspelt column of the next statement.

use std::collections::HashSet;

use super::ast::{Body, Program, Statement};
use super::changes::{Change, change, keeps_grammar};
use super::classify::StandardKind;
use super::dialect::Dialect;
use super::overwrites::bare_name;
use super::scanner::TokenKind;
use super::steps::{Step, StepKind};
use super::tokens::Tokens;

/// Maximum length in bytes of a table's name that is recognized at the start of a longer name. Keeps the time linear.
const MAX_PREFIX: usize = 256;

/// A later statement of a precheck group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precheck {
    /// Index of the statement in the program.
    pub statement: usize,
    /// Whether only the statement's syntax can be checked, because it names an object that the group creates or changes,
    /// or because the tables, columns or settings by then are not known. Its effect still counts.
    pub syntax_only: bool,
    /// Its effect on the checks of later statements.
    pub effect: PrecheckEffect,
}

/// Effect of a statement on the checks of later statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrecheckEffect {
    /// None.
    None,
    /// Changes rows.
    Rows,
    /// Changes settings of the session.
    Session,
    /// Creates or drops tables and views.
    Objects {
        /// Their names in lower case, without their schema.
        names: Vec<String>,
        /// Whether they may be dropped.
        drops: bool,
    },
    /// Possibly anything, except the grammar: of what follows, only the syntax can be checked.
    Unknown,
}

/// Sets the prechecks of each step that begins a precheck group: the statements that follow in its group.
///
/// Within a group, only the syntax of a statement is checked if it names an object that the group creates, or if it follows
/// a statement with an unknown effect. Therefore the next extended statement after such a one begins a second group. A
/// statement that may change the grammar ends all groups. A statement is in at most two groups, the first and the latest,
/// so the plan's size is linear in the program.
pub(super) fn plan_prechecks(program: &Program, steps: &mut [Step]) {
    let mut planner = Planner { program, steps, groups: Vec::new() };
    for step in 0..planner.steps.len() {
        match planner.steps[step].kind.clone() {
            StepKind::Extended(statement) => planner.extended(step, statement),
            StepKind::StandardRun(run) => planner.run(&run),
        }
    }
}

/// Statements that are checked before the first of them starts its work.
struct Group {
    /// Index of the step that begins the group.
    step: usize,
    /// Names of the objects that its statements create or change, in lower case.
    changed: HashSet<String>,
    /// Whether a statement of the group has an unknown effect.
    is_unknown: bool,
}

struct Planner<'a> {
    program: &'a Program,
    steps: &'a mut [Step],
    /// At most two.
    groups: Vec<Group>,
}

/// What is known of the session of a run of standard statements.
#[derive(Default)]
struct RunSession {
    /// Whether a setting is in effect for the current transaction only.
    has_local: bool,
    /// Whether settings were changed since the last transaction ended.
    has_settings: bool,
    /// Whether variables have computed values.
    has_variables: bool,
}

impl Planner<'_> {
    fn extended(&mut self, step: usize, statement: usize) {
        self.add(statement, false, &PrecheckEffect::None);
        if self.groups.last().is_none_or(|group| group.is_unknown || !group.changed.is_empty()) {
            self.groups.truncate(1);
            self.groups.push(Group { step, changed: HashSet::new(), is_unknown: false });
        }
        if let Some(table) = self.program.statements[statement].body.result_table() {
            self.add_changed(&[bare_name(table)]);
        }
    }

    fn run(&mut self, run: &[usize]) {
        let mut session = RunSession::default();
        for &index in run {
            if self.groups.is_empty() {
                return;
            }
            match self.effect(index, &mut session) {
                Some(effect) => {
                    self.add(index, session.has_local, &effect);
                    match &effect {
                        PrecheckEffect::Objects { names, .. } => self.add_changed(names),
                        // The checks after an unknown effect have no settings.
                        PrecheckEffect::Session if !self.keeps_grammar(index) => {
                            self.groups.retain(|group| !group.is_unknown);
                        }
                        _ => {}
                    }
                }
                None => self.unknown(index, session.has_local),
            }
        }
    }

    /// Adds a statement with an unknown effect. After it, only the first group continues, for the syntax.
    fn unknown(&mut self, index: usize, has_unknown_session: bool) {
        self.add(index, has_unknown_session, &PrecheckEffect::Unknown);
        if self.keeps_grammar(index) {
            self.groups.truncate(1);
            self.groups.iter_mut().for_each(|group| group.is_unknown = true);
        } else {
            self.groups.clear();
        }
    }

    fn keeps_grammar(&self, index: usize) -> bool {
        let statement = &self.program.statements[index];
        match &statement.body {
            Body::Standard(standard) => keeps_grammar(&statement.text, standard, self.program.dialect),
            _ => true,
        }
    }

    /// Effect of a standard statement; `None` if it is not known.
    fn effect(&self, index: usize, session: &mut RunSession) -> Option<PrecheckEffect> {
        let statement = &self.program.statements[index];
        let Body::Standard(standard) = &statement.body else { return None };
        session.has_variables |= matches!(standard.kind, StandardKind::SetVariables { .. });
        match change(&statement.text, standard, self.program.dialect) {
            Change::Nothing => Some(PrecheckEffect::None),
            Change::Rows => Some(PrecheckEffect::Rows),
            Change::Objects { names, drops } => Some(PrecheckEffect::Objects { names, drops }),
            Change::Transaction => {
                session.has_local = true;
                Some(PrecheckEffect::None)
            }
            Change::EndOfTransaction { rolls_back } => {
                // Only PostgreSQL rolls back settings.
                let is_undone = rolls_back && self.program.dialect == Dialect::Postgresql;
                let is_known = !(is_undone && (session.has_settings || session.has_local));
                session.has_local = false;
                session.has_settings = false;
                is_known.then_some(PrecheckEffect::None)
            }
            Change::Session => {
                session.has_settings = true;
                let reads_variable = session.has_variables && statement.text.contains('@');
                let depends = self.groups.iter().any(|it| references(statement, self.program, &it.changed));
                (!session.has_local && !reads_variable && !depends).then_some(PrecheckEffect::Session)
            }
            Change::Unknown => None,
        }
    }

    /// Adds a statement to the groups. `has_unknown_session`: the settings of its session are not known.
    fn add(&mut self, statement: usize, has_unknown_session: bool, effect: &PrecheckEffect) {
        for group in &self.groups {
            let syntax_only = has_unknown_session
                || group.is_unknown
                || references(&self.program.statements[statement], self.program, &group.changed);
            let precheck = Precheck { statement, syntax_only, effect: effect.clone() };
            self.steps[group.step].prechecks.push(precheck);
        }
    }

    fn add_changed(&mut self, names: &[String]) {
        for group in &mut self.groups {
            for name in names {
                // Inside a string, a name with a space is not one word.
                group.changed.extend(words(name).map(str::to_owned));
                group.changed.insert(name.clone());
            }
        }
    }
}

/// Whether the statement may reference one of these objects: in its SELECTs, or anywhere in a standard statement.
fn references(statement: &Statement, program: &Program, changed: &HashSet<String>) -> bool {
    if changed.is_empty() {
        return false;
    }
    let has_reference = |sql: &str| {
        Tokens::new(sql, program.dialect).any(|token| match token.kind {
            // PostgreSQL resolves a string such as `'t'::regclass` when it parses the statement.
            TokenKind::String | TokenKind::Executed => {
                words(&token.text.to_lowercase()).any(|word| is_changed(word, changed))
            }
            _ => token.name().is_some_and(|name| is_changed(&name, changed)),
        })
    };
    match &statement.body {
        Body::Standard(_) => has_reference(&statement.text),
        body => body.selects().any(|sql| has_reference(&sql)),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$'))).filter(|word| !word.is_empty())
}

/// Whether the name is one of these, or that of an object created together with one: a table `t` with a serial column `id`
/// has the sequence `t_id_seq`.
fn is_changed(name: &str, changed: &HashSet<String>) -> bool {
    let mut ends = name.char_indices().take_while(|&(at, _)| at <= MAX_PREFIX);
    changed.contains(name) || ends.any(|(at, c)| c == '_' && changed.contains(&name[..at]))
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

    /// Indexes of the prechecked statements of each step, negative where only the syntax is checked.
    fn prechecks(sql: &str, dialect: Dialect) -> Vec<Vec<i64>> {
        let compiled = compile(sql, dialect).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let number = |it: super::Precheck| {
            let index = i64::try_from(it.statement).unwrap();
            if it.syntax_only { -index } else { index }
        };
        compiled.steps.into_iter().map(|step| step.prechecks.into_iter().map(number).collect()).collect()
    }

    #[test]
    fn statement_independent_of_its_group_is_prechecked() {
        let planned = |sql: &str| prechecks(sql, Dialect::Mysql);
        let row = [train("t"), predict("t", "d.p"), predict("`P`", "q"), predict("u", "r")].concat();
        assert_eq!(
            planned(&row),
            [vec![1, -2, 3], vec![], vec![3], vec![]],
            "the third reads what the second creates, and begins a group"
        );
        let read = [
            train("t"),
            "SELECT 1; SHOW TABLES;\n".to_owned(),
            predict("t", "p"),
            "SELECT * FROM p;".to_owned(),
        ]
        .concat();
        assert_eq!(planned(&read), [vec![1, 2, 3, -4], vec![], vec![], vec![]]);
        let held_out = train("t").replace("LABEL", "WITH validation.select='SELECT * FROM p' LABEL");
        assert_eq!(planned(&[predict("t", "p"), held_out].concat()), [vec![-1], vec![]]);
    }

    #[test]
    fn only_the_syntax_is_checked_after_a_statement_with_unknown_effect() {
        for between in ["ALTER TABLE t ADD b INT;", "GRANT SELECT ON t TO u;", "CREATE TABEL t (a INT);"] {
            let changed =
                [train("t"), between.to_owned(), predict("u", "p"), "USE d;".into(), predict("v", "q")]
                    .concat();
            assert_eq!(
                prechecks(&changed, Dialect::Mysql),
                [vec![1, -2, -3, -4], vec![], vec![3, 4], vec![], vec![]],
                "{between}"
            );
        }
        let depends = [train("t"), predict("t", "p"), "ALTER TABLE p ADD b INT;".into(), train("p")].concat();
        assert_eq!(prechecks(&depends, Dialect::Mysql), [vec![1, -2, -3], vec![], vec![], vec![]]);
        let by_variable = train("t") + "SET @a = (SELECT 1); SET x = @a; SELECT 1;";
        assert_eq!(prechecks(&by_variable, Dialect::Mysql), [vec![1, 2, -3], vec![]]);
    }

    #[test]
    fn statement_that_may_change_the_grammar_ends_the_group() {
        for between in ["CALL p();", "EXECUTE s;", "SET sql_mode = f();"] {
            let changed = [train("t"), between.to_owned(), predict("u", "p"), predict("v", "q")].concat();
            assert_eq!(prechecks(&changed, Dialect::Mysql), [vec![1], vec![], vec![3], vec![]], "{between}");
        }
        // After an unknown effect, no setting is replayed.
        let set = [train("t"), "ALTER TABLE t ADD b INT; SET sql_mode = ''; SELECT 1;".into()].concat();
        assert_eq!(prechecks(&set, Dialect::Mysql), [vec![1, -2], vec![]]);
        let called = [train("t"), "CALL p();".into(), "SELECT 1;".into()].concat();
        assert_eq!(prechecks(&called, Dialect::Postgresql), [vec![1, -2], vec![]]);
    }

    #[test]
    fn statement_with_known_effect_does_not_end_the_group() {
        for between in ["INSERT INTO t VALUES (1);", "USE d;", "SET @a = 1;", "BEGIN; COMMIT;"] {
            let count = i64::try_from(between.matches(';').count()).unwrap();
            let changed = [train("t"), between.to_owned(), predict("u", "p"), predict("v", "q")].concat();
            let first: Vec<_> = (1..count + 3).collect();
            assert_eq!(prechecks(&changed, Dialect::Mysql), [first, vec![], vec![], vec![]], "{between}");
        }
    }

    #[test]
    fn statement_that_references_a_created_table_is_not_prechecked() {
        let made = [
            train("t"),
            "CREATE TABLE u (id serial); INSERT INTO U VALUES (1); SELECT currval('u_id_seq'); DELETE FROM v;\n".into(),
            predict("u_id_seq", "p"),
            predict("v", "q"),
            predict("u", "r"),
        ]
        .concat();
        assert_eq!(
            prechecks(&made, Dialect::Postgresql),
            [vec![1, -2, -3, 4, -5, 6, -7], vec![], vec![6], vec![7], vec![]],
        );
    }

    #[test]
    fn statement_with_transaction_local_settings_is_not_prechecked() {
        let planned = |between: &str| {
            let program = [train("t"), between.to_owned(), predict("t", "p")].concat();
            prechecks(&program, Dialect::Postgresql).remove(0)
        };
        let local = "BEGIN; SET LOCAL search_path = s; DELETE FROM a; COMMIT; DELETE FROM b;";
        assert_eq!(planned(local), [1, -2, -3, 4, 5, 6]);
        assert_eq!(planned("BEGIN; SET search_path = s; COMMIT; DELETE FROM b;"), [1, 2, 3, 4, 5]);
        assert_eq!(planned("BEGIN; SET search_path = s; ROLLBACK; DELETE FROM b;"), [1, 2, 3, -4, -5]);
    }
}
