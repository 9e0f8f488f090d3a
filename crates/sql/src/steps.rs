//! Which statements run together, what a later session must replay, and what cannot outlive its session.
//!
//! A run of consecutive standard statements is one step and shares one session. Every extended statement is a step and
//! a session of its own. `USE` and `SET` are replayed there; a temporary table, a computed session variable and an open
//! transaction cannot be, so a program that needs one later is refused before anything runs.

use super::ahead::{Ahead, plan_ahead};
use super::ast::{Body, Program, Statement};
use super::classify::{StandardKind, Tokens};
use super::dialect::Dialect;
use super::error::SqlError;
use super::overwrites::overwrites_input;
use super::session::{Lost, Session};

/// Most steps of a program.
pub const MAX_STEPS: usize = 1000;
/// Most `USE` and `SET` statements that later steps replay.
pub const MAX_SETTINGS: usize = 1000;

/// What one submitter runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The index of its first statement.
    pub first_statement: usize,
    /// Its statements.
    pub kind: StepKind,
    /// May every statement of it be repeated?
    pub repeatable: bool,
    /// Its result takes the place of something that it reads, so after its commit it must not be run again.
    pub overwrites_input: bool,
    /// The `USE` and `SET` statements of earlier steps, in order, to run first.
    pub replay: Vec<usize>,
    /// Statements of later steps that are to be checked before this step does its work.
    pub ahead: Vec<Ahead>,
}

/// The statements of a step, by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepKind {
    /// Consecutive standard statements.
    StandardRun(Vec<usize>),
    /// One extended statement.
    Extended(usize),
}

impl StepKind {
    /// The statements, in order.
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
/// A temporary table, variable or transaction that would have to survive a step, at the statement that makes it; more
/// than [`MAX_STEPS`] or [`MAX_SETTINGS`].
pub fn plan_steps(program: &Program) -> Result<Vec<Step>, SqlError> {
    let mut planner = Planner {
        program,
        steps: Vec::new(),
        settings: Vec::new(),
        run: Vec::new(),
        session: Session::new(program.dialect),
        lost: Lost::new(program.dialect),
    };
    for (index, statement) in program.statements.iter().enumerate() {
        planner.statement(index, statement)?;
    }
    planner.close_run()?;
    let mut steps = planner.steps;
    plan_ahead(program, &mut steps);
    Ok(steps)
}

struct Planner<'a> {
    program: &'a Program,
    steps: Vec<Step>,
    /// Settings made in the steps so far.
    settings: Vec<usize>,
    /// The run of standard statements at hand, and its session.
    run: Vec<usize>,
    session: Session,
    /// What ended with earlier sessions.
    lost: Lost,
}

