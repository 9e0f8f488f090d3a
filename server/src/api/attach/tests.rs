//! Agents that violate the protocol, or disconnect: a client of the test on a Unix socket, with real store and log.

mod admission;
mod agent_liveness;
mod believed;
mod loads;

use std::sync::Mutex;

use async_trait::async_trait;
use sqlflow_job::{Basis, ExecutorRef, LauncherId, LauncherKind, Outcome, Reason, Role};
use sqlflow_job_store::{NewJob, Secret, ServerId, SqliteStore};
use sqlflow_launcher::TerminatedBy;
use sqlflow_proto::agent::agent_client::AgentClient;
use sqlflow_proto::agent::agent_server::AgentServer;
use sqlflow_proto::agent::{self, AttemptRef, CommitRequest, Heartbeat, attach_response::Message};
use sqlflow_result_log::TieredLog;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::api::AgentSocket;
use crate::api::executor_auth::ExecutorId;
use crate::codegen::DATA_SOURCE;
use crate::connections::ADMISSION_TIME;
use crate::fixture;
use crate::metrics::MeasuredStore;

const KEY: &[u8; 16] = b"0123456789abcdef";
const OTHER_KEY: &[u8; 16] = b"fedcba9876543210";
/// Short, so that tests are quick; the store's polling takes a second.
const SILENCE: Duration = Duration::from_millis(1500);

/// A platform that admits every executor, or none.
#[derive(Default)]
struct Platform {
    refuses: Mutex<Option<Code>>,
    /// The next executor is admitted once this is notified.
    held_up: Mutex<Option<Arc<Notify>>>,
    /// Notified when an executor is delayed.
    waits: Notify,
    /// Who ended the executor.
    ender: Mutex<Option<TerminatedBy>>,
}

#[async_trait]
impl ExecutorAuth for Platform {
    async fn identify(&self, _: &Hello, _: &Peer) -> Result<ExecutorId, Status> {
        match *self.refuses.lock().unwrap() {
            Some(code) => Err(Status::new(code, "the platform does not know it")),
            None => Ok(ExecutorId::Process(1)),
        }
    }

    async fn authorize(&self, _: &ExecutorId, target: &Target) -> Result<(), Status> {
        assert_eq!(target.executor, ExecutorRef::of_attempt(&target.attempt));
        let held_up = self.held_up.lock().unwrap().take();
        if let Some(go_on) = held_up {
            self.waits.notify_one();
            go_on.notified().await;
        }
        Ok(())
    }

    async fn terminated_by(&self, _: &Target) -> Option<TerminatedBy> {
        self.ender.lock().unwrap().clone()
    }
}

struct World {
    store: Arc<SqliteStore>,
    log: Arc<TieredLog>,
    platform: Arc<Platform>,
    metrics: Metrics,
    context: Arc<AttachContext>,
    attempt: AttemptId,
    socket: std::path::PathBuf,
    dir: tempfile::TempDir,
}

/// One stream.
struct Stream {
    requests: mpsc::Sender<AttachRequest>,
    responses: Streaming<AttachResponse>,
}

async fn world() -> World {
    world_of(fixture::job(true)).await
}

async fn world_of(job: Job) -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&dir.path().join("state.db")).await.unwrap());
    let log = fixture::tiered_log(&store, &dir.path().join("log"));
    let (log, platform) = (Arc::new(log), Arc::new(Platform::default()));
    let metrics = Metrics::default();
    let measured = Arc::new(MeasuredStore::new(store.clone(), metrics.clone()));
    let context = Arc::new(AttachContext {
        store: measured.clone(),
        log: log.clone(),
        executors: platform.clone(),
        attach_errors: AttachErrors::default(),
        assigner: Assigner::idle(measured),
        grace: Duration::from_secs(1),
        silence: SILENCE,
        server: ServerId("here".to_owned()),
        memory_peaks: MemoryPeaks::default(),
        metrics: metrics.clone(),
        streams: Mutex::default(),
        waiting: Semaphore::new(1),
        shutdown: CancellationToken::new(),
    });
    let socket = dir.path().join("agent.sock");
    let service = AgentServer::new(AgentApi { context: context.clone() });
    tokio::spawn(AgentSocket::at(socket.clone()).serve(service, CancellationToken::new()));
    while UnixStream::connect(&socket).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let attempt = AttemptId { job: job.id.clone(), step: 0, number: 1 };
    let new = NewJob {
        step_specs: vec![
            r#"{"title": "", "replay": [], "statements": [], "inputs": [], "outputs": []}"#.to_owned(),
        ],
        secrets: vec![(DATA_SOURCE.to_owned(), Secret::new("sqlite:///a.db"))],
        ..fixture::new_job(job, &ServerId("test".to_owned()))
    };
    store.create(new).await.unwrap();
    let world = World { store, log, platform, metrics, context, attempt, socket, dir };
    world
        .update(Event::AttemptCreated {
            step: 0,
            role: Role::Run,
            launcher_id: LauncherId::of(LauncherKind::Local),
        })
        .await;
    world
}

