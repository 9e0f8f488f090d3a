//! `sqlflow-agent attach` whose server is the test. It acknowledges all records at once.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlflow_proto::agent::agent_server::{Agent, AgentServer};
use sqlflow_proto::agent::{
    Assignment, AssignmentChunk, AttachRequest, AttachResponse, Attached, AttemptRef, CommitGrant,
    CommitRefusal, Hello, Outcome, OutcomeAck, attach_request,
    attach_response::{Ack, Message},
};
use sqlflow_proto::record::record::Payload;
use sqlflow_proto::record::{Record, output};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::server::program;
use crate::until::until;

/// The server's answer to a request for the grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCommit {
    /// It is granted.
    Grant,
    /// It is refused.
    Refuse,
    /// There is none.
    Hold,
}

/// What the server got.
#[derive(Debug, Default, Clone)]
pub struct Received {
    /// The first message.
    pub hello: Option<Hello>,
    /// All records.
    pub records: Vec<Record>,
    /// Number of requests for the grant.
    pub commits: usize,
    /// The outcome.
    pub outcome: Option<Outcome>,
}

impl Received {
    /// What the command printed to stdout.
    pub fn stdout(&self) -> String {
        self.output(output::Stream::Stdout)
    }

    /// What the command printed to stderr.
    pub fn stderr(&self) -> String {
        self.output(output::Stream::Stderr)
    }

    fn output(&self, stream: output::Stream) -> String {
        let bytes = self.records.iter().filter_map(|record| match &record.payload {
            Some(Payload::Output(output)) if output.stream() == stream => Some(&output.data[..]),
            _ => None,
        });
        String::from_utf8_lossy(&bytes.collect::<Vec<_>>().concat()).into_owned()
    }

    /// The warnings of the agent.
    pub fn notices(&self) -> Vec<String> {
        let notices = self.records.iter().filter_map(|record| match &record.payload {
            Some(Payload::Notice(notice)) => Some(notice.text.clone()),
            _ => None,
        });
        notices.collect()
    }
}

/// An agent that runs an assignment.
#[derive(Debug)]
pub struct Attach {
    dir: tempfile::TempDir,
    agent: Child,
    received: Arc<Mutex<Received>>,
    messages: mpsc::UnboundedSender<Message>,
    _runtime: Runtime,
}

/// The end of such a run.
#[derive(Debug)]
pub struct AttachEnded {
    /// All that the server got.
    pub received: Received,
    /// The outcome.
    pub outcome: Outcome,
    /// Of the agent.
    pub status: ExitStatus,
    /// The run folder, which is removed when this is dropped.
    pub dir: tempfile::TempDir,
}

impl Attach {
    /// The agent of the test's folder.
    pub fn start(assignment: Assignment, on_commit: OnCommit) -> Self {
        Self::with_agent(&program("sqlflow-agent"), assignment, on_commit)
    }

