//! A server that ends an attempt by an inferred outcome while its agent lives. The test is the server.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use sqlflow_proto::agent::agent_server::{Agent, AgentServer};
use sqlflow_proto::agent::{
    AssignmentChunk, AttachRequest, AttachResponse, Attached, attach_request, attach_response::Message,
};
use sqlflow_tests::server::program;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// Writes its own pid and that of a child which ignores TERM, and waits.
const COMMAND: &str = "sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' & echo $$ $! > pids; wait";

/// Assigns [`COMMAND`], and ends the stream with FAILED_PRECONDITION once the command runs.
#[derive(Clone)]
struct FencingServer {
    pids: PathBuf,
    attached: Arc<AtomicUsize>,
}

/// The command's processes, once it has written both pids.
fn pids_in(file: &std::path::Path) -> Option<Vec<Pid>> {
    let text = std::fs::read_to_string(file).ok().filter(|text| text.ends_with('\n'))?;
    Some(text.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect())
}

fn assignment() -> Vec<u8> {
    let command = ["sh", "-c", COMMAND].map(str::to_owned).to_vec();
    let assignment = sqlflow_proto::agent::Assignment {
        command,
        grace_seconds: 1,
        drain_seconds: 1,
        ..Default::default()
    };
    prost::Message::encode_to_vec(&assignment)
}

#[tonic::async_trait]
impl Agent for FencingServer {
    type AttachStream = ReceiverStream<Result<AttachResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        self.attached.fetch_add(1, Ordering::Relaxed);
        let (responses, stream) = mpsc::channel(4);
        let (server, mut requests) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let hello = requests.message().await.unwrap().unwrap().message;
            assert!(matches!(hello, Some(attach_request::Message::Hello(_))), "{hello:?}");
            let attached = Attached { heartbeat_seconds: 1, ..Attached::default() };
            let chunk = AssignmentChunk { data: assignment().into(), last: true };
            for message in [Message::Attached(attached), Message::Assignment(chunk)] {
                responses.send(Ok(AttachResponse { message: Some(message) })).await.unwrap();
            }
            while pids_in(&server.pids).is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let over = Status::failed_precondition("this attempt is over: its node is gone");
            responses.send(Err(over)).await.unwrap();
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fenced_agent_kills_its_processes_and_exits() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, run_dir) = (dir.path().join("agent.sock"), dir.path().join("0-1"));
    let server = FencingServer { pids: run_dir.join("workspace/pids"), attached: Arc::default() };
    let service = AgentServer::new(server.clone());
    let listener = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(listener));

    let mut agent = Command::new(program("sqlflow-agent"))
        .args(["attach", "--job", "01jc2v3x4y5z6w7q8r9s0t1v2w", "--step", "0", "--attempt", "1"])
        .args(["--linger", "3600", "--tee", "none"])
        .arg("--server")
        .arg(format!("unix://{}", socket.display()))
        .arg("--dir")
        .arg(&run_dir)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = agent.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > Duration::from_secs(60) {
            agent.kill().unwrap();
            panic!("the agent does not exit");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(!status.success(), "{status}");
    assert_eq!(server.attached.load(Ordering::Relaxed), 1, "the agent does not attach again");
    for pid in pids_in(&server.pids).unwrap() {
        assert_eq!(kill(pid, None), Err(Errno::ESRCH), "{pid} still runs");
    }
}
