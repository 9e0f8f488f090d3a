//! Steps of a program.
//!
//! Consecutive standard statements form one step and share a session. Each extended statement is a step with a session
//! of its own, in which earlier `USE` and `SET` statements are replayed. A temporary table, a computed session variable
//! or an open transaction cannot be replayed. A program that needs one in a later step is rejected before anything runs.

use std::collections::HashMap;

use super::ast::{Body, Program, Statement};
use super::classify::StandardKind;
use super::dialect::Dialect;
use super::error::SqlError;
use super::overwrites::overwrites_input;
use super::precheck::{Precheck, plan_prechecks};
use super::session::{EndedObjects, EndedReference, Session};
use super::tokens::Tokens;

/// Maximum number of steps of a program.
pub const MAX_STEPS: usize = 1000;
/// Maximum number of `USE` and `SET` statements that a step replays.
pub const MAX_SETTINGS: usize = 1000;

/// What one submitter executes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The index of its first statement.
    pub first_statement: usize,
    /// Its statements.
    pub kind: StepKind,
    /// Whether all of its statements are repeatable.
    pub repeatable: bool,
    /// Whether its result replaces one of its inputs. Such a step must not be repeated after its commit.
    pub overwrites_input: bool,
    /// Indexes of the `USE` and `SET` statements of earlier steps to execute first, in order.
    pub replay: Vec<usize>,
    /// Statements of later steps to check before this step starts its work.
    pub prechecks: Vec<Precheck>,
}

/// Indexes of a step's statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepKind {
    /// Consecutive standard statements.
    StandardRun(Vec<usize>),
    /// One extended statement.
    Extended(usize),
}

impl StepKind {
    /// The indexes, in order.
    #[must_use]
    pub fn statements(&self) -> &[usize] {
        match self {
            Self::StandardRun(run) => run,
            Self::Extended(statement) => std::slice::from_ref(statement),
        }
    }
}

/// Groups the statements of a program into steps.
///
/// # Errors
/// A later session needs a temporary table, a variable or an open transaction of an earlier one; the error has the position
/// of the statement that creates it. Or the program exceeds [`MAX_STEPS`] or [`MAX_SETTINGS`].
pub fn plan_steps(program: &Program) -> Result<Vec<Step>, SqlError> {
    let mut planner = Planner {
        program,
        steps: Vec::new(),
        settings: Vec::new(),
        run: Vec::new(),
        session: Session::new(program.dialect),
        ended: EndedObjects::new(program.dialect),
    };
    for (index, statement) in program.statements.iter().enumerate() {
        planner.statement(index, statement)?;
    }
    planner.close_run()?;
    let mut steps = planner.steps;
    plan_prechecks(program, &mut steps);
    Ok(steps)
}

struct Planner<'a> {
    program: &'a Program,
    steps: Vec<Step>,
    /// Setting statements of the steps so far.
    settings: Vec<usize>,
    /// The current run of standard statements, and its session.
    run: Vec<usize>,
    session: Session,
    /// Objects that ended with earlier sessions.
    ended: EndedObjects,
}

