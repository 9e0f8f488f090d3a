//! The agent before its assignment and after its outcome. The test is the server.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use sqlflow_proto::agent::agent_server::{Agent, AgentServer};
use sqlflow_proto::agent::{
    Assignment, AssignmentChunk, AttachRequest, AttachResponse, Attached, AttemptRef, Hello, Outcome,
    OutcomeAck, Wait, attach_request,
    attach_response::{Ack, Message},
};
use sqlflow_proto::record::record::Payload;
use sqlflow_tests::server::program;
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

const SOCKET: &str = "agent.sock";
const RUN_DIR: &str = "warm-1";

type Responses = mpsc::Sender<Result<AttachResponse, Status>>;

/// Passes each stream to the test.
struct Streams(mpsc::Sender<Stream>);

struct Stream {
    requests: Streaming<AttachRequest>,
    responses: Responses,
}

#[tonic::async_trait]
impl Agent for Streams {
    type AttachStream = ReceiverStream<Result<AttachResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (responses, stream) = mpsc::channel(4);
        self.0.send(Stream { requests: request.into_inner(), responses }).await.unwrap();
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Stream {
    async fn next(&mut self) -> attach_request::Message {
        let next = tokio::time::timeout(Duration::from_secs(60), self.requests.message());
        next.await.unwrap().unwrap().unwrap().message.unwrap()
    }

    async fn hello(&mut self) -> Hello {
        match self.next().await {
            attach_request::Message::Hello(hello) => hello,
            other => panic!("{other:?}"),
        }
    }

    async fn send(&self, message: Message) {
        self.responses.send(Ok(AttachResponse { message: Some(message) })).await.unwrap();
    }
}

fn attempt() -> AttemptRef {
    AttemptRef { job_id: "01jc2v3x4y5z6w7q8r9s0t1v2w".to_owned(), step: 3, attempt: 2 }
}

fn assignment() -> AssignmentChunk {
    assignment_of(r#"test "$SQLFLOW_ATTEMPT" = "$1""#)
}

fn assignment_of(script: &str) -> AssignmentChunk {
    let command = ["sh", "-c", script, "sh", "01jc2v3x4y5z6w7q8r9s0t1v2w/3/2"];
    let command = command.map(str::to_owned).to_vec();
    let assignment = Assignment { attempt: Some(attempt()), command, ..Assignment::default() };
    AssignmentChunk { data: prost::Message::encode_to_vec(&assignment).into(), last: true }
}

/// The test as a server, until it is aborted.
fn serve(dir: &Path) -> (mpsc::Receiver<Stream>, JoinHandle<()>) {
    let (sender, streams) = mpsc::channel(4);
    let listener = UnixListenerStream::new(UnixListener::bind(dir.join(SOCKET)).unwrap());
    let serving =
        Server::builder().add_service(AgentServer::new(Streams(sender))).serve_with_incoming(listener);
    (streams, tokio::spawn(async { serving.await.unwrap() }))
}

fn start_agent(dir: &Path, options: &[&str]) -> Child {
    Command::new(program("sqlflow-agent"))
        .args(["attach", "--tee", "none", "--server"])
        .arg(format!("unix://{}", dir.join(SOCKET).display()))
        .arg("--dir")
        .arg(dir.join(RUN_DIR))
        .args(options)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn exit(mut agent: Child) -> ExitStatus {
    tokio::time::timeout(Duration::from_secs(60), agent.wait()).await.expect("the agent leaves").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_takes_its_attempt_from_the_assignment() {
    let dir = tempfile::tempdir().unwrap();
    let (mut streams, _server) = serve(dir.path());
    let agent = start_agent(dir.path(), &[]);

    // The first server has no assignment, and ends.
    let mut first = streams.recv().await.unwrap();
    let waiting = first.hello().await;
    assert_eq!((waiting.attempt, waiting.has_assignment), (None, false));
    first.send(Message::Wait(Wait {})).await;
    drop(first);
    // The second has one later.
    let mut second = streams.recv().await.unwrap();
    assert_eq!(second.hello().await.attempt, None);
    second.send(Message::Wait(Wait {})).await;
    second.send(Message::Attached(Attached::default())).await;
    second.send(Message::Assignment(assignment())).await;
    // From then on its Hello names the attempt.
    while !matches!(second.next().await, attach_request::Message::Outcome(_)) {}
    drop(second);
    let mut third = streams.recv().await.unwrap();
    let resumed = third.hello().await;
    assert_eq!((resumed.attempt, resumed.has_assignment), (Some(attempt()), true));
    third.send(Message::Attached(Attached::default())).await;
    let outcome = loop {
        if let attach_request::Message::Outcome(outcome) = third.next().await {
            break outcome;
        }
    };
    assert_eq!(outcome.exit_code, Some(0), "{}: the command sees its attempt", outcome.message);
    third.send(Message::OutcomeAck(OutcomeAck {})).await;
    let status = exit(agent).await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_with_a_partial_assignment_exits_when_its_server_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut streams, server) = serve(dir.path());
    let agent = start_agent(dir.path(), &["--linger", "1"]);
    let mut only = streams.recv().await.unwrap();
    only.hello().await;
    only.send(Message::Wait(Wait {})).await;
    only.send(Message::Attached(Attached::default())).await;
    let half = assignment().data.slice(..10);
    only.send(Message::Assignment(AssignmentChunk { data: half, last: false })).await;
    // Only an attached agent sends heartbeats.
    only.next().await;
    server.abort();
    drop((only, streams));
    let status = exit(agent).await;
    assert!(!status.success(), "{status}");
}

/// Before it answers, a server may call its platform twice, with a timeout of 10 s each.
#[tokio::test(flavor = "multi_thread")]
async fn agent_waits_for_a_slow_answer_to_its_hello() {
    let dir = tempfile::tempdir().unwrap();
    let (mut streams, _server) = serve(dir.path());
    let agent = start_agent(dir.path(), &[]);
    let mut only = streams.recv().await.unwrap();
    only.hello().await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    only.send(Message::Attached(Attached::default())).await;
    only.send(Message::Assignment(assignment())).await;
    while !matches!(only.next().await, attach_request::Message::Outcome(_)) {}
    only.send(Message::OutcomeAck(OutcomeAck {})).await;
    assert!(exit(agent).await.success());
}

/// A long spool over a slow link: in a Pod, undelivered records are lost when the agent exits.
#[tokio::test(flavor = "multi_thread")]
async fn agent_does_not_exit_while_records_are_acknowledged() {
    const LINGER: Duration = Duration::from_secs(3);
    let dir = tempfile::tempdir().unwrap();
    let (mut streams, _server) = serve(dir.path());
    let agent = start_agent(dir.path(), &["--linger", "3"]);
    let mut only = streams.recv().await.unwrap();
    only.hello().await;
    only.send(Message::Attached(Attached::default())).await;
    let script = "for i in $(seq 30); do echo $i; sleep 0.05; done; echo end";
    only.send(Message::Assignment(assignment_of(script))).await;
    let mut last = 0;
    let mut is_end = false;
    while !is_end {
        let attach_request::Message::Records(batch) = only.next().await else { continue };
        last = batch.records.last().unwrap().seq;
        is_end = batch.records.iter().any(|it| match &it.payload {
            Some(Payload::Output(output)) => output.data.ends_with(b"end\n"),
            _ => false,
        });
    }
    let pause = LINGER * 2 / u32::try_from(last).unwrap();
    for seq in 1..=last {
        tokio::time::sleep(pause).await;
        only.send(Message::Ack(Ack { seq })).await;
    }
    while !matches!(only.next().await, attach_request::Message::Outcome(_)) {}
    only.send(Message::OutcomeAck(OutcomeAck {})).await;
    assert!(exit(agent).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_write_of_the_outcome_is_retried_before_the_exit() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join(RUN_DIR);
    // Blocks the temporary file of the outcome.
    let obstacle = run_dir.join("outcome.tmp");
    std::fs::create_dir_all(&obstacle).unwrap();
    let (mut streams, server) = serve(dir.path());
    let agent = start_agent(dir.path(), &["--linger", "1"]);
    let mut only = streams.recv().await.unwrap();
    only.hello().await;
    only.send(Message::Attached(Attached::default())).await;
    only.send(Message::Assignment(assignment())).await;
    while !matches!(only.next().await, attach_request::Message::Outcome(_)) {}
    assert!(!run_dir.join("outcome").exists());
    std::fs::remove_dir(obstacle).unwrap();
    server.abort();
    drop((only, streams));
    exit(agent).await;
    let written = std::fs::read(run_dir.join("outcome")).unwrap();
    let outcome: Outcome = prost::Message::decode(written.as_slice()).unwrap();
    assert_eq!(outcome.exit_code, Some(0), "{outcome:?}");
    assert!(outcome.nothing_left, "its command had no children");
}
