//! Checks of statements before any work is done.

use sqlflow_database::{
    Column, Database, check_result_table, check_tables, effects, has_creator, has_event_triggers,
    mentions_any, sample,
};

use super::{Failure, Server, Work, protocol};
use crate::requests::{Answer, Query, Request};

/// The session for checks of later statements.
#[derive(Default)]
pub struct Checks {
    /// With settings of the program; `None`: there are none, and the step's own session serves.
    session: Option<Box<dyn Database>>,
}

impl Checks {
    /// The connection for checks.
    pub fn database<'a>(&'a mut self, own: &'a mut dyn Database) -> &'a mut dyn Database {
        match &mut self.session {
            Some(session) => &mut **session,
            None => own,
        }
    }
}

impl<'a> Server<'a> {
    pub(super) fn describe(&mut self, query: Query, work: &mut Work) -> Result<Vec<Column>, Failure> {
        let select = self.select(query)?;
        Ok(self.checked(query.statement, work).describe(select)?)
    }

    /// The connection for what is asked about a statement.
    fn checked<'w>(&'w mut self, statement: u32, work: &'w mut Work) -> &'w mut dyn Database {
        if statement == self.statement.index { self.database } else { work.checks.database(self.database) }
    }

    pub(super) fn check(&mut self, request: Request, work: &mut Work) -> Result<(), Failure> {
        let answer = match request {
            Request::Sample { query, column, of_type } => {
                let select = self.select(query)?;
                let database = self.checked(query.statement, work);
                let values = sample(database, select, &column, of_type.as_deref())?;
                Answer::Values(values.into_iter().map(Into::into).collect())
            }
            Request::Check { statement, syntax_only, may_drop } => {
                self.check_statement(statement, syntax_only, may_drop, work)?;
                Answer::Done
            }
            Request::CheckSelect(query) => {
                let select = self.select(query)?;
                self.checked(query.statement, work).check_syntax(select)?;
                Answer::Done
            }
            Request::Set { statement } => Answer::IsSet(self.set(statement, work)?),
            Request::Effects { statement } => {
                let (selects, changes_rows) = self.reads_of(statement)?;
                let found = effects(work.checks.database(self.database), &selects, changes_rows)?;
                let (may_change_names, calls_functions) = (found.may_change_names, found.calls_functions);
                Answer::Effects { may_change_names, calls_functions }
            }
            Request::Depends { statement, names } => {
                let (selects, changes_rows) = self.reads_of(statement)?;
                let database = work.checks.database(self.database);
                Answer::Depends(mentions_any(database, &selects, changes_rows, &names)?)
            }
            Request::Routines => {
                let database = work.checks.database(self.database);
                let may_change_names = has_creator(database)?;
                Answer::Routines { may_change_names, has_event_triggers: has_event_triggers(database)? }
            }
            Request::CheckResult { statement } => {
                let checked = self.statement(statement)?;
                let selects = checked.selects();
                let spec = checked.result(&self.step.staging_suffix, &selects);
                let spec = spec.ok_or_else(|| protocol("the statement has no result table"))?;
                check_result_table(self.checked(statement, work), &spec)?;
                Answer::Done
            }
            _ => return Err(protocol("it is not a check")),
        };
        Ok(self.link.send(&answer)?)
    }

    fn check_statement(
        &mut self,
        index: u32,
        syntax_only: bool,
        may_drop: bool,
        work: &mut Work,
    ) -> Result<(), Failure> {
        let sql = &self.statement(index)?.sql;
        let database = self.checked(index, work);
        if syntax_only {
            return Ok(database.check_syntax(sql)?);
        }
        database.check_query(sql)?;
        Ok(check_tables(database, sql, may_drop)?)
    }

    /// Changes a setting as the program will do, in another session.
    fn set(&mut self, index: u32, work: &mut Work) -> Result<bool, Failure> {
        let sql = &self.statement(index)?.sql;
        let session = match &mut work.checks.session {
            Some(session) => session,
            // For example, the user may have one connection only.
            None => match self.database.checking_connection() {
                Ok(session) => {
                    self.shutdown.add_canceller(session.canceller());
                    work.checks.session.insert(session)
                }
                Err(_) => return Ok(false),
            },
        };
        Ok(session.add_setting(sql)?)
    }

    /// The selects of a statement, and whether it changes rows.
    fn reads_of(&self, index: u32) -> Result<(Vec<&'a str>, bool), Failure> {
        let statement = self.statement(index)?;
        Ok((statement.selects(), statement.effect == "rows"))
    }
}
