//! Runs a step from its document to its exit code.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use prost::Message as _;
use sqlflow_data_source::{Reach, STEP_DIGEST};
use sqlflow_database::{
    Batch, Column, ConnectOptions, Database, Error, Missing, Notice, Results, Values, add_suggestions,
    clean_up,
};
use sqlflow_proto::agent::submitter_frame::Frame;
use sqlflow_proto::record::{StatementEnded, StatementStarted};
use sqlflow_proto::submitter_channel::{COMPANION_FD, MAX_FRAME};
use sqlflow_proto::v1::{ColumnType, Head};

use crate::channel::{Channel, MAX_CONTENT};
use crate::failure::StepError;
use crate::link::Link;
use crate::redact::Redactor;
use crate::serve::Server;
use crate::shutdown::Shutdown;
use crate::step::{CleanUp, Statement, Step};
use crate::{rows, span};

/// Name of the secret with the data source.
pub const DATA_SOURCE: &str = "db_conn_str";

/// Runs the step of a document.
pub fn run(path: &Path) -> ExitCode {
    // Other processes of the user must not read the credentials from this one's memory.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        print_error(&format!("cannot protect the credentials from other processes: {error}"));
        return ExitCode::FAILURE;
    }
    let shutdown = Shutdown::listen();
    let mut channel = match Channel::open() {
        Ok(channel) => channel,
        Err(message) => {
            print_error(&message);
            return ExitCode::FAILURE;
        }
    };
    let mut run = Run { channel: &mut channel, redactor: Redactor::default(), statement: None };
    let Err(error) = run.step(path, &shutdown) else { return ExitCode::SUCCESS };
    // The agent knows why.
    shutdown.end_by_signal();
    if !matches!(error, StepError::Reported(_)) {
        run.report(&error);
    }
    ExitCode::FAILURE
}

struct Run<'a> {
    channel: &'a mut Channel,
    redactor: Redactor,
    /// The statement that runs.
    statement: Option<u32>,
}

impl Run<'_> {
    fn step(&mut self, path: &Path, shutdown: &Shutdown) -> Result<(), StepError> {
        let mut secrets =
            self.channel.secrets().map_err(|error| StepError::Other(format!("cannot start: {error}")))?;
        let digest = secrets.remove(STEP_DIGEST);
        let step = Step::read(path, digest.as_deref()).map_err(StepError::Other)?;
        if std::env::var_os(COMPANION_FD).is_some() {
            shutdown.set_leaves_nothing(self.channel.spare());
        }
        let data_source = secrets.remove(DATA_SOURCE).unwrap_or_default();
        self.redactor = Redactor::new(&data_source);
        crate::panics::report_to(self.channel.spare(), self.redactor.clone());
        let options = ConnectOptions {
            replay: step.replay.iter().map(|it| it.sql.clone()).collect(),
            may_create: step.clean_up.is_some() || step.may_create_table(),
            reach: reach(secrets.remove(Reach::SECRET).as_deref())?,
            notify: Arc::new(print_notice),
        };
        let mut database = sqlflow_database::connect(&data_source, options)?;
        if let Some(task) = &step.clean_up {
            return self.clean_up(&step, task, &mut *database);
        }
        shutdown.add_canceller(database.canceller());
        for statement in &step.statements {
            self.statement = Some(statement.index);
            let begin = span::now();
            let result = self.run_statement(&step, statement, &mut *database, shutdown);
            shutdown.end_statement();
            // The submitter records an extended statement.
            if span::is_traced() && statement.kind == "standard" {
                let error = result.as_ref().err().map(StepError::kind);
                let sent = self.channel.send(self.statement, Frame::Span(span::statement(begin, error)));
                // If the agent has exited, this must not hide another error.
                result?;
                sent?;
            } else {
                result?;
            }
        }
        self.statement = None;
        Ok(())
    }

    /// Drops what earlier attempts of the step left in the database.
    fn clean_up(&self, step: &Step, task: &CleanUp, database: &mut dyn Database) -> Result<(), StepError> {
        for table in step.statements.iter().filter_map(|it| it.result_table.as_deref()) {
            let report = clean_up(database, table, &step.staging_suffix, task.granted_attempt)?;
            if let Some(report) = report {
                crate::print_line(&report);
            }
        }
        Ok(())
    }

    /// Serves the submitter of an extended statement, to its end.
    fn serve(
        &mut self,
        link: Link,
        step: &Step,
        statement: &Statement,
        database: &mut dyn Database,
        shutdown: &Shutdown,
    ) -> Result<(), StepError> {
        let cannot = |error: std::io::Error| StepError::Other(format!("cannot serve the submitter: {error}"));
        shutdown.add_canceller(link.canceller().map_err(cannot)?);
        if let Some(canceller) = self.channel.canceller().map_err(cannot)? {
            shutdown.add_canceller(canceller);
        }
        let (channel, redactor) = (&mut *self.channel, &self.redactor);
        let server = Server { link, step, statement, database, channel, shutdown, redactor };
        let Some(publication) = server.serve()? else {
            self.channel.wait_for_submitter()?;
            if statement.result_table.is_none() {
                return Ok(());
            }
            let what = "the submitter ended with 0, and did not complete its table";
            return Err(StepError::NotExecuted(Box::new(StepError::Other(what.to_owned()))));
        };
        let report = |error: &StepError, channel: &mut Channel| {
            channel.send_failure(Some(statement.index), error.failure(&self.redactor));
        };
        publication.publish(statement.index, self.channel, shutdown, &report)
    }

    fn run_statement(
        &mut self,
        step: &Step,
        statement: &Statement,
        database: &mut dyn Database,
        shutdown: &Shutdown,
    ) -> Result<(), StepError> {
        let link = if statement.kind == "standard" {
            None
        } else {
            let link = Link::open().map_err(StepError::Other)?;
            let missing =
                || format!("cannot run a statement of kind {}: it needs a submitter", statement.kind);
            Some(link.ok_or_else(|| StepError::Other(missing()))?)
        };
        let started = Frame::Started(StatementStarted {});
        if statement.repeatable {
            self.channel.send(Some(statement.index), started)?;
        } else {
            self.channel.send_durable(statement.index, started)?;
        }
        let started_at = Instant::now();
        if let Some(link) = link {
            self.serve(link, step, statement, database, shutdown)?;
            return self.ended(statement, started_at, None);
        }
        shutdown.begin_statement()?;
        assert!(
            !cfg!(debug_assertions) || std::env::var_os("SQLFLOW_TEST_DATA_PANIC").is_none(),
            "a failpoint of tests"
        );
        let mut results = Sender {
            channel: self.channel,
            index: statement.index,
            head: None,
            changed: None,
            returned_rows: false,
        };
        if let Err(error) = database.execute(&statement.sql, &mut results) {
            return Err(with_hints(error, statement, database).into());
        }
        results.send_head()?;
        let rows_affected = if results.returned_rows { None } else { results.changed };
        self.ended(statement, started_at, rows_affected)
    }

    fn ended(
        &mut self,
        statement: &Statement,
        started_at: Instant,
        rows_affected: Option<u64>,
    ) -> Result<(), StepError> {
        let duration_micros = u64::try_from(started_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        let ended = StatementEnded { duration_micros, rows_affected };
        Ok(self.channel.send(Some(statement.index), Frame::Ended(ended))?)
    }

    fn report(&mut self, error: &StepError) {
        let failure = error.failure(&self.redactor);
        let message = failure.message.clone();
        if !self.channel.send_failure(self.statement, failure) {
            print_error(&message);
        }
    }
}

