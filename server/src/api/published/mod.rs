//! `proto.SQLFlow`, the API of the published clients, on top of the token API.

mod cursor;
mod failure;
mod follow;
mod item;
mod lines;
mod page;
mod row;
mod stream;

use std::sync::Arc;

use prost::Message as _;
use sqlflow_job::{CursorToken, JobId, JobKey};
use sqlflow_proto::published::sql_flow_server::SqlFlow;
use sqlflow_proto::published::{
    FetchRequest, FetchResponse, Job, Request, Response, TaskStatus, fetch_response, response, task_status,
};
use sqlflow_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use self::cursor::Cursor;
use self::follow::Follow;
use self::page::Followed;
use super::answer_budget::in_room;
use super::delivery::{Call, Connection};
use super::fetch::Fetched;
use super::v1::{TokenApi, caller_of, of_job};
use super::{render, status};
use crate::access::{Action, Right, Via, audit};
use crate::admission::{Admission, Resource};

/// Responses of Run that wait for a slow client: one of at most 4 MiB, and short ones beside it.
const WAITING: usize = 4;

/// The service.
pub(super) struct PublishedApi {
    pub(super) api: Arc<TokenApi>,
    pub(super) admission: Admission,
    /// Jobs run as processes of this machine, and Run returns their responses.
    pub(super) is_local: bool,
    pub(super) shutdown: CancellationToken,
}

#[tonic::async_trait]
impl SqlFlow for PublishedApi {
    type RunStream = ReceiverStream<Result<Response, Status>>;

    async fn run(
        &self,
        request: tonic::Request<Request>,
    ) -> Result<tonic::Response<Self::RunStream>, Status> {
        let connection = connection(&request);
        let session = request.get_ref().session.clone().unwrap_or_default();
        let caller = self.api.runner(&request, &session.token).await?;
        let slot = if self.is_local { self.admission.take(Resource::Follow, &caller)? } else { None };
        let (headers, _, Request { sql, session: _ }) = request.into_parts();
        let program = v1::Request {
            sql,
            session: Some(v1::Session {
                db_conn_str: session.db_conn_str,
                user_id: session.user_id,
                ..v1::Session::default()
            }),
            request_id: String::new(),
        };
        let taken = self.api.submitter.run(program, &headers, &caller);
        let (token, id) = self.api.metrics.call("Run", taken).await?;
        audit(&caller, Action::Run, &id, Right::Identity, Via::Api);
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut response = tonic::Response::new(ReceiverStream::new(receiver));
        // Whose connection it is, which only the session said.
        response.extensions_mut().insert(caller.clone());
        if self.is_local {
            let key = JobKey::Token(token);
            let follow = Follow { api: Arc::clone(&self.api), id, key, caller, connection, sender };
            let shutdown = self.shutdown.clone();
            tokio::spawn(async move {
                let _slot = slot;
                follow.follow(shutdown).await;
            });
        } else {
            let job = self.job(&token, &id);
            let _ = sender.try_send(Ok(Response { response: Some(response::Response::Job(job)) }));
        }
        Ok(response)
    }

    async fn fetch(
        &self,
        request: tonic::Request<FetchRequest>,
    ) -> Result<tonic::Response<FetchResponse>, Status> {
        let (connection, caller) = (connection(&request), caller_of(&request));
        let request = request.into_inner();
        let from = Cursor::of(&request)?;
        let job =
            request.job.ok_or_else(|| Status::invalid_argument("cannot fetch: the request has no job"))?;
        let key = job.id.parse().map_err(status::of_token)?;
        let token = CursorToken { key, cursor: Some(from.after) };
        let fetched = async {
            let opened = self.api.open(token, caller).await?;
            // Records may be longer than what these clients decode: they are split here.
            let call = Call::new(connection, None);
            let id = opened.id.clone();
            let (fetched, room) = self.api.fetcher.page(opened, call).await?;
            let answer = answer(fetched, from, job, &id)?;
            let bytes = answer.encoded_len();
            Ok(in_room(of_job(id, answer), room, bytes))
        };
        self.api.metrics.call("Fetch", fetched).await
    }

    type IsFinishedStream = ReceiverStream<Result<TaskStatus, Status>>;

    async fn is_finished(
        &self,
        request: tonic::Request<Request>,
    ) -> Result<tonic::Response<Self::IsFinishedStream>, Status> {
        let session = request.get_ref().session.clone().unwrap_or_default();
        let (id, key) = job_of_url(&session.job_tracer_url).ok_or_else(|| {
            Status::invalid_argument("cannot find the job: job_tracer_url is not one that Run returned")
        })?;
        // The link opens the job's page, which shows the state.
        let is_open = key.is_some_and(|key| self.api.links.opens(&key, &id));
        let (caller, right) = if is_open {
            (caller_of(&request), Right::Link)
        } else {
            let caller = self.api.runner(&request, &session.token).await?;
            let (_, right) = self.api.resolve(&JobKey::Id(id.clone()), &caller).await?;
            (caller, right)
        };
        audit(&caller, Action::Read, &id, right, Via::Api);
        let record = self.api.load(&id).await?;
        let (sender, receiver) = mpsc::channel(1);
        let _ = sender.try_send(Ok(task_status(&render::status(&record.job))));
        let mut response = of_job(id, ReceiverStream::new(receiver));
        // Whose connection it is, if only the session said.
        response.extensions_mut().insert(caller);
        Ok(response)
    }
}