impl Planner<'_> {
    fn statement(&mut self, index: usize, statement: &Statement) -> Result<(), SqlError> {
        if let Body::Standard(standard) = &statement.body {
            if let StandardKind::CreateTemporaryTable { name } = &standard.kind {
                self.ended.replace(name);
            }
            self.reject_ended_references(&statement.text, statement)?;
            self.session
                .apply(index, &standard.kind)
                .map_err(|message| SqlError::too_large(statement.position, message))?;
            self.run.push(index);
            return Ok(());
        }
        self.end_session(index)?;
        for sql in statement.body.selects() {
            self.reject_ended_references(&sql, statement)?;
        }
        self.push(index, StepKind::Extended(index), true)?;
        if let Some(step) = self.steps.last_mut() {
            step.overwrites_input = overwrites_input(&statement.body, self.program.dialect);
        }
        Ok(())
    }

    /// Ends the current run and its session before the extended statement `boundary`.
    fn end_session(&mut self, boundary: usize) -> Result<(), SqlError> {
        let session = std::mem::replace(&mut self.session, Session::new(self.program.dialect));
        if let Some((opened, what)) = session.open_transaction() {
            let message = format!(
                "{what} is still open at {}, which runs in a session of its own; end the transaction before it",
                self.location(boundary)
            );
            return Err(self.refusal(opened, message));
        }
        self.ended.add(session.objects(), boundary);
        // A setting that uses an object of this session would have another effect when replayed.
        for &index in &self.run {
            let statement = &self.program.statements[index];
            if is_setting(statement) {
                self.reject_ended_references(&statement.text, statement)?;
            }
        }
        self.close_run()
    }

    fn close_run(&mut self) -> Result<(), SqlError> {
        let run = std::mem::take(&mut self.run);
        let Some(&first) = run.first() else {
            return Ok(());
        };
        let statements = &self.program.statements;
        let repeatable = run.iter().all(|&index| match &statements[index].body {
            Body::Standard(standard) => standard.repeatable,
            _ => true,
        });
        let settings = self.lasting_settings(&run);
        self.push(first, StepKind::StandardRun(run), repeatable)?;
        self.settings.extend(settings);
        Ok(())
    }

    /// The settings of a run that later sessions replay. PostgreSQL rolls back those of a transaction that is rolled back.
    fn lasting_settings(&self, run: &[usize]) -> Vec<usize> {
        let mut settings = Vec::new();
        // The number of settings when the open transaction began, and at each of its savepoints.
        let mut begun: Option<usize> = None;
        let mut savepoints: HashMap<String, usize> = HashMap::new();
        for &index in run {
            let statement = &self.program.statements[index];
            if is_setting(statement) {
                settings.push(index);
            }
            let Body::Standard(standard) = &statement.body else { continue };
            if let StandardKind::Savepoint { name } = &standard.kind {
                savepoints.insert(name.clone(), settings.len());
            } else if standard.kind == StandardKind::Other
                && let Some(name) = rollback_target(&statement.text, self.program.dialect)
            {
                settings.truncate(savepoints.get(&name).copied().unwrap_or(settings.len()));
            }
            // ROLLBACK AND CHAIN also begins a transaction.
            let begins = standard.kind == StandardKind::BeginTransaction;
            if !begins && standard.kind != StandardKind::EndTransaction {
                continue;
            }
            if rolls_back(&statement.text, self.program.dialect) {
                settings.truncate(begun.unwrap_or(settings.len()));
            }
            begun = begins.then_some(settings.len());
            savepoints.clear();
        }
        settings
    }

    fn push(&mut self, first: usize, kind: StepKind, repeatable: bool) -> Result<(), SqlError> {
        let position = self.program.statements[first].position;
        if self.steps.len() == MAX_STEPS {
            return Err(SqlError::too_large(
                position,
                format!("the program has more than {MAX_STEPS} steps"),
            ));
        }
        if self.settings.len() > MAX_SETTINGS {
            let message =
                format!("more than {MAX_SETTINGS} USE and SET statements would have to be replayed here");
            return Err(SqlError::too_large(position, message));
        }
        let replay = self.settings.clone();
        let prechecks = Vec::new();
        self.steps.push(Step {
            first_statement: first,
            kind,
            repeatable,
            overwrites_input: false,
            replay,
            prechecks,
        });
        Ok(())
    }

    /// Rejects SQL that references an object of an earlier session.
    fn reject_ended_references(&self, sql: &str, statement: &Statement) -> Result<(), SqlError> {
        match self.ended.first_reference(sql) {
            None => Ok(()),
            Some(EndedReference { object, created_by, ended_by }) => {
                let message = format!(
                    "{object} is used on line {}, but its session ends before {}, which runs in a session of its own",
                    statement.position.line,
                    self.location(ended_by)
                );
                Err(self.refusal(created_by, message))
            }
        }
    }

    /// `TO TRAIN on line 5`.
    fn location(&self, index: usize) -> String {
        let statement = &self.program.statements[index];
        format!("{} on line {}", statement.body.title(), statement.position.line)
    }

    fn refusal(&self, statement: usize, message: String) -> SqlError {
        SqlError::session(self.program.statements[statement].position, message)
    }
}