/// What the data source may reach. A step that is run by hand, or that an older server assigned, has no limits.
fn reach(text: Option<&str>) -> Result<Reach, StepError> {
    let wrong =
        |error: serde_json::Error| StepError::Other(format!("cannot read {}: {error}", Reach::SECRET));
    text.map_or_else(|| Ok(Reach::default()), |text| serde_json::from_str(text).map_err(wrong))
}

/// Adds similar names and the statement's hint to an error.
fn with_hints(mut error: Error, statement: &Statement, database: &mut dyn Database) -> Error {
    if error.kind != sqlflow_database::ErrorKind::User {
        return error;
    }
    // DROP gets no suggestions: the user might drop another table or column by mistake.
    let words = sqlflow_sql::leading_words(&statement.sql, sqlflow_sql::Dialect::Sqlite, 1);
    let word = words.first().map_or("", String::as_str);
    let drops_column = word == "ALTER" && matches!(error.missing, Some(Missing::Column(_)));
    if word != "DROP" && !drops_column {
        add_suggestions(database, &mut error, &statement.sql);
    }
    if !statement.hint.is_empty() {
        error.message = format!("{}; {}", error.message, statement.hint);
    }
    error
}

/// Sends the results of a statement.
struct Sender<'a> {
    channel: &'a mut Channel,
    index: u32,
    /// The head of the result set, until its first rows. A repeatable statement may be run again until then.
    head: Option<Head>,
    changed: Option<u64>,
    returned_rows: bool,
}

impl Sender<'_> {
    fn send_head(&mut self) -> Result<(), Error> {
        let Some(head) = self.head.take() else { return Ok(()) };
        let length = head.encoded_len();
        if length > MAX_CONTENT {
            return Err(Error::undelivered(format!(
                "cannot send the names of {} columns: they have {length} bytes; select fewer columns, or with shorter \
                 names (limit: {MAX_FRAME} bytes)",
                head.column_names.len()
            )));
        }
        self.channel.send(Some(self.index), Frame::Head(head)).map_err(|error| undelivered(&error))
    }
}

impl Results for Sender<'_> {
    fn result_set(&mut self, columns: &[Column]) -> Result<(), Error> {
        self.send_head()?;
        self.returned_rows = true;
        self.head = Some(Head {
            column_names: columns.iter().map(|column| column.name.clone()).collect(),
            column_types: columns
                .iter()
                .map(|column| ColumnType { database_type: column.database_type.clone() })
                .collect(),
        });
        Ok(())
    }

    fn batch(&mut self, batch: Batch) -> Result<(), Error> {
        self.send_head()?;
        let too_large = |bytes: usize| {
            Error::undelivered(format!(
                "cannot send rows: a batch of {bytes} bytes is too large to be shown; select smaller columns (limit: \
                 {MAX_FRAME} bytes)"
            ))
        };
        // Encoding takes two copies.
        let size: usize = batch.columns.iter().map(Values::long_bytes).sum();
        if size > MAX_FRAME {
            return Err(too_large(size));
        }
        let rows = rows::encode(&batch);
        if rows.len() > MAX_CONTENT {
            return Err(too_large(rows.len()));
        }
        self.channel.send_rows(self.index, &rows).map_err(|error| undelivered(&error))
    }

    fn changed(&mut self, rows: Option<u64>) {
        self.changed = rows.or(self.changed);
    }
}

fn undelivered(error: &std::io::Error) -> Error {
    Error::undelivered(format!("cannot send the result: {error}"))
}

fn print_notice(notice: Notice) {
    match notice {
        Notice::Note(text) => crate::print_line(&text),
        Notice::Server(text) => print_error(&text),
    }
}

/// Prints a line to standard error. Nobody may be reading it.
pub fn print_error(line: &str) {
    use std::io::Write as _;

    let _ = writeln!(std::io::stderr(), "{line}");
}
