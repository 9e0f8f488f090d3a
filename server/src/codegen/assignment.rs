//! Assignments: from a step's document to the program, its document and its command.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use sqlflow_data_source::{Reach, STEP_DIGEST, step_digest};
use sqlflow_job::{self, AttemptId, Job, Role, Step};
use sqlflow_job_store::{Secret, Store, StoreError};
use sqlflow_launcher::{DATA_PROCESS, Python};
use sqlflow_proto::agent::{Assignment, AttemptRef, Companion, File, Input, Listing, Output, Removal};
use tonic::Status;

use super::build::precheck_folder;
use super::confinement::ConfinementOptions;
use super::gob;
use super::spec::{STEP_VERSION, StepSpec};
use crate::data_sources::{DataSource, DataSources};
use crate::{model_rights, trace};

/// Name of the secret that holds the data source.
pub const DATA_SOURCE: &str = "db_conn_str";

/// Name of the secret of a job that says whose its data source is. Jobs of servers before it have none, and keep what
/// they could reach when they were accepted.
const DATA_SOURCE_OWNER: &str = "data_source_owner";
/// Its value if the session brought the data source.
const CLIENT: &str = "client";

/// The secrets of a job with this data source.
#[must_use]
pub fn secrets_of(data_source: DataSource) -> Vec<(String, Secret)> {
    let owner = if data_source.is_clients { CLIENT } else { "operator" };
    vec![
        (DATA_SOURCE.to_owned(), data_source.dsn),
        (DATA_SOURCE_OWNER.to_owned(), Secret::new(owner.to_owned())),
    ]
}

/// The data process in Python. Modules are not looked up in the workspace, where user code may write (`-P`).
const PYTHON_DATA_PROCESS: [&str; 3] = ["-P", "-m", "sqlflow_submitter.duckdb_data"];
/// Its name in messages.
const DUCKDB: &str = "the data process of DuckDB";

/// Name of the program of a step in the workspace.
const MAIN: &str = "main.py";
/// Name of the step document in the workspace.
const STEP_DOCUMENT: &str = "step.json";

/// The program of a step. It is a constant, so that no text of a job can become source code: what differs is data in the
/// step document.
const PROGRAM: &str =
    "\"\"\"A step of a job.\"\"\"\n\nfrom sqlflow_submitter import run_step\n\nrun_step(\"step.json\")\n";

/// Settings of assignments.
#[derive(Debug, Clone)]
pub struct AssignOptions {
    /// The Python that runs submitters.
    pub python: Python,
    /// URI of the model storage, without a trailing slash.
    pub models: String,
    /// Grace period in seconds.
    pub grace_seconds: u32,
    /// Settings of the span exporter for agents and submitters, as `OTEL_*` variables.
    pub collector: HashMap<String, String>,
    /// Whether submitters get the collector's address and headers, for user code.
    pub trace_user_code: bool,
    /// What the Python of submitters must not reach; `None`: they are not confined.
    pub confinement: Option<ConfinementOptions>,
}

/// Seconds that an agent drains the pipes of an ended submitter.
const DRAIN_SECONDS: u32 = 5;

/// Makes assignments.
#[derive(Clone)]
pub struct Assigner {
    store: Arc<dyn Store>,
    options: AssignOptions,
    /// They say what a job may reach.
    data_sources: DataSources,
}