/// Whether a statement that begins or ends a transaction is a ROLLBACK that also undoes settings.
fn rolls_back(sql: &str, dialect: Dialect) -> bool {
    dialect == Dialect::Postgresql && Tokens::new(sql, dialect).at(&["ROLLBACK", "ABORT"])
}

/// The savepoint of `ROLLBACK TO a`, which undoes settings made after it.
fn rollback_target(sql: &str, dialect: Dialect) -> Option<String> {
    let mut tokens = Tokens::new(sql, dialect);
    if !rolls_back(sql, dialect) || !tokens.by_ref().any(|token| token.is("TO")) {
        return None;
    }
    tokens.accept(&["SAVEPOINT"]);
    tokens.next()?.name()
}

fn is_setting(statement: &Statement) -> bool {
    matches!(
        &statement.body,
        Body::Standard(standard) if matches!(standard.kind, StandardKind::Use { .. } | StandardKind::Set)
    )
}

#[cfg(test)]
mod tests {
    use super::super::splitter::parse_program;
    use super::*;

    const TRAIN: &str = "SELECT * FROM t TO TRAIN E LABEL l INTO m;";

    fn plan(sql: &str, dialect: Dialect) -> Result<Vec<Step>, SqlError> {
        plan_steps(&parse_program(sql, dialect).expect("the program parses"))
    }

    fn refusal(sql: &str, dialect: Dialect) -> String {
        plan(sql, dialect).expect_err(sql).to_string()
    }

    #[test]
    fn run_is_one_step_and_later_steps_replay_its_settings() {
        let sql = format!(
            "USE d; INSERT INTO t VALUES (1); {TRAIN} {TRAIN} SET @a = 1; SELECT 1; SHOW TRAIN m; SELECT 2"
        );
        let steps = plan(&sql, Dialect::Mysql).expect("the program is valid");
        let got: Vec<_> = steps
            .iter()
            .map(|step| (step.kind.statements(), step.repeatable, step.replay.as_slice()))
            .collect();
        assert_eq!(
            got,
            [
                (&[0, 1][..], false, &[][..]),
                (&[2], true, &[0]),
                (&[3], true, &[0]),
                (&[4, 5], true, &[0]),
                (&[6], true, &[0, 4]),
                (&[7], true, &[0, 4]),
            ]
        );
    }

    #[test]
    fn temporary_table_used_in_a_later_session_is_rejected() {
        let make = "CREATE TEMPORARY TABLE t AS SELECT 1;";
        assert_eq!(
            refusal(&format!("\n {make}\n{TRAIN}"), Dialect::Sqlite),
            "line 2, column 2: temporary table t is used on line 3, but its session ends before TO TRAIN on line 3, which \
             runs in a session of its own"
        );
        let later = format!("{make} SHOW TRAIN m; SELECT * FROM `T`");
        assert!(refusal(&later, Dialect::Mysql).contains("ends before SHOW TRAIN on line 1"));
        let inside =
            format!("{make} SELECT 1 TO TRAIN E WITH validation.select='select * from T' LABEL l INTO m");
        assert!(refusal(&inside, Dialect::Mysql).contains("temporary table t"));
    }