impl World {
    async fn update(&self, event: Event) {
        self.store.update(&self.attempt.job, None, event, 0).await.unwrap();
    }

    async fn attach_elsewhere(&self) {
        self.update(Event::AgentAttached {
            attempt: self.attempt.clone(),
            instance: InstanceHash::of(KEY),
            server: "there".to_owned(),
            is_local: false,
        })
        .await;
    }

    /// What the job's reconciler records when it reports that this server is silent.
    async fn reported_unheard(&self) {
        self.update(Event::AgentUnheard { attempt: self.attempt.clone(), server: "here".to_owned() }).await;
    }

    async fn speaks_until_it_is_attached_here(&self, stream: &Stream) {
        let mut changes = self.store.watch(&self.attempt.job);
        let is_here = async || {
            let record = self.store.load(&self.attempt.job).await.unwrap().unwrap();
            record.job.attached_to(&self.attempt) == Some("here")
        };
        let speaks = async {
            while !is_here().await {
                stream.beat(0).await;
                let _ = tokio::time::timeout(Duration::from_millis(100), changes.changed()).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), speaks).await.expect("it stays attached elsewhere");
    }

    async fn found_ended(&self) {
        let outcome = Outcome::by_server(Reason::Lost, "its node is gone", true);
        self.update(Event::AttemptFoundEnded {
            attempt: self.attempt.clone(),
            outcome,
            basis: Basis::Attached,
        })
        .await;
    }

    /// The stream of an agent that has its assignment, up to the server's answer to its Hello.
    async fn attach(&self, key: &[u8; 16]) -> Result<Stream, Status> {
        self.attach_with(key, true).await
    }

    async fn attach_with(&self, key: &[u8; 16], has_assignment: bool) -> Result<Stream, Status> {
        let mut stream = self.stream(Hello { has_assignment, ..self.hello(key) }).await?;
        match stream.next().await? {
            Message::Attached(_) => Ok(stream),
            other => panic!("{other:?}"),
        }
    }

    /// The first message of the attempt's agent.
    fn hello(&self, key: &[u8; 16]) -> Hello {
        let attempt = AttemptRef {
            job_id: self.attempt.job.to_string(),
            step: self.attempt.step,
            attempt: self.attempt.number,
        };
        Hello { instance_key: key.to_vec().into(), attempt: Some(attempt), ..Hello::default() }
    }

