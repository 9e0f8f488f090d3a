//! Run: from a program to a recorded job.

use std::sync::Arc;

use sqlflow_identity::{Caller, Pattern, local_user};
use sqlflow_job::{Event, Job, JobId, Role, Token};
use sqlflow_job_store::{Created, Lease, NewJob, Store};
use sqlflow_os::clock;
use sqlflow_proto::v1;
use sqlflow_result_log::ResultLog;
use sqlflow_sql::{self, Compiled};
use sqlflow_telemetry::{Propagation, RemoteContext};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::request_budget::HeldProgram;
use super::request_id::{self, NamedRequest};
use super::status;
use crate::admission::{Admission, Slot};
use crate::codegen::{self, StepSpec};
use crate::data_sources::{DataSource, DataSources};
use crate::model_rights::ModelRights;
use crate::reconciler::Reconciler;
use crate::web::Links;

/// Maximum number of statements of a program.
pub const MAX_STATEMENTS: usize = 10_000;
/// Programs over this size are compiled outside of the threads that serve calls, and few at a time: the others wait.
const SHORT_PROGRAM_BYTES: usize = 64 * 1024;
const LONG_COMPILES: usize = 2;
/// Characters of a statement's text that results repeat.
const HEADING_CHARACTERS: usize = 200;
const MAX_USER_ID_BYTES: usize = 256;
const MAX_DATA_SOURCE_BYTES: usize = 64 * 1024;

/// Defaults of Run for sessions.
#[derive(Clone)]
pub struct SubmitOptions {
    /// Data sources that sessions may use.
    pub data_sources: DataSources,
    /// Who may read and make which models.
    pub model_rights: ModelRights,
    /// Who may choose the image of their Pods, beside administrators; `None`: the launcher decides.
    pub image_users: Option<Vec<Pattern>>,
    /// Fetch timeout of sessions that set none, in seconds; 0: never.
    pub fetch_timeout_seconds: u32,
    /// Context that is taken over from clients.
    pub propagation: Propagation,
}

/// Accepts programs.
pub(super) struct Submitter {
    store: Arc<dyn Store>,
    log: Arc<dyn ResultLog>,
    reconciler: Reconciler,
    links: Links,
    options: SubmitOptions,
    /// Name of this process's user.
    own: String,
    admission: Admission,
    /// Permits for compiling programs that are not short.
    long_compiles: Arc<Semaphore>,
}

impl Submitter {
    pub(super) fn new(
        store: Arc<dyn Store>,
        log: Arc<dyn ResultLog>,
        reconciler: Reconciler,
        links: Links,
        options: SubmitOptions,
        admission: Admission,
    ) -> Self {
        let own = local_user::own().name().to_owned();
        Self {
            store,
            log,
            reconciler,
            links,
            options,
            own,
            admission,
            long_compiles: Arc::new(Semaphore::new(LONG_COMPILES)),
        }
    }

