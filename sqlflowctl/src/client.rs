//! The connection to the server.

use std::time::Duration;

use sqlflow_proto::v1::sql_flow_client::SqlFlowClient;
use sqlflow_proto::v1::{
    GetJobRequest, Job, ListJobsRequest, ListJobsResponse, Request, Result as Page, Token,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::failure::Failure;
use crate::trace::Trace;

/// Maximum size of a page.
const LARGEST_MESSAGE: usize = 32 * 1024 * 1024;
/// Timeout of a call. Fetch waits for at most a second.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Keepalive interval and timeout: a dead connection is detected within twice this time.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A client of one server. It connects at the first call, and again if the connection is lost.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    calls: SqlFlowClient<Channel>,
    server: String,
}

impl Client {
    /// A client of the server at `http://HOST:PORT`.
    pub(crate) fn new(server: &str) -> Result<Self, Failure> {
        let endpoint = Endpoint::from_shared(server.to_owned())
            .map_err(|error| Failure::Usage(format!("{server:?} is not a server's address: {error}")))?
            .connect_timeout(CONNECT_DEADLINE)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let calls = SqlFlowClient::new(endpoint.connect_lazy()).max_decoding_message_size(LARGEST_MESSAGE);
        Ok(Self { calls, server: server.to_owned() })
    }

    /// The server's address.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    pub(crate) async fn run(&mut self, request: Request, trace: &Trace) -> Result<Token, Status> {
        let mut request = tonic::Request::new(request);
        trace.inject(request.metadata_mut());
        within_deadline(self.calls.run(request)).await
    }

    pub(crate) async fn fetch(&mut self, token: &str) -> Result<Page, Status> {
        let mut request = tonic::Request::new(token_message(token));
        request.metadata_mut().insert("sqlflow-max-message-bytes", LARGEST_MESSAGE.into());
        within_deadline(self.calls.fetch(request)).await
    }

    pub(crate) async fn cancel(&mut self, token: &str) -> Result<Job, Status> {
        within_deadline(self.calls.cancel(token_message(token))).await
    }

    pub(crate) async fn job(&mut self, request: GetJobRequest) -> Result<Job, Status> {
        within_deadline(self.calls.get_job(request)).await
    }

    pub(crate) async fn list(&mut self, request: ListJobsRequest) -> Result<ListJobsResponse, Status> {
        within_deadline(self.calls.list_jobs(request)).await
    }
}

fn token_message(token: &str) -> Token {
    Token { token: token.to_owned(), ..Token::default() }
}

/// Waits for the whole response: `grpc-timeout` alone does not cover a response that stops in its middle.
async fn within_deadline<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(CALL_DEADLINE, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Status::new(
            Code::DeadlineExceeded,
            format!("no answer within {} s", CALL_DEADLINE.as_secs()),
        )),
    }
}