    #[test]
    fn temporary_table_used_in_its_own_session_only_is_accepted() {
        for sql in [
            format!("CREATE TEMP TABLE x (a); SELECT * FROM x; {TRAIN}"),
            format!("CREATE TEMP TABLE t (a); DROP TABLE t; {TRAIN}"),
            format!("CREATE TEMP TABLE t2 (a); {TRAIN} SELECT 't2', @t2 -- t2"),
            format!("CREATE TEMP TABLE x (a); {TRAIN} CREATE TEMP TABLE x (b); SELECT * FROM x"),
        ] {
            plan(&sql, Dialect::Sqlite).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }

    #[test]
    fn computed_variable_used_in_a_later_session_is_rejected() {
        let sql = "SET @n = (SELECT 1); SHOW TRAIN m; SELECT @N";
        assert!(refusal(sql, Dialect::Mysql).contains("variable @n is used"));
        let replayed = "SET @n = (SELECT 1); SET @k = @n + 1; SHOW TRAIN m;";
        assert!(refusal(replayed, Dialect::Mysql).contains("variable @n is used"));
        plan("SET @n = (SELECT 1); SELECT @n; SHOW TRAIN m; SELECT n, @@n", Dialect::Mysql)
            .expect("not mentioned");
    }

    #[test]
    fn rolled_back_setting_is_not_replayed_in_postgresql() {
        let replayed = |sql: &str, dialect| {
            plan(&format!("{sql} SHOW TRAIN m;"), dialect)
                .expect("the program is valid")
                .pop()
                .map(|step| step.replay)
        };
        let sql = "SET a = 1; BEGIN; SET b = 2; ROLLBACK; SET c = 3; ROLLBACK; BEGIN; SET d = 4; COMMIT; \
                   BEGIN; SET e = 5; ROLLBACK AND CHAIN; SET f = 6; ROLLBACK;";
        assert_eq!(replayed(sql, Dialect::Postgresql), Some(vec![0, 4, 7]));
        assert_eq!(replayed(sql, Dialect::Mysql), Some(vec![0, 2, 4, 7, 10, 12]));
        let sql = "BEGIN; SET a = 1; SAVEPOINT s; SET b = 2; ROLLBACK TO SAVEPOINT s; SET c = 3; ROLLBACK TO s; \
                   SET d = 4; ROLLBACK TO other; COMMIT;";
        assert_eq!(replayed(sql, Dialect::Postgresql), Some(vec![1, 7]));
        assert_eq!(replayed(sql, Dialect::Mysql), Some(vec![1, 3, 5, 7]));
    }

    #[test]
    fn transaction_open_at_an_extended_statement_is_rejected() {
        use Dialect::{Mysql, Sqlite};
        for (start, dialect) in [
            ("BEGIN;", Sqlite),
            ("SAVEPOINT a; SAVEPOINT b; RELEASE b;", Sqlite),
            ("SAVEPOINT a; ROLLBACK TO a;", Sqlite),
            ("BEGIN; SAVEPOINT a; RELEASE a;", Sqlite),
            ("SET autocommit = 0; COMMIT;", Mysql),
            ("COMMIT AND CHAIN;", Mysql),
        ] {
            let message = refusal(&format!("{start} {TRAIN}"), dialect);
            assert!(message.starts_with("line 1, column 1: "), "{message}");
            assert!(message.contains("still open at TO TRAIN on line 1"), "{message}");
            plan(start, dialect).expect("a transaction may be open at the end of the program");
        }
        for (start, dialect) in [
            ("BEGIN; ROLLBACK;", Sqlite),
            ("SAVEPOINT a; SAVEPOINT b; RELEASE a;", Sqlite),
            ("SAVEPOINT a;", Mysql),
            ("SET autocommit = 0; SET autocommit = 1;", Mysql),
        ] {
            plan(&format!("{start} {TRAIN}"), dialect).unwrap_or_else(|error| panic!("{start}: {error}"));
        }
    }

    #[test]
    fn program_with_too_many_steps_or_settings_is_rejected() {
        let many = "SHOW TRAIN m;".repeat(MAX_STEPS + 1);
        assert!(refusal(&many, Dialect::Mysql).contains("more than 1000 steps"));
        let settings = format!("{} {TRAIN}", "USE d;".repeat(MAX_SETTINGS + 1));
        assert!(refusal(&settings, Dialect::Mysql).contains("more than 1000 USE and SET"));
    }
}