impl Assigner {
    /// An assigner with these settings, for jobs with these data sources.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, options: AssignOptions, data_sources: DataSources) -> Self {
        Self { store, options, data_sources }
    }

    /// Assignment of this attempt. But for the principal's own models, it depends only on data that never changes after the
    /// attempt is recorded, so any copy of the job with the attempt will do.
    ///
    /// # Errors
    /// NOT_FOUND: the step does not exist, or its job has ended. Otherwise an error of the store.
    pub async fn assignment(&self, job: &Job, attempt: &AttemptId) -> Result<Assignment, Status> {
        let gone = || Status::not_found("there is no such step, or its job has ended");
        let secret = self.secret(attempt, DATA_SOURCE).await?.ok_or_else(gone)?;
        let owner = self.secret(attempt, DATA_SOURCE_OWNER).await?;
        let is_clients = owner.is_some_and(|it| it.expose() == CLIENT);
        let secrets = secrets(&secret, &self.data_sources.reach(is_clients))?;
        let mut spec = self.step_spec(attempt).await?.ok_or_else(gone)?;
        let step = job.steps.get(attempt.step as usize);
        let publish_attempt = step.and_then(Step::kept_output).unwrap_or(0);
        let is_cleanup = job.attempt(attempt).is_some_and(|it| it.role == Role::Cleanup);
        let cleanup = step
            .filter(|_| is_cleanup)
            .map(|step| Cleanup { granted_attempt: sqlflow_job::unclear_grant(step) });
        let (traceparent, tracestate) = self.trace_of(job, attempt);
        let rules = std::mem::take(&mut spec.visibility);
        let visibility = model_rights::visibility(&*self.store, &attempt.job, rules).await;
        let visibility = visibility.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut assigned = assign(&self.options, attempt, spec, cleanup, secrets);
        let kind = job.attempt(attempt).map(|it| &it.launcher_id.kind);
        // The data process alone runs no code of users.
        let runs_user_code = assigned.command.iter().any(|argument| argument == MAIN);
        if let Some(options) = self.options.confinement.as_ref().filter(|_| runs_user_code) {
            assigned.confinement = kind.and_then(|kind| options.of_job(kind, secret.expose()));
        }
        if let Some(origin) = job.origin.as_ref().filter(|it| !it.baggage.is_empty()) {
            assigned.environment.insert("BAGGAGE".to_owned(), origin.baggage.clone());
        }
        Ok(Assignment { publish_attempt, traceparent, tracestate, visibility, ..assigned })
    }

    async fn secret(&self, attempt: &AttemptId, name: &str) -> Result<Option<Secret>, Status> {
        let secret = self.store.secret(&attempt.job, name).await;
        secret.map_err(|error| match error {
            StoreError::DamagedSecret(_) => Status::data_loss(error.to_string()),
            error => Status::unavailable(error.to_string()),
        })
    }

    /// The document of the attempt's step; `None`: the job was removed.
    ///
    /// # Errors
    /// An error of the store, or the document is damaged.
    pub async fn step_spec(&self, attempt: &AttemptId) -> Result<Option<StepSpec>, Status> {
        let spec = self.store.step_spec(&attempt.job, attempt.step).await;
        let Some(spec) = spec.map_err(|error| Status::unavailable(error.to_string()))? else {
            return Ok(None);
        };
        let parsed = serde_json::from_str(&spec);
        parsed
            .map(Some)
            .map_err(|error| Status::data_loss(format!("the step's document is damaged: {error}")))
    }

    /// What helps if the program of this attempt cannot be started. `None`: the agent's message says it.
    pub async fn start_remedy(&self, job: &Job, attempt: &AttemptId) -> Option<String> {
        let spec = self.step_spec(attempt).await.ok()??;
        remedy(&spec, job.attempt(attempt)?.role)
    }

    /// An assigner for tests without assignments.
    #[cfg(test)]
    pub(crate) fn idle(store: Arc<dyn Store>) -> Self {
        Self::new(store, Self::idle_options(), DataSources::new(Secret::new("")))
    }

    #[cfg(test)]
    fn idle_options() -> AssignOptions {
        AssignOptions {
            python: Python::unchecked("python"),
            models: "file:///models".to_owned(),
            grace_seconds: 1,
            collector: HashMap::new(),
            trace_user_code: false,
            confinement: None,
        }
    }

    /// Whether this server's spans are exported.
    #[must_use]
    pub fn is_traced(&self) -> bool {
        !self.options.collector.is_empty()
    }

    /// Without a collector this server has no spans: the attempt's spans then belong to the client's.
    fn trace_of(&self, job: &Job, attempt: &AttemptId) -> (String, String) {
        let origin = job.origin.clone().unwrap_or_default();
        if !self.is_traced() {
            return (origin.parent, origin.state);
        }
        (trace::attempt(job, attempt).to_string(), origin.state)
    }
}

/// What helps if a program of such an attempt cannot be started.
fn remedy(spec: &StepSpec, role: Role) -> Option<String> {
    if spec.python_data {
        // Its program is Python's.
        return None;
    }
    let (what, option) = match role {
        // It runs no Python, whatever its step does.
        Role::Cleanup => ("the cleanup runs in", "--pod-sql-image"),
        Role::Run if spec.is_plain_sql() => ("plain SQL runs in", "--pod-sql-image"),
        Role::Run if spec.needs_data_process() => {
            ("the statement reads by", "--pod-image, or --pod-agent-image,")
        }
        Role::Run => return None,
    };
    // As an image that was built for an earlier version.
    Some(format!(
        "{what} {DATA_PROCESS}: install the agent and {DATA_PROCESS} of this server's version together; for Pods, \
         build the image of {option} again"
    ))
}

/// An attempt that only drops what others of its step left in the user's database: it needs no model.
#[derive(Serialize)]
struct Cleanup {
    /// The attempt whose replacement of the result table it reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    granted_attempt: Option<u32>,
}