    async fn stream(&self, hello: Hello) -> Result<Stream, Status> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", self.socket.display())).unwrap();
        Stream::on(endpoint.connect().await.unwrap(), hello).await
    }

    /// A channel that has this one connection, and no other after it.
    async fn connection(&self) -> Channel {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let mut only = Some(hyper_util::rt::TokioIo::new(stream));
        let connector = tower::service_fn(move |_: http::Uri| {
            std::future::ready(
                only.take().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)),
            )
        });
        Endpoint::from_static("http://agents").connect_with_connector(connector).await.unwrap()
    }

    /// Waits until the log contains this text.
    async fn said(&self, text: &str) {
        let waited = async {
            loop {
                if self.notices().await.iter().any(|notice| notice.contains(text)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let within = tokio::time::timeout(Duration::from_secs(60), waited).await;
        within.unwrap_or_else(|_| panic!("no notice contains {text:?}"));
    }

    async fn notices(&self) -> Vec<String> {
        let page = self.log.read(&self.attempt.job, 0, usize::MAX).await.unwrap();
        let text = |stored: sqlflow_proto::record::StoredRecord| match stored.record?.payload? {
            Payload::Notice(notice) => Some(notice.text),
            _ => None,
        };
        page.records.into_iter().filter_map(text).collect()
    }
}

impl Stream {
    /// The stream of an agent on this channel, which has sent its Hello.
    async fn on(channel: Channel, hello: Hello) -> Result<Self, Status> {
        let (requests, outbound) = mpsc::channel(16);
        let hello = AttachRequest { message: Some(attach_request::Message::Hello(hello)) };
        requests.send(hello).await.unwrap();
        let responses = AgentClient::new(channel).attach(ReceiverStream::new(outbound)).await?.into_inner();
        Ok(Self { requests, responses })
    }

    async fn next(&mut self) -> Result<Message, Status> {
        let next = tokio::time::timeout(Duration::from_secs(60), self.responses.message());
        let response = next.await.expect("the server sends a message")?;
        Ok(response.expect("the stream ends with a status").message.unwrap())
    }

    /// The status that ends the stream.
    async fn end(mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }

    async fn say(&self, message: attach_request::Message) {
        self.requests.send(AttachRequest { message: Some(message) }).await.unwrap();
    }

    async fn beat(&self, memory_peak_bytes: u64) {
        let beat = Heartbeat { memory_peak_bytes, ..Heartbeat::default() };
        self.say(attach_request::Message::Heartbeat(beat)).await;
    }
}

#[tokio::test]
async fn open_stream_of_an_ended_attempt_is_refused() {
    let world = world().await;
    let stream = world.attach(KEY).await.unwrap();
    world.found_ended().await;
    let status = stream.end().await;
    assert_eq!(
        (status.code(), status.message()),
        (Code::FailedPrecondition, "this attempt is over: its node is gone")
    );
    let refused = world.attach(KEY).await.err().expect("it does not attach again");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    // Nor beside its successor.
    world
        .update(Event::AttemptCreated {
            step: 0,
            role: Role::Run,
            launcher_id: LauncherId::of(LauncherKind::Local),
        })
        .await;
    assert_eq!(world.attach(KEY).await.err().unwrap().code(), Code::FailedPrecondition);
}

/// The forwarded cancel stops the periodic checks.
#[tokio::test]
async fn inferred_outcome_ends_the_stream_of_a_cancelled_agent() {
    let world = world().await;
    let mut stream = world.attach(KEY).await.unwrap();
    let cancel = sqlflow_job::Failure::new(sqlflow_job::Cause::Cancelled, "by a user");
    world.update(Event::CancelRequested(cancel)).await;
    assert!(matches!(stream.next().await, Ok(Message::Cancel(_))));
    world.found_ended().await;
    assert_eq!(stream.end().await.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn lost_outcome_acknowledgement_is_repeated() {
    let world = world().await;
    let outcome = || {
        let reason = agent::outcome::Reason::Exited.into();
        attach_request::Message::Outcome(agent::Outcome { reason, ..agent::Outcome::default() })
    };
    for _ in 0..2 {
        let mut stream = world.attach(KEY).await.unwrap();
        stream.say(outcome()).await;
        assert!(matches!(stream.next().await, Ok(Message::OutcomeAck(_))));
    }
    assert_eq!(world.attach(OTHER_KEY).await.err().unwrap().code(), Code::FailedPrecondition);
}

/// The Pod's deadline passed while a finished training was being published.
#[tokio::test]
async fn output_kept_before_the_pods_deadline_stays_kept() {
    let world = world().await;
    *world.platform.ender.lock().unwrap() = Some(TerminatedBy::Deadline);
    let mut stream = world.attach(KEY).await.unwrap();
    let outcome = agent::Outcome {
        reason: agent::outcome::Reason::Terminated.into(),
        message: "told to stop; what the command made is kept".to_owned(),
        retryable: true,
        output_kept: true,
        ..agent::Outcome::default()
    };
    stream.say(attach_request::Message::Outcome(outcome)).await;
    assert!(matches!(stream.next().await, Ok(Message::OutcomeAck(_))));
    let job = world.store.load(&world.attempt.job).await.unwrap().unwrap().job;
    let outcome = job.attempt(&world.attempt).unwrap().outcome().unwrap();
    assert_eq!((outcome.reason, outcome.retryable, outcome.output_kept), (Reason::Deadline, false, true));
    assert_eq!(
        outcome.message,
        "it ran longer than its Pod may; told to stop; what the command made is kept"
    );
    assert_eq!(job.steps[0].kept_output(), Some(1));
}

/// Another attempt would write as much.
#[tokio::test]
async fn pod_over_its_disk_limit_is_not_retried() {
    let world = world().await;
    let why = "the Pod was evicted because it wrote too much".to_owned();
    *world.platform.ender.lock().unwrap() = Some(TerminatedBy::DiskLimit(why));
    let mut stream = world.attach(KEY).await.unwrap();
    let outcome = agent::Outcome {
        reason: agent::outcome::Reason::Terminated.into(),
        message: "told to stop".to_owned(),
        retryable: true,
        ..agent::Outcome::default()
    };
    stream.say(attach_request::Message::Outcome(outcome)).await;
    assert!(matches!(stream.next().await, Ok(Message::OutcomeAck(_))));
    let job = world.store.load(&world.attempt.job).await.unwrap().unwrap().job;
    let outcome = job.attempt(&world.attempt).unwrap().outcome().unwrap();
    assert_eq!((outcome.reason, outcome.retryable), (Reason::Terminated, false));
    assert_eq!(outcome.message, "the Pod was evicted because it wrote too much; told to stop");
}

/// Another server's cancel arrives by the store's signal, before the periodic reload.
#[tokio::test]
async fn change_by_another_server_reaches_an_open_stream() {
    let world = world().await;
    let mut stream = world.attach(KEY).await.unwrap();
    let other = SqliteStore::open(&world.dir.path().join("state.db")).await.unwrap();
    let cancel = sqlflow_job::Failure::new(sqlflow_job::Cause::Cancelled, "by a user");
    other.update(&world.attempt.job, None, Event::CancelRequested(cancel), 0).await.unwrap();
    let cancelled = async { while !matches!(stream.next().await.unwrap(), Message::Cancel(_)) {} };
    tokio::time::timeout(RELOAD_PERIOD / 10, cancelled).await.expect("the cancel is sent");
}