impl PublishedApi {
    fn job(&self, token: &sqlflow_job::Token, id: &JobId) -> Job {
        Job {
            id: token.expose().to_owned(),
            namespace: String::new(),
            job_tracer_url: self.api.links.url(id),
        }
    }
}

fn connection<T>(request: &tonic::Request<T>) -> Arc<Connection> {
    request.extensions().get::<Arc<Connection>>().cloned().unwrap_or_default()
}

/// The answer to Fetch. The error of a failed job comes after its last responses.
fn answer(fetched: Fetched, from: Cursor, job: Job, id: &JobId) -> Result<FetchResponse, Status> {
    let Fetched { status: state, results: records, next, last, .. } = fetched;
    let is_over = state.is_terminal();
    // A log that was restored from an older copy may end before this position.
    let begin = records.first().map_or(next, |it| it.position.saturating_sub(1));
    let from = if begin < from.after { Cursor { after: begin, ..Cursor::default() } } else { from };
    let followed = if is_over {
        Followed::ByNothing
    } else if next < last {
        Followed::ByMore
    } else {
        Followed::Later
    };
    let page = page::page(records, from, followed)?;
    let is_last = is_over && page.is_whole;
    if is_last && page.responses.is_empty() && state.code() == v1::job_status::Code::Failed {
        return Err(failure::of(&state, id));
    }
    Ok(FetchResponse {
        updated_fetch_since: Some(page.next.request(job)),
        eof: is_last && state.code() == v1::job_status::Code::Succeeded,
        responses: Some(fetch_response::Responses { response: page.responses }),
    })
}

/// The job of its page's address, and the key in it.
fn job_of_url(url: &str) -> Option<(JobId, Option<String>)> {
    let (_, path) = url.rsplit_once("/jobs/")?;
    let (id, query) = path.split_once('?').unwrap_or((path, ""));
    let key = query.split('&').find_map(|it| it.strip_prefix("key="));
    Some((id.parse().ok()?, key.map(str::to_owned)))
}

fn task_status(state: &v1::JobStatus) -> TaskStatus {
    let code = match state.code() {
        v1::job_status::Code::Succeeded => task_status::Code::Completed,
        v1::job_status::Code::Failed => task_status::Code::Failed,
        v1::job_status::Code::Pending | v1::job_status::Code::Running | v1::job_status::Code::Unknown => {
            task_status::Code::Pending
        }
    };
    TaskStatus { code: code.into(), message: state.message.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetched(code: v1::job_status::Code, outputs: &[&str]) -> Fetched {
        let output = |(position, text): (u64, &&str)| v1::Response {
            position,
            response: Some(v1::response::Response::Log(v1::LogChunk {
                data: (*text).to_owned().into(),
                ..v1::LogChunk::default()
            })),
            ..v1::Response::default()
        };
        let state = v1::JobStatus { code: code.into(), message: "no such table".to_owned(), cause: 1 };
        let last = outputs.len() as u64;
        Fetched::of(state, (1..).zip(outputs).map(output).collect(), last)
    }

    #[test]
    fn error_of_a_failed_job_follows_its_last_output() {
        use v1::job_status::Code::{Failed, Running, Succeeded};

        let id = JobId::generate();
        let of = |result| answer(result, Cursor::default(), Job::default(), &id);
        let running = of(fetched(Running, &[])).unwrap();
        assert!(!running.eof && running.responses.is_some() && running.updated_fetch_since.is_some());
        assert!(of(fetched(Succeeded, &["a\n"])).unwrap().eof);
        let last = of(fetched(Failed, &["a\n"])).unwrap();
        assert!(!last.eof && last.responses.unwrap().response.len() == 1);
        assert_eq!(last.updated_fetch_since.unwrap().step_id, "1");
        let error = of(fetched(Failed, &[])).unwrap_err();
        assert_eq!((error.code(), error.message()), (tonic::Code::FailedPrecondition, "no such table"));
    }

    #[test]
    fn job_is_found_by_the_address_of_its_page() {
        let id = JobId::generate();
        let found = job_of_url(&format!("https://h/a/jobs/{id}?key=k&x=y")).unwrap();
        assert_eq!(found, (id.clone(), Some("k".to_owned())));
        assert_eq!(job_of_url(&format!("https://h/jobs/{id}")).unwrap(), (id, None));
        for wrong in ["", "/jobs/", "https://h/jobs/x?key=k"] {
            assert_eq!(job_of_url(wrong), None, "{wrong}");
        }
    }
}