/// The secrets of a data process.
fn secrets(data_source: &Secret, reach: &Reach) -> Result<HashMap<String, String>, Status> {
    let reach = serde_json::to_string(reach).map_err(|error| Status::internal(error.to_string()))?;
    let data_source = data_source.expose().to_owned();
    Ok(HashMap::from([(DATA_SOURCE.to_owned(), data_source), (Reach::SECRET.to_owned(), reach)]))
}

fn assign(
    options: &AssignOptions,
    attempt: &AttemptId,
    mut spec: StepSpec,
    cleanup: Option<Cleanup>,
    mut secrets: HashMap<String, String>,
) -> Assignment {
    let is_data_process_alone = cleanup.is_some() || spec.is_plain_sql();
    let mut document = json!({
        "version": STEP_VERSION,
        "job": attempt.job,
        "step": attempt.step,
        "attempt": attempt.number,
        "scratch_suffix": format!("{}_{}_{}", attempt.job, attempt.step, attempt.number),
        "replay": spec.replay,
        "statements": spec.statements,
    });
    if !spec.user.is_empty() {
        document["user"] = json!(spec.user);
    }
    if !spec.prechecks.is_empty() {
        document["ahead"] = json!(spec.prechecks);
    }
    if let Some(cleanup) = cleanup {
        document["clean_up"] = json!(cleanup);
        spec.inputs.clear();
        spec.outputs.clear();
        spec.listing = None;
        spec.required.clear();
        spec.precheck_models.clear();
    }
    let document = document.to_string();
    // User code owns the file.
    secrets.insert(STEP_DIGEST.to_owned(), step_digest(document.as_bytes()));
    let mut files = vec![text_file(STEP_DOCUMENT, document)];
    let (data_process, name) = data_process_of(options, &spec);
    let command = if is_data_process_alone {
        data_process.clone()
    } else {
        files.push(text_file(MAIN, PROGRAM.to_owned()));
        vec![options.python.program(), MAIN.to_owned()]
    };
    // Only the data process gets the credentials: user code runs in Python.
    let (secrets, companions) = if is_data_process_alone {
        (secrets, Vec::new())
    } else if spec.needs_data_process() {
        (HashMap::new(), vec![Companion { name: name.to_owned(), command: data_process, secrets }])
    } else {
        (HashMap::new(), Vec::new())
    };
    let model_uri = |model: &str| format!("{}/{model}", options.models);
    let inputs = spec.inputs.into_iter().map(|input| Input {
        uri: model_uri(&input.model),
        name: input.model,
        directory: input.directory,
    });
    let listings =
        spec.listing.into_iter().map(|path| Listing { uri: options.models.clone(), path }).collect();
    let looked_into = |name: &String| spec.precheck_models.contains(name);
    let required = spec.required.iter().filter(|it| !looked_into(it)).map(|it| (it, String::new()));
    let looked_into = spec.precheck_models.iter().map(|it| (it, precheck_folder(it)));
    let required = required
        .chain(looked_into)
        .map(|(name, directory)| Input { uri: model_uri(name), name: name.clone(), directory })
        .collect();
    let outputs = spec.outputs.into_iter().map(|output| Output {
        uri: model_uri(&output.model),
        gob: match &output.removal {
            None => gob::encode_model(&output.train_select).into(),
            Some(_) => Bytes::new(),
        },
        removal: output.removal.map(|removal| Removal { if_exists: removal.if_exists }),
        name: output.model,
        directory: output.directory,
        statement: output.statement,
    });
    Assignment {
        attempt: Some(AttemptRef {
            job_id: attempt.job.to_string(),
            step: attempt.step,
            attempt: attempt.number,
        }),
        files,
        command,
        environment: options.collector.clone(),
        trace_user_code: options.trace_user_code,
        secrets,
        inputs: inputs.collect(),
        outputs: outputs.collect(),
        grace_seconds: options.grace_seconds,
        drain_seconds: DRAIN_SECONDS,
        traceparent: String::new(),
        tracestate: String::new(),
        spool_bytes: 0,
        publish_attempt: 0,
        listings,
        required,
        companions,
        confinement: None,
        visibility: None,
    }
}

/// Command of the step's data process, and its name in messages.
fn data_process_of(options: &AssignOptions, spec: &StepSpec) -> (Vec<String>, &'static str) {
    if !spec.python_data {
        return ([DATA_PROCESS, STEP_DOCUMENT].map(str::to_owned).to_vec(), DATA_PROCESS);
    }
    let arguments = PYTHON_DATA_PROCESS.into_iter().chain([STEP_DOCUMENT]).map(str::to_owned);
    (std::iter::once(options.python.program()).chain(arguments).collect(), DUCKDB)
}

fn text_file(path: &str, content: String) -> File {
    File { path: path.to_owned(), content: content.into(), mode: 0 }
}

#[cfg(test)]
mod tests;
