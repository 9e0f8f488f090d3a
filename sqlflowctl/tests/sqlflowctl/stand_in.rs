//! A stand-in for the server, with one job whose log a test writes. It records requests, and can stop answering, stop,
//! and restart at the same address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::response::Response as Kind;
use sqlflow_proto::v1::sql_flow_server::{SqlFlow, SqlFlowServer};
use sqlflow_proto::v1::{
    Cause, GetJobRequest, Job, JobStatus, ListJobsRequest, ListJobsResponse, Request, Response,
    Result as Page, Token,
};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;

pub(crate) const JOB: &str = "01jd3hq0000000000000000000";
pub(crate) const TOKEN: &str = "sqlflow000102030405060708090a0b0c0d0e0f";

/// State of the job, behaviour of the server, and received requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    pub(crate) log: Vec<Response>,
    /// The final status, if the log is complete.
    pub(crate) ended: Option<JobStatus>,
    /// Run is rejected with this message.
    pub(crate) refuses: Option<String>,
    /// This many responses of Run are lost with their streams, after the job was recorded.
    pub(crate) lost_runs: u64,
    /// Then this many are rejected, since the server is shutting down.
    pub(crate) refused_runs: u64,
    /// Whether a cancelled job ends.
    pub(crate) cancel_ends: bool,
    /// Records in one page.
    pub(crate) page: usize,
    /// A Fetch from this cursor on gets no response.
    pub(crate) silent_from: Option<u64>,
    /// This many responses for the plain token do not move its cursor, as after a lost connection.
    pub(crate) plain_repeats: u64,
    /// Cursor of the plain token.
    pub(crate) plain: u64,
    pub(crate) runs: Vec<Request>,
    pub(crate) fetches: Vec<String>,
    pub(crate) cancels: u64,
}

impl Script {
    /// Adds a record.
    pub(crate) fn push(&mut self, kind: Kind) {
        let position = self.log.len() as u64 + 1;
        self.log.push(Response { position, statement: Some(0), time: None, response: Some(kind) });
    }

    /// Ends the job.
    pub(crate) fn end(&mut self, code: Code, cause: Cause, message: &str) {
        self.ended = Some(JobStatus { code: code.into(), cause: cause.into(), message: message.to_owned() });
    }

    fn status(&self) -> JobStatus {
        let running = || JobStatus { code: Code::Running.into(), ..JobStatus::default() };
        self.ended.clone().unwrap_or_else(running)
    }

    fn job(&self) -> Job {
        Job {
            job_id: JOB.to_owned(),
            status: Some(self.status()),
            last_position: self.log.len() as u64,
            ..Job::default()
        }
    }
}

#[derive(Debug, Clone)]
struct Service(Arc<watch::Sender<Script>>);

#[derive(Debug)]
pub(crate) struct StandIn {
    script: Arc<watch::Sender<Script>>,
    server: Option<Runtime>,
    waiter: Runtime,
    pub(crate) address: SocketAddr,
}

impl StandIn {
    pub(crate) fn start() -> Self {
        let script = Script { page: 100, cancel_ends: true, ..Script::default() };
        let mut stand_in = Self {
            script: Arc::new(watch::Sender::new(script)),
            server: None,
            waiter: Builder::new_current_thread().build().unwrap(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        stand_in.restart();
        stand_in
    }

    /// Drops all connections and calls.
    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_timeout(Duration::from_secs(10));
        }
    }

    pub(crate) fn restart(&mut self) {
        let server = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = server.block_on(TcpListener::bind(self.address)).unwrap();
        self.address = listener.local_addr().unwrap();
        let service = SqlFlowServer::new(Service(Arc::clone(&self.script)));
        server.spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        self.server = Some(server);
    }

    /// Changes the script, and wakes waiters.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Script)) {
        self.script.send_modify(change);
    }

    /// Waits until the condition holds. Returns the script.
    pub(crate) fn wait(&self, until: impl FnMut(&Script) -> bool) -> Script {
        let mut receiver = self.script.subscribe();
        self.waiter.block_on(async move { receiver.wait_for(until).await.unwrap().clone() })
    }

    pub(crate) fn script(&self) -> Script {
        self.script.borrow().clone()
    }
}