    /// Records the request's program as a job of this caller. `headers` may have the client's trace context.
    pub(super) async fn run(
        &self,
        request: v1::Request,
        headers: &MetadataMap,
        caller: &Caller,
    ) -> Result<(Token, JobId), Status> {
        // Many may wait until others are compiled.
        let is_long = request.sql.len() > SHORT_PROGRAM_BYTES;
        let _held = is_long.then(|| HeldProgram::of(request.sql.len())).transpose()?;
        let named =
            NamedRequest::of(&request, Some(caller.name()).filter(|it| *it != self.own), &self.links)?;
        let session = request.session.unwrap_or_default();
        let data_source = self.data_source(&session, caller)?;
        let dialect = sqlflow_data_source::dialect(data_source.dsn.expose())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if session.user_id.len() > MAX_USER_ID_BYTES {
            return Err(Status::invalid_argument(format!(
                "user_id is longer than {MAX_USER_ID_BYTES} bytes"
            )));
        }
        let sql = request.sql;
        let admitted = self.admission.program(&*self.store, &*self.log, caller, sql.len());
        let slot = admitted.await.map_err(status::of_admission)?;
        self.options.data_sources.check_file(&data_source).await?;
        let compiled = if !is_long {
            sqlflow_sql::compile(&sql, dialect)
        } else {
            let permit = Arc::clone(&self.long_compiles).acquire_owned().await;
            let permit = permit.map_err(|error| Status::internal(error.to_string()))?;
            let sql = sql.clone();
            // It goes on if its caller leaves, and so its permit goes with it.
            let compiling = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                sqlflow_sql::compile(&sql, dialect)
            });
            compiling.await.map_err(|_| Status::unavailable("the server is shutting down"))?
        };
        let compiled = compiled.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut specs = codegen::step_specs(&compiled, &session.user_id);
        let python_data = sqlflow_data_source::is_duckdb(data_source.dsn.expose());
        for spec in &mut specs {
            spec.python_data = python_data;
        }
        self.check_images(&specs, caller)?;
        self.options.model_rights.check(&*self.store, caller, &mut specs, status::of_store).await?;
        let timeout = session.fetch_timeout_seconds.unwrap_or(self.options.fetch_timeout_seconds);
        let (token, asked) = match named {
            Some(NamedRequest { token, hash }) => (token, Some(hash)),
            None => (Token::generate(), None),
        };
        let new = NewJob {
            token: token.hash(),
            request: asked,
            principal: caller.name().to_owned(),
            ..self.new_job(&compiled, &specs, sql, data_source, session.user_id, timeout)?
        };
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let origin = RemoteContext::from_headers(self.options.propagation, header);
        let job = Job { origin, ..new.job };
        let new = NewJob { job: Job { sampled: self.reconciler.samples(&job), ..job }, ..new };
        let statements = compiled.program.statements.len();
        drop(compiled);
        let id = self.record(new, statements, slot).await?;
        Ok((token, id))
    }

    /// Records the job and starts its reconciler, even if the caller disconnects meanwhile. For a repeated request it
    /// returns the job that was recorded before.
    async fn record(&self, new: NewJob, statements: usize, slot: Option<Slot>) -> Result<JobId, Status> {
        let (store, reconciler) = (Arc::clone(&self.store), self.reconciler.clone());
        let recording = tokio::spawn(async move {
            let _slot = slot;
            let id = new.job.id.clone();
            let lease = Lease { owner: new.owner.clone(), epoch: Lease::FIRST_EPOCH };
            match store.create(new).await.map_err(status::of_store)? {
                Created::New => {
                    tracing::info!(job = %id, statements, "accepted a program");
                    reconciler.reconcile(id.clone(), lease);
                    Ok(id)
                }
                Created::Before(before) => {
                    tracing::info!(job = %before, "accepted a repeated request");
                    Ok(before)
                }
                Created::Conflict => Err(request_id::conflict()),
            }
        });
        recording.await.map_err(|_| Status::unavailable("the server is shutting down"))?
    }

    /// An image runs beside the agent, with all that its Pod has.
    fn check_images(&self, specs: &[StepSpec], caller: &Caller) -> Result<(), Status> {
        let Some(users) = &self.options.image_users else { return Ok(()) };
        if caller.is_one_of(users) || specs.iter().all(|spec| spec.pod.image.is_none()) {
            return Ok(());
        }
        let name = caller.name();
        Err(Status::permission_denied(format!(
            "cannot run the program: {name} may not choose the image of a Pod; remove pod.image, or ask the operator for \
             --pod-image-users {name}"
        )))
    }

    fn data_source(&self, session: &v1::Session, caller: &Caller) -> Result<DataSource, Status> {
        if session.db_conn_str.len() > MAX_DATA_SOURCE_BYTES {
            return Err(Status::invalid_argument(format!(
                "db_conn_str is longer than {MAX_DATA_SOURCE_BYTES} bytes"
            )));
        }
        self.options.data_sources.of(caller, &session.db_conn_str)
    }

    fn new_job(
        &self,
        compiled: &Compiled,
        specs: &[StepSpec],
        sql: String,
        data_source: DataSource,
        user_id: String,
        fetch_timeout_seconds: u32,
    ) -> Result<NewJob, Status> {
        let statements = &compiled.program.statements;
        if statements.len() > MAX_STATEMENTS {
            return Err(Status::invalid_argument(format!(
                "the program has {} statements; {MAX_STATEMENTS} is the most",
                statements.len()
            )));
        }
        let step_specs = specs.iter().map(serde_json::to_string).collect::<Result<_, _>>();
        let created_ms = clock::now_ms();
        let steps = codegen::job_steps(compiled);
        let mut job = Job {
            title: sqlflow_sql::first_words(&sql, &compiled.program),
            ..Job::new(JobId::generate(), steps)
        };
        if job.current_step().is_some() {
            // With its first attempt, so that one write is enough for both.
            let first = Event::AttemptCreated {
                step: 0,
                role: Role::Run,
                launcher_id: self.reconciler.first_launcher_id(),
            };
            job.apply(first, created_ms).map_err(|error| Status::internal(error.to_string()))?;
        }
        Ok(NewJob {
            job,
            token: Token::generate().hash(),
            principal: String::new(),
            user_id,
            headings: statements.iter().map(|statement| heading(&statement.text)).collect(),
            step_specs: step_specs.map_err(|error| Status::internal(error.to_string()))?,
            secrets: codegen::secrets_of(data_source),
            fetch_timeout_ms: i64::from(fetch_timeout_seconds) * 1000,
            owner: self.reconciler.server().clone(),
            lease: self.reconciler.lease_duration(),
            created_ms,
            request: None,
            sql,
        })
    }
}

fn heading(text: &str) -> String {
    text.trim().chars().take(HEADING_CHARACTERS).collect()
}