    /// Another agent.
    pub fn with_agent(agent: &Path, assignment: Assignment, on_commit: OnCommit) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        Self::within(dir, agent, assignment, on_commit)
    }

    /// An agent in an existing folder: `<dir>/0-1/workspace` is the working folder of the command.
    pub fn within(
        dir: tempfile::TempDir,
        agent: &Path,
        mut assignment: Assignment,
        on_commit: OnCommit,
    ) -> Self {
        let attempt = AttemptRef { job_id: "01jc2v3x4y5z6w7q8r9s0t1v2w".to_owned(), step: 0, attempt: 1 };
        assignment.attempt = Some(attempt);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread can be started");
        let received = Arc::new(Mutex::new(Received::default()));
        let (messages, to_send) = mpsc::unbounded_channel();
        let service = OneAttempt {
            assignment: prost::Message::encode_to_vec(&assignment),
            on_commit,
            received: received.clone(),
            to_send: Arc::new(Mutex::new(Some(to_send))),
        };
        let socket = dir.path().join("agent.sock");
        let listener = runtime.block_on(async { UnixListener::bind(&socket).expect("the folder is new") });
        let serving = Server::builder()
            .add_service(AgentServer::new(service))
            .serve_with_incoming(UnixListenerStream::new(listener));
        runtime.spawn(serving);
        let agent = Command::new("env")
            // A shell cannot trap signals that were ignored at its start.
            .arg("--default-signal")
            .arg(agent)
            .args(["attach", "--tee", "none", "--linger", "3600", "--server"])
            .arg(format!("unix://{}", socket.display()))
            .arg("--dir")
            .arg(dir.path().join("0-1"))
            .env("DIR", dir.path())
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("agent.log")).expect("the folder is writable"))
            .spawn()
            .expect("the agent starts");
        Self { dir, agent, received, messages, _runtime: runtime }
    }

    /// The agent's process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.agent.id()).expect("pids are positive i32"))
    }

    /// The folder of the test, which is `$DIR` for the command.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The working folder of the command.
    pub fn workspace(&self) -> PathBuf {
        self.dir.path().join("0-1/workspace")
    }

    /// Sends the agent a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the agent runs");
    }

    /// Sends the agent a message of the server.
    pub fn send(&self, message: Message) {
        self.messages.send(message).expect("the server runs");
    }

    /// What the server got so far.
    pub fn received(&self) -> Received {
        lock(&self.received).clone()
    }

    /// Waits until the server got this.
    pub fn wait_for(&self, what: &str, is_there: impl Fn(&Received) -> bool) {
        until(what, || is_there(&lock(&self.received)));
    }

    /// Kills the agent, which reports nothing then.
    pub fn kill(mut self) {
        self.agent.kill().expect("it is a child");
        self.agent.wait().expect("it is a child");
    }

    /// Waits for the outcome and the agent's exit.
    pub fn end(mut self) -> AttachEnded {
        until("the agent exits", || self.agent.try_wait().expect("it is a child").is_some());
        let status = self.agent.wait().expect("it is a child");
        let received = lock(&self.received).clone();
        let outcome = received.outcome.clone().expect("the agent reports an outcome");
        AttachEnded { received, outcome, status, dir: self.dir }
    }
}

/// The service of one attempt.
struct OneAttempt {
    assignment: Vec<u8>,
    on_commit: OnCommit,
    received: Arc<Mutex<Received>>,
    to_send: Arc<Mutex<Option<mpsc::UnboundedReceiver<Message>>>>,
}

#[tonic::async_trait]
impl Agent for OneAttempt {
    type AttachStream = ReceiverStream<Result<AttachResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (responses, stream) = mpsc::channel(4);
        let mut to_send = lock(&self.to_send).take().expect("the agent attaches once");
        let (mut requests, received, on_commit) =
            (request.into_inner(), self.received.clone(), self.on_commit);
        let chunk = AssignmentChunk { data: self.assignment.clone().into(), last: true };
        tokio::spawn(async move {
            let mut answers = vec![
                Message::Attached(Attached { heartbeat_seconds: 1, ..Attached::default() }),
                Message::Assignment(chunk),
            ];
            loop {
                for message in answers.drain(..) {
                    // The agent may be gone.
                    let _ = responses.send(Ok(AttachResponse { message: Some(message) })).await;
                }
                tokio::select! {
                    Some(message) = to_send.recv() => answers.push(message),
                    request = requests.message() => match request {
                        Ok(Some(AttachRequest { message: Some(message) })) => {
                            answers.extend(note(&received, on_commit, message));
                        }
                        Ok(Some(_)) => {}
                        Ok(None) | Err(_) => return,
                    },
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn note(
    received: &Mutex<Received>,
    on_commit: OnCommit,
    message: attach_request::Message,
) -> Option<Message> {
    let mut received = lock(received);
    match message {
        attach_request::Message::Hello(hello) => {
            received.hello = Some(hello);
            None
        }
        attach_request::Message::Records(batch) => {
            let seq = batch.records.last().map(|record| record.seq)?;
            received.records.extend(batch.records);
            Some(Message::Ack(Ack { seq }))
        }
        attach_request::Message::Commit(_) => {
            received.commits += 1;
            match on_commit {
                OnCommit::Grant => Some(Message::Grant(CommitGrant {})),
                OnCommit::Refuse => {
                    Some(Message::Refusal(CommitRefusal { reason: "another attempt commits".to_owned() }))
                }
                OnCommit::Hold => None,
            }
        }
        attach_request::Message::Outcome(outcome) => {
            received.outcome = Some(outcome);
            Some(Message::OutcomeAck(OutcomeAck {}))
        }
        attach_request::Message::Heartbeat(_) | attach_request::Message::Compressed(_) => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}
