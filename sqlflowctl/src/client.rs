//! The connection to the server.

use std::time::Duration;

use sqlflow_proto::SERVER_VERSION;
use sqlflow_proto::v1::sql_flow_client::SqlFlowClient;
use sqlflow_proto::v1::{
    GetJobRequest, Job, ListJobsRequest, ListJobsResponse, Request, Result as Page, Token,
};
use tonic::codegen::http::Uri;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::service_fn;

use crate::connection::{AccessToken, Connection};
use crate::failure::Failure;
use crate::listener;
use crate::trace::Trace;

/// Maximum size of a page.
const LARGEST_MESSAGE: usize = 32 * 1024 * 1024;
/// Maximum size of an HTTP/2 frame. By default each one of 16 KiB is a piece of work of its own.
const LARGEST_FRAME: u32 = 256 * 1024;
/// Timeout of a call. Fetch waits for at most a second.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Keepalive interval and timeout: a dead connection is detected within twice this time.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A client of one server. It connects at the first call, and again if the connection is lost.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    calls: SqlFlowClient<InterceptedService<Channel, Bearer>>,
    server: String,
}

/// Adds the access token to each call.
#[derive(Debug, Clone)]
struct Bearer(AccessToken);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(token) = self.0.read().map_err(Status::unauthenticated)? {
            let value = format!("Bearer {token}").parse();
            let value = value
                .map_err(|_| Status::unauthenticated("the access token has characters that no token has"))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

impl Client {
    /// A client of this server.
    pub(crate) fn new(connection: &Connection) -> Result<Self, Failure> {
        connection.check()?;
        let server = connection.server.as_str();
        let wrong = |error| Failure::Usage(format!("{server:?} is not a server's address: {error}"));
        let mut endpoint = Endpoint::from_shared(server.to_owned()).map_err(wrong)?;
        if let Some(tls) = connection.tls()? {
            let unusable = |error| Failure::Usage(format!("cannot use the certificates: {error}"));
            endpoint = endpoint.tls_config(tls).map_err(unusable)?;
        }
        let endpoint = endpoint
            .connect_timeout(CONNECT_DEADLINE)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .max_frame_size(LARGEST_FRAME)
            .tcp_nodelay(true);
        let channel = match connection.trusted_users()? {
            None => endpoint.connect_lazy(),
            Some(users) => endpoint
                .connect_with_connector_lazy(service_fn(move |uri: Uri| listener::connect(uri, users))),
        };
        let calls = SqlFlowClient::with_interceptor(channel, Bearer(connection.token.clone()));
        let calls = calls.max_decoding_message_size(LARGEST_MESSAGE);
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

    /// Version of the server, if it says it: earlier ones do not.
    pub(crate) async fn server_version(&mut self) -> Result<Option<String>, Status> {
        let request = ListJobsRequest { page_size: 1, ..ListJobsRequest::default() };
        let answer = answer_within_deadline(self.calls.list_jobs(request)).await?;
        let version = answer.metadata().get(SERVER_VERSION).and_then(|version| version.to_str().ok());
        Ok(version.map(str::to_owned))
    }

    pub(crate) async fn list(&mut self, request: ListJobsRequest) -> Result<ListJobsResponse, Status> {
        within_deadline(self.calls.list_jobs(request)).await
    }
}

fn token_message(token: &str) -> Token {
    Token { token: token.to_owned(), ..Token::default() }
}

async fn within_deadline<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    Ok(answer_within_deadline(call).await?.into_inner())
}

/// Waits for the whole response: `grpc-timeout` alone does not cover a response that stops in its middle.
async fn answer_within_deadline<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<tonic::Response<T>, Status> {
    match tokio::time::timeout(CALL_DEADLINE, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::new(
            Code::DeadlineExceeded,
            format!("no answer within {} s", CALL_DEADLINE.as_secs()),
        )),
    }
}
