//! `sqlflow.v1.SQLFlow`, the token API.

use std::sync::Arc;

use prost::Message as _;
use sqlflow_identity::{Caller, Policy};
use sqlflow_job::{Cause, CursorToken, Event, Failure, JobId, JobKey};
use sqlflow_job_store::{JobFilter, JobRecord, Store, UpdateError};
use sqlflow_os::clock;
use sqlflow_proto::SERVER_VERSION;
use sqlflow_proto::v1::{self, sql_flow_server::SqlFlow};
use sqlflow_result_log::ResultLog;
use sqlflow_sql::MAX_PROGRAM_BYTES;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::answer_budget::{AnswerBudget, in_room};
use super::client_admission::OpenedJob;
use super::delivery::{Call, Connection};
use super::fetch::{DEFAULT_LARGEST, Fetcher, Opened};
use super::submit::Submitter;
use super::{render, status};
use crate::access::{Access, Action, Right, Via, allowed, audit, audit_list};
use crate::metrics::Metrics;
use crate::web::Links;

const DEFAULT_LISTED: u32 = 50;
const MAX_LISTED: u32 = 1000;
/// Bytes of a list of jobs, each with a short message.
const LIST_BYTES: usize = 4 << 20;

/// The service.
pub(super) struct TokenApi {
    pub(super) store: Arc<dyn Store>,
    pub(super) log: Arc<dyn ResultLog>,
    pub(super) submitter: Submitter,
    pub(super) fetcher: Fetcher,
    pub(super) answers: AnswerBudget,
    pub(super) metrics: Metrics,
    pub(super) links: Links,
    pub(super) access: Access,
}

#[tonic::async_trait]
impl SqlFlow for TokenApi {
    async fn run(&self, request: Request<v1::Request>) -> Result<Response<v1::Token>, Status> {
        let taken = async {
            let in_session = request.get_ref().session.as_ref().map_or("", |it| it.token.as_str());
            let caller = self.runner(&request, in_session).await?;
            let (headers, _, request) = request.into_parts();
            let (token, id) = self.submitter.run(request, &headers, &caller).await?;
            Ok((caller, token, id))
        };
        let (caller, token, id) = self.metrics.call("Run", taken).await?;
        audit(&caller, Action::Run, &id, Right::Identity, Via::Api);
        let token = v1::Token {
            token: token.expose().to_owned(),
            job_id: id.to_string(),
            job_tracer_url: self.links.url(&id),
        };
        let mut response = Response::new(token);
        // Whose connection it is, if only the session said.
        response.extensions_mut().insert(caller);
        Ok(response)
    }

    async fn fetch(&self, request: Request<v1::Token>) -> Result<Response<v1::Result>, Status> {
        let connection = request.extensions().get::<Arc<Connection>>().cloned().unwrap_or_default();
        let timeout = request.metadata().get("grpc-timeout").map(|value| value.to_str().unwrap_or("?"));
        let call = Call::new(connection, timeout);
        let largest = match request.metadata().get(status::LARGEST_MESSAGE) {
            None => DEFAULT_LARGEST,
            Some(bytes) => bytes.to_str().ok().and_then(|bytes| bytes.parse().ok()).ok_or_else(|| {
                Status::invalid_argument(format!("{} is not a number of bytes", status::LARGEST_MESSAGE))
            })?,
        };
        let token = request.get_ref().token.parse().map_err(status::of_token)?;
        let fetched = async {
            let opened = self.open(token, caller_of(&request)).await?;
            let job = OpenedJob(opened.id.clone());
            let mut response = self.fetcher.fetch(opened, call, largest).await?;
            response.extensions_mut().insert(job);
            Ok(response)
        };
        self.metrics.call("Fetch", fetched).await
    }