fn cursor(token: &str) -> Result<Option<u64>, Status> {
    let rest = token.strip_prefix(TOKEN).ok_or_else(|| Status::not_found("no job has this token"))?;
    Ok(rest.strip_prefix('.').and_then(|cursor| cursor.parse().ok()))
}

#[tonic::async_trait]
impl SqlFlow for Service {
    async fn run(&self, request: tonic::Request<Request>) -> Result<tonic::Response<Token>, Status> {
        if let Some(message) = self.0.borrow().refuses.clone() {
            return Err(Status::invalid_argument(message));
        }
        let (mut is_lost, mut is_refused) = (false, false);
        self.0.send_modify(|script| {
            script.runs.push(request.into_inner());
            is_lost = script.lost_runs > 0;
            is_refused = !is_lost && script.refused_runs > 0;
            script.lost_runs -= u64::from(is_lost);
            script.refused_runs -= u64::from(is_refused);
        });
        if is_lost {
            // As if the server died: the stream is reset, without a status.
            std::panic::resume_unwind(Box::new("the answer is lost"));
        }
        if is_refused {
            return Err(Status::unavailable("the server is shutting down"));
        }
        Ok(tonic::Response::new(Token {
            token: TOKEN.to_owned(),
            job_id: JOB.to_owned(),
            ..Token::default()
        }))
    }

    async fn fetch(&self, request: tonic::Request<Token>) -> Result<tonic::Response<Page>, Status> {
        let token = request.into_inner().token;
        let asked = cursor(&token)?;
        self.0.send_modify(|script| script.fetches.push(token.clone()));
        let from = asked.unwrap_or(self.0.borrow().plain);
        if self.0.borrow().silent_from.is_some_and(|silent| from >= silent) {
            return std::future::pending().await;
        }
        let mut receiver = self.0.subscribe();
        let is_news = |script: &Script| script.log.len() as u64 > from || script.ended.is_some();
        let _ = tokio::time::timeout(Duration::from_secs(1), receiver.wait_for(is_news)).await;
        let script = self.0.borrow().clone();
        let results: Vec<Response> =
            script.log.iter().skip(from as usize).take(script.page).cloned().collect();
        let to = from + results.len() as u64;
        let at_end = to >= script.log.len() as u64;
        let running = JobStatus { code: Code::Running.into(), ..JobStatus::default() };
        if asked.is_none() {
            self.0.send_modify(|script| match script.plain_repeats.checked_sub(1) {
                Some(fewer) => script.plain_repeats = fewer,
                None => script.plain = to,
            });
        }
        Ok(tonic::Response::new(Page {
            job_status: Some(if at_end { script.status() } else { running }),
            results,
            next: Some(Token { token: format!("{TOKEN}.{to}"), job_id: JOB.to_owned(), ..Token::default() }),
        }))
    }

    async fn cancel(&self, request: tonic::Request<Token>) -> Result<tonic::Response<Job>, Status> {
        cursor(&request.into_inner().token)?;
        self.0.send_modify(|script| {
            script.cancels += 1;
            if script.cancel_ends && script.ended.is_none() {
                script.push(Kind::Log(sqlflow_proto::v1::LogChunk {
                    data: "last output\n".into(),
                    ..sqlflow_proto::v1::LogChunk::default()
                }));
                script.end(Code::Failed, Cause::Cancelled, "");
            }
        });
        Ok(tonic::Response::new(self.0.borrow().job()))
    }

    async fn get_job(&self, request: tonic::Request<GetJobRequest>) -> Result<tonic::Response<Job>, Status> {
        use sqlflow_proto::v1::get_job_request::By;
        match request.into_inner().by {
            Some(By::Token(token)) => {
                cursor(&token)?;
            }
            Some(By::JobId(id)) if id == JOB => {}
            _ => return Err(Status::not_found("no job has this id")),
        }
        Ok(tonic::Response::new(self.0.borrow().job()))
    }

    async fn list_jobs(
        &self,
        _request: tonic::Request<ListJobsRequest>,
    ) -> Result<tonic::Response<ListJobsResponse>, Status> {
        let jobs = vec![self.0.borrow().job()];
        Ok(tonic::Response::new(ListJobsResponse { jobs, next_page_token: String::new() }))
    }
}