impl Planner<'_> {
    fn statement(&mut self, index: usize, statement: &Statement) -> Result<(), SqlError> {
        if let Body::Standard(standard) = &statement.body {
            if let StandardKind::CreateTemporaryTable { name } = &standard.kind {
                self.lost.replace(name);
            }
            self.refuse_lost(&statement.text, statement)?;
            self.session
                .apply(index, &standard.kind)
                .map_err(|message| SqlError::too_large(statement.position, message))?;
            self.run.push(index);
            return Ok(());
        }
        self.cross(index)?;
        for sql in statement.body.selects() {
            self.refuse_lost(&sql, statement)?;
        }
        self.push(index, StepKind::Extended(index), true)?;
        if let Some(step) = self.steps.last_mut() {
            step.overwrites_input = overwrites_input(&statement.body, self.program.dialect);
        }
        Ok(())
    }

    /// Ends the run at hand, and with it its session, because the extended statement `border` follows.
    fn cross(&mut self, border: usize) -> Result<(), SqlError> {
        let session = std::mem::replace(&mut self.session, Session::new(self.program.dialect));
        if let Some((opened, what)) = session.open_transaction() {
            let message = format!(
                "{what} would have to survive {}, which runs in a session of its own; end it before that",
                self.place(border)
            );
            return Err(self.refusal(opened, message));
        }
        self.lost.add(session.objects(), border);
        // A setting that needs something of this very session would come out otherwise when replayed.
        for &index in &self.run {
            let statement = &self.program.statements[index];
            if is_setting(statement) {
                self.refuse_lost(&statement.text, statement)?;
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

    /// The settings of a run that later sessions repeat. PostgreSQL undoes those of a transaction that is rolled back.
    fn lasting_settings(&self, run: &[usize]) -> Vec<usize> {
        let mut settings = Vec::new();
        // The number of settings when the open transaction began.
        let mut begun: Option<usize> = None;
        for &index in run {
            let statement = &self.program.statements[index];
            if is_setting(statement) {
                settings.push(index);
            }
            let Body::Standard(standard) = &statement.body else { continue };
            // ROLLBACK AND CHAIN begins another one.
            let begins = standard.kind == StandardKind::BeginTransaction;
            if !begins && standard.kind != StandardKind::EndTransaction {
                continue;
            }
            if rolls_back(&statement.text, self.program.dialect) {
                settings.truncate(begun.unwrap_or(settings.len()));
            }
            begun = begins.then_some(settings.len());
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
        let ahead = Vec::new();
        self.steps.push(Step {
            first_statement: first,
            kind,
            repeatable,
            overwrites_input: false,
            replay,
            ahead,
        });
        Ok(())
    }

    /// Refuses SQL that mentions what ended with an earlier session.
    fn refuse_lost(&self, sql: &str, statement: &Statement) -> Result<(), SqlError> {
        match self.lost.mentioned(sql) {
            None => Ok(()),
            Some((object, made, border)) => {
                let message = format!(
                    "{object} is used on line {}, but it would have to survive {}, which runs in a session of its own",
                    statement.position.line,
                    self.place(border)
                );
                Err(self.refusal(made, message))
            }
        }
    }

    /// `TO TRAIN on line 5`.
    fn place(&self, index: usize) -> String {
        let statement = &self.program.statements[index];
        format!("{} on line {}", statement.body.title(), statement.position.line)
    }

    fn refusal(&self, statement: usize, message: String) -> SqlError {
        SqlError::session(self.program.statements[statement].position, message)
    }
}

/// Is the statement, which begins or ends a transaction, a ROLLBACK that undoes settings, too?
fn rolls_back(sql: &str, dialect: Dialect) -> bool {
    dialect == Dialect::Postgresql && Tokens::new(sql, dialect).at(&["ROLLBACK", "ABORT"])
}

fn is_setting(statement: &Statement) -> bool {
    matches!(
        &statement.body,
        Body::Standard(standard) if matches!(standard.kind, StandardKind::Use { .. } | StandardKind::Set)
    )
}

#[cfg(test)]
mod tests {
    use super::super::split::parse_program;
    use super::*;

    const TRAIN: &str = "SELECT * FROM t TO TRAIN E LABEL l INTO m;";

    fn plan(sql: &str, dialect: Dialect) -> Result<Vec<Step>, SqlError> {
        plan_steps(&parse_program(sql, dialect).expect("the program parses"))
    }

    fn refusal(sql: &str, dialect: Dialect) -> String {
        plan(sql, dialect).expect_err(sql).to_string()
    }

    #[test]
    fn runs_share_a_step_and_settings_are_replayed() {
        let sql = format!(
            "USE d; INSERT INTO t VALUES (1); {TRAIN} {TRAIN} SET @a = 1; SELECT 1; SHOW TRAIN m; SELECT 2"
        );
        let steps = plan(&sql, Dialect::Mysql).expect("a good program");
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
    fn a_temporary_table_does_not_survive() {
        let make = "CREATE TEMPORARY TABLE t AS SELECT 1;";
        assert_eq!(
            refusal(&format!("\n {make}\n{TRAIN}"), Dialect::Sqlite),
            "line 2, column 2: temporary table t is used on line 3, but it would have to survive TO TRAIN on line 3, which \
             runs in a session of its own"
        );
        let later = format!("{make} SHOW TRAIN m; SELECT * FROM `T`");
        assert!(refusal(&later, Dialect::Mysql).contains("survive SHOW TRAIN on line 1"));
        let inside =
            format!("{make} SELECT 1 TO TRAIN E WITH validation.select='select * from T' LABEL l INTO m");
        assert!(refusal(&inside, Dialect::Mysql).contains("temporary table t"));
    }

    #[test]
    fn a_temporary_table_may_end_with_its_session() {
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
    fn computed_variables_do_not_survive() {
        let sql = "SET @n = (SELECT 1); SHOW TRAIN m; SELECT @N";
        assert!(refusal(sql, Dialect::Mysql).contains("variable @n is used"));
        let replayed = "SET @n = (SELECT 1); SET @k = @n + 1; SHOW TRAIN m;";
        assert!(refusal(replayed, Dialect::Mysql).contains("variable @n is used"));
        plan("SET @n = (SELECT 1); SELECT @n; SHOW TRAIN m; SELECT n, @@n", Dialect::Mysql)
            .expect("not mentioned");
    }

    #[test]
    fn postgresql_undoes_settings_of_a_transaction() {
        let replayed = |sql: &str, dialect| {
            plan(&format!("{sql} SHOW TRAIN m;"), dialect)
                .expect("a good program")
                .pop()
                .map(|step| step.replay)
        };
        let sql = "SET a = 1; BEGIN; SET b = 2; ROLLBACK; SET c = 3; ROLLBACK; BEGIN; SET d = 4; COMMIT; \
                   BEGIN; SET e = 5; ROLLBACK AND CHAIN; SET f = 6; ROLLBACK;";
        assert_eq!(replayed(sql, Dialect::Postgresql), Some(vec![0, 4, 7]));
        assert_eq!(replayed(sql, Dialect::Mysql), Some(vec![0, 2, 4, 7, 10, 12]));
    }

    #[test]
    fn open_transactions_do_not_survive() {
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
            assert!(message.contains("survive TO TRAIN on line 1"), "{message}");
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
    fn plans_stay_small() {
        let many = "SHOW TRAIN m;".repeat(MAX_STEPS + 1);
        assert!(refusal(&many, Dialect::Mysql).contains("more than 1000 steps"));
        let settings = format!("{} {TRAIN}", "USE d;".repeat(MAX_SETTINGS + 1));
        assert!(refusal(&settings, Dialect::Mysql).contains("more than 1000 USE and SET"));
    }
}
