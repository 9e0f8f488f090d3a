//! Clients that ping often, for example to keep a proxy from cutting a quiet connection. Many gRPC servers end such a
//! connection with GOAWAY and `too_many_pings`. This one answers every ping.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sqlflow_proto::v1::sql_flow_client::SqlFlowClient;
use sqlflow_proto::v1::{ListJobsRequest, Token};
use sqlflow_tests::client::Client;
use sqlflow_tests::ping_link::PingLink;
use sqlflow_tests::server::Server;
use sqlflow_tests::stand_in::{self, STEP};
use sqlflow_tests::{published, services};
use tonic::transport::Endpoint;

/// At the third ping without data other servers end the connection.
const PINGS: u32 = 3;
/// Timeout for them. A client in Go sends one each 10 seconds.
const BOUND: Duration = Duration::from_secs(120);

/// A job without output.
const QUIET: &str = "import time; time.sleep(600)";

/// Fetches from a job until a call fails. Python's library sends one ping a second at most. A `Token` is a text as field
/// 1.
const PYTHON: &str = r#"
import sys
import grpc

address, token = sys.argv[1:]
options = [
    ("grpc.keepalive_time_ms", 100),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
fetch = grpc.insecure_channel(address, options).unary_unary("/sqlflow.v1.SQLFlow/Fetch")
while True:
    fetch(b"\n" + bytes([len(token)]) + token.encode())
"#;

struct World {
    _dir: tempfile::TempDir,
    _server: Server,
    link: PingLink,
    /// A client that does not use the link.
    own: Client,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let server = stand_in::setup(dir.path(), QUIET, None).start().unwrap();
    let link = PingLink::to(&server.address).await.unwrap();
    let own = server.client().await.unwrap();
    World { _dir: dir, _server: server, link, own }
}

impl World {
    /// Waits until a client's process has pinged. It must not end before.
    async fn until_pinged_by(&self, client: &mut Child) {
        let pinged = async {
            while self.link.seen().pings < PINGS {
                assert_eq!(client.try_wait().unwrap(), None, "the client ended: {:?}", self.link.seen());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(BOUND, pinged).await.expect("the client does not ping");
    }

    async fn end(mut self, job: Token) {
        let seen = self.link.seen();
        assert_eq!((seen.connections, seen.goaways), (1, 0), "{seen:?}");
        self.own.api.cancel(job.clone()).await.unwrap();
        self.own.follow(&job).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frequent_pings_of_rust_end_no_connection() {
    let mut world = world().await;
    let job = world.own.run(STEP).await.unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", world.link.address)).unwrap();
    let endpoint = endpoint.http2_keep_alive_interval(Duration::from_millis(10)).keep_alive_while_idle(true);
    let mut pinging = SqlFlowClient::new(endpoint.connect().await.unwrap());
    while world.link.seen().pings < 100 * PINGS {
        pinging.fetch(job.clone()).await.unwrap();
    }
    world.end(job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frequent_pings_of_python_end_no_connection() {
    let mut world = world().await;
    let job = world.own.run(STEP).await.unwrap();
    let mut command = published::client("sqlflow", &["-c", PYTHON, &world.link.address, &job.token]);
    let mut client = command.spawn().unwrap();
    world.until_pinged_by(&mut client).await;
    client.kill().unwrap();
    client.wait().unwrap();
    world.end(job).await;
}

/// A call that is quiet for long, since Go pings only in silence.
#[tokio::test(flavor = "multi_thread")]
async fn frequent_pings_of_go_end_no_connection() {
    let mut command = Command::new(services::tool("go-pinger"));
    let mut world = world().await;
    let mut client = command.arg(&world.link.address).arg(STEP).stdout(Stdio::piped()).spawn().unwrap();
    world.until_pinged_by(&mut client).await;
    let jobs = world.own.api.list_jobs(ListJobsRequest::default()).await.unwrap().into_inner().jobs;
    // Its owner may write the id of a job in place of the token.
    world.end(Token { token: jobs[0].job_id.clone(), ..Token::default() }).await;
    let output = String::from_utf8(client.wait_with_output().unwrap().stdout).unwrap();
    assert!(output.starts_with("Canceled: ") && output.contains("cancelled"), "{output}");
}