    async fn cancel(&self, request: Request<v1::Token>) -> Result<Response<v1::Job>, Status> {
        let token = request.get_ref().token.parse().map_err(status::of_token)?;
        let Opened { id, caller, right, .. } = self.open(token, caller_of(&request)).await?;
        audit(&caller, Action::Cancel, &id, right, Via::Api);
        self.cancel_job(&id).await?;
        let record = self.load(&id).await?;
        Ok(of_job(id, render::job(&record, true)))
    }

    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::Job>, Status> {
        let caller = caller_of(&request);
        let key = match &request.get_ref().by {
            Some(v1::get_job_request::By::JobId(id)) => JobKey::Id(id.parse().map_err(status::of_token)?),
            Some(v1::get_job_request::By::Token(token)) => {
                token.parse::<CursorToken>().map_err(status::of_token)?.key
            }
            None => return Err(Status::invalid_argument("name the job by its id or its token")),
        };
        let (id, right) = self.resolve(&key, &caller).await?;
        audit(&caller, Action::Read, &id, right, Via::Api);
        let record = self.load(&id).await?;
        let mut job = render::job(&record, true);
        job.last_position = self.log.last_position(&id).await.map_err(status::of_log)?;
        // A program may be long.
        let owner = record.principal.as_deref().unwrap_or_default();
        let room = self.answers.room(owner, MAX_PROGRAM_BYTES, None).await?;
        job.sql = self.store.program(&id).await.map_err(status::of_store)?.unwrap_or_default();
        job.job_tracer_url = self.links.url(&id);
        let bytes = job.encoded_len();
        Ok(in_room(of_job(id, job), room, bytes))
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let caller = caller_of(&request);
        let caller = allowed(&caller)?;
        audit_list(caller, Via::Api);
        let principal = (!caller.is_admin()).then(|| caller.name().to_owned());
        let request = request.into_inner();
        let limit = match request.page_size {
            0 => DEFAULT_LISTED,
            size => size.min(MAX_LISTED),
        };
        let before = match request.page_token.as_str() {
            "" => None,
            id => Some(id.parse().map_err(status::of_token)?),
        };
        let states: Vec<_> = request.codes().flat_map(state_names).copied().collect();
        if states.is_empty() && !request.codes.is_empty() {
            return Ok(Response::new(v1::ListJobsResponse::default()));
        }
        let user_id = Some(request.user_id).filter(|user| !user.is_empty());
        let room = self.answers.room(caller.name(), LIST_BYTES, None).await?;
        // One more than requested shows whether there is another page.
        let filter = JobFilter { principal, user_id, states, before, limit: limit + 1 };
        let mut records = self.store.list(filter).await.map_err(status::of_store)?;
        let more = records.len() > limit as usize;
        records.truncate(limit as usize);
        let next_page_token = match records.last() {
            Some(last) if more => last.job.id.to_string(),
            Some(_) | None => String::new(),
        };
        let jobs = records.iter().map(|record| render::job(record, false)).collect();
        let listed = v1::ListJobsResponse { jobs, next_page_token };
        let bytes = listed.encoded_len();
        let mut response = in_room(Response::new(listed), room, bytes);
        let version = MetadataValue::from_static(env!("CARGO_PKG_VERSION"));
        response.metadata_mut().insert(SERVER_VERSION, version);
        Ok(response)
    }
}

impl TokenApi {
    /// The caller of Run. Clients that cannot send headers have their access token in the session.
    pub(super) async fn runner<T: Sync>(
        &self,
        request: &Request<T>,
        in_session: &str,
    ) -> Result<Caller, Status> {
        let caller = match Some(in_session).filter(|token| !token.is_empty()) {
            // A server that knows no tokens is one of a single user, whose clients may send any.
            Some(token)
                if self.access.has_verifiers() && !request.metadata().contains_key("authorization") =>
            {
                self.access.caller(Some(token), None).await?
            }
            Some(_) | None => caller_of(request),
        };
        allowed(&caller)?;
        Ok(caller)
    }

    pub(super) async fn cancel_job(&self, id: &JobId) -> Result<(), Status> {
        let event =
            Event::CancelRequested(Failure::new(Cause::Cancelled, "the job was cancelled by its client"));
        match self.store.update(id, None, event, clock::now_ms()).await {
            Ok(_) => Ok(()),
            Err(UpdateError::Store(error)) => Err(status::of_store(error)),
            Err(UpdateError::NotFound) => Err(status::unknown_job()),
            Err(error @ (UpdateError::Fenced | UpdateError::Rejected(_))) => {
                Err(Status::internal(error.to_string()))
            }
        }
    }

    /// The job of a token, or of an id in its place.
    pub(super) async fn open(&self, token: CursorToken, caller: Caller) -> Result<Opened, Status> {
        let (id, right) = self.resolve(&token.key, &caller).await?;
        Ok(Opened { id, token, caller, right })
    }

    /// The job, and what gives access to it.
    pub(super) async fn resolve(&self, key: &JobKey, caller: &Caller) -> Result<(JobId, Right), Status> {
        match key {
            JobKey::Token(token) => {
                let id = self.store.resolve(token.hash()).await.map_err(status::of_store)?;
                Ok((id.ok_or_else(status::unknown_job)?, Right::Token))
            }
            JobKey::Id(id) => {
                allowed(caller)?;
                let record = self.load(id).await?;
                // Whose job it is, or that there is one, is nobody else's business.
                let is_theirs = caller.may_access(record.principal.as_deref());
                if is_theirs { Ok((id.clone(), Right::Identity)) } else { Err(status::unknown_job()) }
            }
        }
    }

    pub(super) async fn load(&self, id: &JobId) -> Result<JobRecord, Status> {
        self.store.load(id).await.map_err(status::of_store)?.ok_or_else(status::unknown_job)
    }
}

/// The response to a call that opened this job.
pub(super) fn of_job<T>(id: JobId, message: T) -> Response<T> {
    let mut response = Response::new(message);
    response.extensions_mut().insert(OpenedJob(id));
    response
}

/// Who calls: found before each call.
pub(super) fn caller_of<T>(request: &Request<T>) -> Caller {
    request.extensions().get().cloned().unwrap_or_else(|| Policy::default().caller(None))
}

/// The store's name of a state; none for a state that no stored job has. For clients a cancelled job has FAILED, with
/// a cause.
fn state_names(code: v1::job_status::Code) -> &'static [&'static str] {
    match code {
        v1::job_status::Code::Pending => &["pending"],
        v1::job_status::Code::Running => &["running"],
        v1::job_status::Code::Succeeded => &["succeeded"],
        v1::job_status::Code::Failed => &["failed", "cancelled"],
        v1::job_status::Code::Unknown => &[],
    }
}
