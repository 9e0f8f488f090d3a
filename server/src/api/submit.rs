//! Run: from a program to a recorded job.

use std::sync::Arc;

use sqlflow_proto::v1;
use tonic::Status;

use super::status;
use crate::clock;
use crate::codegen::{self, DATA_SOURCE};
use crate::drive::Driver;
use crate::dsn;
use crate::job::{Job, JobId, Token};
use crate::sql::{self, Compiled};
use crate::store::{Lease, NewJob, Secret, Store};
use crate::trace::Origin;

/// Statements of a program at the most.
pub const MAX_STATEMENTS: usize = 10_000;
/// Longer programs are compiled off the threads that serve calls.
const SHORT_PROGRAM_BYTES: usize = 64 * 1024;
/// Characters of a statement's text that results repeat.
const HEADING_CHARACTERS: usize = 200;
const MAX_USER_ID_BYTES: usize = 256;
const MAX_DATA_SOURCE_BYTES: usize = 64 * 1024;

/// How Run treats sessions that leave something open.
#[derive(Debug, Clone)]
pub struct SubmitOptions {
    /// Data source of sessions that name none; empty: they are refused.
    pub data_source: Secret,
    /// Fetch timeout of sessions that set none, in seconds; 0: never.
    pub fetch_timeout_seconds: u32,
}

/// Takes programs.
pub(super) struct Submitter {
    store: Arc<dyn Store>,
    driver: Driver,
    options: SubmitOptions,
}

impl Submitter {
    pub(super) fn new(store: Arc<dyn Store>, driver: Driver, options: SubmitOptions) -> Self {
        Self { store, driver, options }
    }

    pub(super) async fn run(
        &self,
        request: v1::Request,
        origin: Option<Origin>,
    ) -> Result<(Token, JobId), Status> {
        let session = request.session.unwrap_or_default();
        let data_source = self.data_source(&session)?;
        let dialect = dsn::dialect(data_source.expose())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if session.user_id.len() > MAX_USER_ID_BYTES {
            return Err(Status::invalid_argument(format!(
                "user_id is longer than {MAX_USER_ID_BYTES} bytes"
            )));
        }
        let sql = request.sql;
        let compiled = if sql.len() <= SHORT_PROGRAM_BYTES {
            sql::compile(&sql, dialect)
        } else {
            let sql = sql.clone();
            tokio::task::spawn_blocking(move || sql::compile(&sql, dialect))
                .await
                .map_err(|_| Status::unavailable("the server is shutting down"))?
        };
        let compiled = compiled.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let timeout = session.fetch_timeout_seconds.unwrap_or(self.options.fetch_timeout_seconds);
        let (token, mut new) = self.new_job(&compiled, sql, data_source, session.user_id, timeout)?;
        new.job.origin = origin;
        let id = new.job.id.clone();
        let lease = Lease { owner: new.owner.clone(), epoch: Lease::FIRST_EPOCH };
        self.store.create(new).await.map_err(status::of_store)?;
        tracing::info!(job = %id, statements = compiled.program.statements.len(), "took a program");
        self.driver.drive(id.clone(), lease);
        Ok((token, id))
    }

    fn data_source(&self, session: &v1::Session) -> Result<Secret, Status> {
        if session.db_conn_str.len() > MAX_DATA_SOURCE_BYTES {
            return Err(Status::invalid_argument(format!(
                "db_conn_str is longer than {MAX_DATA_SOURCE_BYTES} bytes"
            )));
        }
        Ok(match session.db_conn_str.as_str() {
            "" => self.options.data_source.clone(),
            given => Secret::new(given),
        })
    }

    fn new_job(
        &self,
        compiled: &Compiled,
        sql: String,
        data_source: Secret,
        user_id: String,
        fetch_timeout_seconds: u32,
    ) -> Result<(Token, NewJob), Status> {
        let statements = &compiled.program.statements;
        if statements.len() > MAX_STATEMENTS {
            return Err(Status::invalid_argument(format!(
                "the program has {} statements; {MAX_STATEMENTS} is the most",
                statements.len()
            )));
        }
        let specs = codegen::step_specs(compiled);
        let step_specs = specs.iter().map(serde_json::to_string).collect::<Result<_, _>>();
        let now = clock::now_ms();
        let token = Token::generate();
        let new = NewJob {
            job: Job::new(JobId::generate(), codegen::job_steps(compiled)),
            token: token.hash(),
            user_id,
            headings: statements.iter().map(|statement| heading(&statement.text)).collect(),
            step_specs: step_specs.map_err(|error| Status::internal(error.to_string()))?,
            secrets: vec![(DATA_SOURCE.to_owned(), data_source)],
            fetch_timeout_ms: i64::from(fetch_timeout_seconds) * 1000,
            owner: self.driver.server().clone(),
            lease: self.driver.lease_duration(),
            request: None,
            created_ms: now,
            sql,
        };
        Ok((token, new))
    }
}

fn heading(text: &str) -> String {
    text.trim().chars().take(HEADING_CHARACTERS).collect()
}
