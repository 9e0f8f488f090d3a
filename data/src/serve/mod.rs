//! Serves the submitter of an extended statement: its selects, its result table and its checks, and nothing else.

mod checks;
mod result;
mod stream;

use std::fs::File;

use sqlflow_database::{Database, Error, suggestions};
use sqlflow_sql::Dialect;

use self::checks::Checks;
pub use self::result::Publication;
use self::result::ResultWriter;
use crate::channel::Channel;
use crate::column_file::{ColumnFile, Written};
use crate::failure::StepError;
use crate::link::Link;
use crate::redact::Redactor;
use crate::requests::{Answer, Described, Failed, Query, Request, Select};
use crate::shutdown::Shutdown;
use crate::step::{Statement, Step};

/// Maximum size of the rows of one select in the workspace, in bytes.
const MAX_FILE: u64 = 256 << 30;

/// Serves one statement.
pub struct Server<'a> {
    pub link: Link,
    pub step: &'a Step,
    pub statement: &'a Statement,
    pub database: &'a mut dyn Database,
    pub channel: &'a mut Channel,
    pub shutdown: &'a Shutdown,
    pub redactor: &'a Redactor,
}

/// What a request has failed by.
enum Failure {
    /// It is reported to the submitter.
    Database(Error),
    /// The step has failed.
    Step(StepError),
    /// The submitter has ended. Its own end says why.
    Ended,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

/// Of the link.
impl From<std::io::Error> for Failure {
    fn from(_: std::io::Error) -> Self {
        Self::Ended
    }
}

/// What the statement has so far.
#[derive(Default)]
struct Work {
    checks: Checks,
    result: Option<ResultWriter>,
    /// The select or its table has failed. The submitter may have sent more before it reads that.
    has_failed: bool,
    /// What to tell the user when the table is published; `None`: it is not complete.
    line: Option<String>,
}

impl<'a> Server<'a> {
    /// Answers requests until the submitter ends. Returns the result table to publish, if the submitter succeeds.
    ///
    /// # Errors
    /// The link is broken, a signal has arrived, or a staging table could not be dropped.
    pub fn serve(mut self) -> Result<Option<Publication>, StepError> {
        let mut work = Work::default();
        let served = self.answer_all(&mut work);
        match (work.result, work.line) {
            (Some(result), Some(line)) if served.is_ok() => {
                self.database.end_reading();
                return Ok(Some(result.publication(line)));
            }
            (Some(result), _) => result.discard(self.channel, self.shutdown)?,
            (None, _) => {}
        }
        self.shutdown.end_statement();
        // One that arrived meanwhile has ended nothing.
        self.shutdown.check()?;
        served.map(|()| None)
    }

    fn answer_all(&mut self, work: &mut Work) -> Result<(), StepError> {
        loop {
            let request = self.link.next();
            let request =
                request.map_err(|error| StepError::Other(format!("cannot read a request: {error}")))?;
            let Some(request) = request else { return Ok(()) };
            self.shutdown.begin_statement()?;
            let about = request.statement().unwrap_or(self.statement.index);
            let answered = self.answer(request, work);
            // While there is a staging table, a signal has it dropped.
            if work.result.is_none() {
                self.shutdown.end_statement();
            }
            match answered {
                Ok(()) => {}
                Err(Failure::Ended) => return Ok(()),
                Err(Failure::Step(error)) => return Err(error),
                Err(Failure::Database(error)) => self.report(&error, about, work),
            }
        }
    }

    /// Reports an error about a statement to the submitter, with similar names.
    fn report(&mut self, error: &Error, statement: u32, work: &mut Work) {
        // Similar columns are searched in the tables that the step's own statement names.
        let sql = if statement == self.statement.index { &self.statement.sql } else { "" };
        let similar = suggestions(work.checks.database(self.database), error, sql);
        let message = self.redactor.redact(&error.message);
        // If the submitter has ended, its own end says why.
        let _ = self.link.send(&Answer::Error(Failed::new(error, &message, similar)));
    }

    fn answer(&mut self, request: Request, work: &mut Work) -> Result<(), Failure> {
        match request {
            Request::Dialect => {
                let name = match self.database.dialect() {
                    Dialect::Sqlite => "sqlite",
                    Dialect::Mysql => "mysql",
                    Dialect::Postgresql => "postgresql",
                };
                Ok(self.link.send(&Answer::Dialect(name))?)
            }
            Request::Read(select) => self.read(select),
            Request::Describe(query) => {
                let columns = self.describe(query, work)?;
                Ok(self.link.send(&Answer::Columns(columns.iter().map(Described::new).collect()))?)
            }
            Request::Write(write) => {
                work.result = Some(ResultWriter::create(self, write)?);
                self.done()
            }
            Request::Stream { max_rows } => {
                let streamed = self.stream(max_rows, work);
                work.has_failed |= streamed.is_err();
                streamed
            }
            Request::Rows { bytes, .. } if work.has_failed => Ok(self.link.skip(bytes)?),
            Request::Rows { rows, bytes } => {
                let result = work.result.as_mut().ok_or_else(|| protocol("rows without a table"))?;
                let written = result.rows(&mut self.link, rows, bytes);
                work.has_failed |= written.is_err();
                written
            }
            Request::Taken | Request::Publish { .. } if work.has_failed => Ok(()),
            Request::Taken => Err(protocol("a batch that was not sent was taken")),
            Request::Show { columns, values } => {
                result::show(self.channel, self.statement.index, columns, values)?;
                self.done()
            }
            Request::Publish { line } => {
                if work.result.is_none() {
                    return Err(protocol("there is no table"));
                }
                self.shutdown.set_leaves_nothing(None);
                work.line = Some(line);
                self.done()
            }
            check => self.check(check, work),
        }
    }

    fn done(&mut self) -> Result<(), Failure> {
        Ok(self.link.send(&Answer::Done)?)
    }

    fn read(&mut self, select: Select) -> Result<(), Failure> {
        let link = &mut self.link;
        let mut report = |file: &File, written: Written<'_>| match written {
            Written::Columns(columns) => {
                let columns =
                    columns.iter().map(|it| (it.name.as_str(), it.database_type.as_str())).collect();
                link.send_file(&Answer::ColumnFile(columns), file)
            }
            Written::Rows { rows, bytes } => link.send(&Answer::Rows { rows, bytes }),
        };
        let mut file = ColumnFile::create(MAX_FILE, &mut report).map_err(|error| {
            Error::user(format!("cannot store the rows of the select in the workspace: {error}"))
        })?;
        self.database.read(self.statement.select_of(select), &mut file)?;
        let rows = file.finish()?;
        Ok(self.link.send(&Answer::End(rows))?)
    }

    /// A statement of the step, or a later one.
    fn statement(&self, index: u32) -> Result<&'a Statement, Failure> {
        let mut all = self.step.statements.iter().chain(&self.step.later);
        all.find(|it| it.index == index).ok_or_else(|| protocol("there is no such statement"))
    }

    /// The text of a select.
    fn select(&self, query: Query) -> Result<&'a str, Failure> {
        Ok(self.statement(query.statement)?.select_of(query.select))
    }
}

/// A request that no submitter sends.
fn protocol(what: &str) -> Failure {
    Failure::Step(StepError::Other(format!("cannot answer a request of the submitter: {what}")))
}
