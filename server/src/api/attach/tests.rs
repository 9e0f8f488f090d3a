//! Agents that speak the protocol as they should not, or stop speaking it: a client of the test's own, on a Unix socket,
//! with real store and log.

use std::sync::Mutex;

use async_trait::async_trait;
use sqlflow_proto::agent::agent_client::AgentClient;
use sqlflow_proto::agent::agent_server::AgentServer;
use sqlflow_proto::agent::{self, AttemptRef, CommitRequest, Heartbeat, attach_response::Message};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::accept::ADMISSION_TIME;
use crate::api::AgentSocket;
use crate::api::executors::ExecutorId;
use crate::fixture;
use crate::job::{Basis, ExecutorRef, Outcome, Place, Reason, Role};
use crate::log::SegmentLog;
use crate::store::{ServerId, SqliteStore};

const KEY: &[u8; 16] = b"0123456789abcdef";
const OTHER_KEY: &[u8; 16] = b"fedcba9876543210";
/// Short, so that tests do not wait; the store's looks take a second.
const SILENCE: Duration = Duration::from_millis(1500);

/// A platform that takes every executor, or none.
#[derive(Default)]
struct Platform {
    refuses: Mutex<Option<Code>>,
    /// The next executor is let in once this is notified.
    held_up: Mutex<Option<Arc<Notify>>>,
    /// Notified when one is held up.
    waits: Notify,
}

#[async_trait]
impl Executors for Platform {
    async fn identify(&self, _: &Hello, _: &Peer) -> Result<ExecutorId, Status> {
        match *self.refuses.lock().unwrap() {
            Some(code) => Err(Status::new(code, "the platform does not know it")),
            None => Ok(ExecutorId::Process(1)),
        }
    }

    async fn may_speak(&self, _: &ExecutorId, target: &Target) -> Result<(), Status> {
        assert_eq!(target.executor, ExecutorRef::of_attempt(&target.attempt));
        let held_up = self.held_up.lock().unwrap().take();
        if let Some(go_on) = held_up {
            self.waits.notify_one();
            go_on.notified().await;
        }
        Ok(())
    }
}

struct World {
    store: Arc<SqliteStore>,
    log: Arc<SegmentLog>,
    platform: Arc<Platform>,
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
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&dir.path().join("state.db")).await.unwrap());
    let log = fixture::log(&dir.path().join("log"));
    let (log, platform) = (Arc::new(log), Arc::new(Platform::default()));
    let context = AttachContext {
        store: store.clone(),
        log: log.clone(),
        executors: platform.clone(),
        refusals: Refusals::default(),
        assigner: Assigner::idle(store.clone()),
        grace: Duration::from_secs(1),
        silence: SILENCE,
        server: ServerId("here".to_owned()),
        memory_peaks: MemoryPeaks::default(),
        metrics: Metrics::default(),
        streams: Mutex::default(),
        waiting: Semaphore::new(1),
        shutdown: CancellationToken::new(),
    };
    let socket = dir.path().join("agent.sock");
    let service = AgentServer::new(AgentApi { context: Arc::new(context) });
    tokio::spawn(AgentSocket::at(socket.clone()).serve(service, CancellationToken::new()));
    while UnixStream::connect(&socket).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let job = fixture::job(true);
    let attempt = AttemptId { job: job.id.clone(), step: 0, number: 1 };
    store.create(fixture::new_job(job, &ServerId("test".to_owned()))).await.unwrap();
    let world = World { store, log, platform, attempt, socket, dir };
    world.update(Event::AttemptCreated { step: 0, role: Role::Run, place: Place::of("local") }).await;
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
        })
        .await;
    }

    /// What the job's driver records, when it reports that this server is silent.
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
        tokio::time::timeout(Duration::from_secs(60), speaks).await.expect("it stays elsewhere");
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

    /// What the agent of the attempt says first.
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

    /// Waits until the log says this.
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
        within.unwrap_or_else(|_| panic!("nobody says {text:?}"));
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
    /// The stream of an agent on this channel, which has said its Hello.
    async fn on(channel: Channel, hello: Hello) -> Result<Self, Status> {
        let (requests, outbound) = mpsc::channel(16);
        let hello = AttachRequest { message: Some(attach_request::Message::Hello(hello)) };
        requests.send(hello).await.unwrap();
        let responses = AgentClient::new(channel).attach(ReceiverStream::new(outbound)).await?.into_inner();
        Ok(Self { requests, responses })
    }

    async fn next(&mut self) -> Result<Message, Status> {
        let next = tokio::time::timeout(Duration::from_secs(60), self.responses.message());
        let response = next.await.expect("the server says something")?;
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
async fn an_agent_whose_attempt_a_server_ended_is_refused_also_on_its_open_stream() {
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
    world.update(Event::AttemptCreated { step: 0, role: Role::Run, place: Place::of("local") }).await;
    assert_eq!(world.attach(KEY).await.err().unwrap().code(), Code::FailedPrecondition);
}

/// Of an agent that the state does not know, for it was restored from a backup: a new one may not go on after them, and the
/// one that said them may.
#[tokio::test]
async fn an_agent_does_not_begin_where_the_log_has_records() {
    let world = world().await;
    let output = Some(Payload::Output(sqlflow_proto::record::Output::default()));
    let record = Record { seq: 1, payload: output, ..Record::default() };
    let entry = Entry { producer: Producer::agent(&world.attempt, 0), record };
    world.log.append(&world.attempt.job, vec![entry]).await.unwrap();
    let refused = world.attach_with(OTHER_KEY, false).await.err().expect("it is refused");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("the log has 1 records of it"), "{}", refused.message());
    let _stream = world.attach(KEY).await.unwrap();
    // It did not get all of its assignment.
    world.attach_with(KEY, false).await.unwrap();
}

/// The cancel that was passed on ends the looking at nothing.
#[tokio::test]
async fn a_verdict_reaches_an_agent_that_was_cancelled_before() {
    let world = world().await;
    let mut stream = world.attach(KEY).await.unwrap();
    let cancel = crate::job::Failure::new(crate::job::Cause::Cancelled, "by a user");
    world.update(Event::CancelRequested(cancel)).await;
    assert!(matches!(stream.next().await, Ok(Message::Cancel(_))));
    world.found_ended().await;
    assert_eq!(stream.end().await.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn an_agent_that_missed_the_acknowledgement_of_its_outcome_hears_it_again() {
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

#[tokio::test]
async fn the_instance_key_is_the_stronger_proof() {
    let world = world().await;
    let refuse = |code| *world.platform.refuses.lock().unwrap() = code;
    refuse(Some(Code::Unauthenticated));
    let code = |attached: Result<Stream, Status>| attached.err().map(|status| status.code());
    assert_eq!(
        code(world.attach(KEY).await),
        Some(Code::Unauthenticated),
        "the first Attach needs the platform"
    );
    refuse(None);
    let first = world.attach(KEY).await.unwrap();
    refuse(Some(Code::Unauthenticated));
    let second = world.attach(KEY).await.unwrap();
    assert_eq!(first.end().await.code(), Code::Aborted);
    assert_eq!(code(world.attach(OTHER_KEY).await), Some(Code::Unauthenticated));
    refuse(Some(Code::PermissionDenied));
    assert_eq!(code(world.attach(KEY).await), Some(Code::PermissionDenied), "it is known to be another");
    refuse(Some(Code::Unavailable));
    let third = world.attach(KEY).await.unwrap();
    assert_eq!(second.end().await.code(), Code::Aborted);
    assert_eq!(code(world.attach(OTHER_KEY).await), Some(Code::Unavailable), "it is not known yet");
    refuse(None);
    world.found_ended().await;
    assert_eq!(third.end().await.code(), Code::FailedPrecondition);
    refuse(Some(Code::Unauthenticated));
    assert_eq!(code(world.attach(KEY).await), Some(Code::FailedPrecondition), "a verdict is stronger still");
}

#[tokio::test]
async fn an_agent_that_says_nothing_is_noticed_and_so_is_its_return() {
    let world = world().await;
    let stream = world.attach(KEY).await.unwrap();
    stream.beat(700 << 20).await;
    world.said("no word from the agent for 1 s; its processes had used up to 700 MiB of memory").await;
    stream.beat(0).await;
    world.said("the agent is heard again").await;
    assert_eq!(world.notices().await.len(), 2, "each is said once");
}

/// As when its connection is cut, or it is killed.
#[tokio::test]
async fn a_silent_agent_whose_stream_ends_is_not_heard_again() {
    let world = world().await;
    let stream = world.attach(KEY).await.unwrap();
    world.said("no word from the agent for 1 s").await;
    drop(stream);
    tokio::time::sleep(SILENCE * 2).await;
    assert_eq!(world.notices().await.len(), 1, "it is said once");
    let _stream = world.attach(KEY).await.unwrap();
    world.said("the agent is heard again").await;
}

#[tokio::test]
async fn an_agent_that_does_not_come_back_is_noticed_and_so_is_its_return() {
    let world = world().await;
    drop(world.attach(KEY).await.unwrap());
    world.said("it has not come back to this server").await;
    let _stream = world.attach(KEY).await.unwrap();
    world.said("the agent is heard again").await;
    assert_eq!(world.notices().await.len(), 2, "each is said once");
}

/// To another server of the same state, which hears its heartbeats.
#[tokio::test]
async fn an_agent_that_went_to_another_server_is_not_awaited_here() {
    let world = world().await;
    drop(world.attach(KEY).await.unwrap());
    world.attach_elsewhere().await;
    tokio::time::sleep(SILENCE * 2).await;
    assert_eq!(world.notices().await, [] as [String; 0]);
}

/// As after this server was stopped together with the agent: the driver of the job reports it, at another server.
#[tokio::test]
async fn an_agent_whose_silence_the_driver_reported_is_not_awaited_here() {
    let world = world().await;
    let stream = world.attach(KEY).await.unwrap();
    stream.beat(0).await;
    world.said("no word from the agent").await;
    world.reported_unheard().await;
    drop(stream);
    tokio::time::sleep(SILENCE * 2).await;
    assert_eq!(world.notices().await.len(), 1, "neither that it is silent nor that it is heard again");
}

/// As when the other server was stopped, and reads now what the agent had said to it before.
#[tokio::test]
async fn an_agent_that_speaks_is_attached_where_it_speaks() {
    let world = world().await;
    let stream = world.attach(KEY).await.unwrap();
    world.attach_elsewhere().await;
    world.speaks_until_it_is_attached_here(&stream).await;
    world.reported_unheard().await;
    world.speaks_until_it_is_attached_here(&stream).await;
    assert_eq!(world.notices().await, [] as [String; 0]);
}

/// Another server's cancel comes by what the store tells, and not only when the job is read again for safety.
#[tokio::test]
async fn what_another_server_records_reaches_an_open_stream() {
    let world = world().await;
    let mut stream = world.attach(KEY).await.unwrap();
    let other = SqliteStore::open(&world.dir.path().join("state.db")).await.unwrap();
    let cancel = crate::job::Failure::new(crate::job::Cause::Cancelled, "by a user");
    other.update(&world.attempt.job, None, Event::CancelRequested(cancel), 0).await.unwrap();
    let cancelled = async { while !matches!(stream.next().await.unwrap(), Message::Cancel(_)) {} };
    tokio::time::timeout(SAFETY_PERIOD / 10, cancelled).await.expect("it is told");
}

/// Also while it was away; and nothing is said of an attempt that is over.
#[tokio::test]
async fn nobody_waits_for_the_agent_of_an_attempt_that_is_over() {
    let world = world().await;
    let stream = world.attach(KEY).await.unwrap();
    world.found_ended().await;
    assert_eq!(stream.end().await.code(), Code::FailedPrecondition);
    tokio::time::sleep(SILENCE * 2).await;
    assert_eq!(world.notices().await, [] as [&str; 0]);
}

/// An executor that is there before its work is: it stays, within a bound, and its platform has to know it.
#[tokio::test]
async fn an_executor_without_an_attempt_is_told_to_wait() {
    let world = world().await;
    let hello = || Hello { instance_key: KEY.to_vec().into(), ..Hello::default() };
    let mut first = world.stream(hello()).await.unwrap();
    assert!(matches!(first.next().await, Ok(Message::Wait(_))));
    first.beat(0).await;
    let second = world.stream(hello()).await.unwrap();
    assert_eq!(second.end().await.code(), Code::ResourceExhausted, "this server keeps one");
    first.say(attach_request::Message::Commit(CommitRequest::default())).await;
    assert_eq!(first.end().await.code(), Code::InvalidArgument, "it speaks for no attempt");
    *world.platform.refuses.lock().unwrap() = Some(Code::Unauthenticated);
    assert_eq!(world.stream(hello()).await.unwrap().end().await.code(), Code::Unauthenticated);
}

/// One that was held up for so long that its agent came again.
#[tokio::test]
async fn a_stream_that_nobody_waits_for_ends_no_newer_one() {
    let world = world().await;
    let go_on = Arc::new(Notify::new());
    *world.platform.held_up.lock().unwrap() = Some(go_on.clone());
    let held_up = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::select! {
            _ = world.attach(KEY) => panic!("it is held up"),
            () = world.platform.waits.notified() => {}
        }
    });
    held_up.await.unwrap();
    let mut newer = world.attach(KEY).await.unwrap();
    go_on.notify_one();
    // Nothing tells that the held up one was dropped; if it took over, it does so at once.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let cancel = crate::job::Failure::new(crate::job::Cause::Cancelled, "by a user");
    world.update(Event::CancelRequested(cancel)).await;
    assert!(matches!(newer.next().await, Ok(Message::Cancel(_))));
}

/// It counts as attached to this server, and has no stream.
#[tokio::test]
async fn an_agent_that_left_before_it_was_admitted_is_awaited() {
    let world = world().await;
    let go_on = Arc::new(Notify::new());
    *world.platform.held_up.lock().unwrap() = Some(go_on.clone());
    tokio::select! {
        _ = world.attach(KEY) => panic!("it is held up"),
        () = world.platform.waits.notified() => {}
    }
    go_on.notify_one();
    world.said("no word from the agent").await;
    let _stream = world.attach(KEY).await.unwrap();
    world.said("the agent is heard again").await;
}

/// It is told so also once the log has records.
#[tokio::test]
async fn an_agent_that_comes_second_hears_of_the_first() {
    let world = world().await;
    let _first = world.attach(KEY).await.unwrap();
    let record = Record { seq: 1, payload: Some(Payload::Notice(Notice::default())), ..Record::default() };
    let entry = Entry { producer: Producer::agent(&world.attempt, 0), record };
    world.log.append(&world.attempt.job, vec![entry]).await.unwrap();
    let refused = world.stream(world.hello(OTHER_KEY)).await.unwrap().end().await;
    assert!(refused.message().contains("another agent is attached"), "{refused:?}");
}

/// Whether the connection still takes requests after twice the time, when one like this comes every now and then.
async fn stays(channel: Channel, request: impl AsyncFn(Channel) -> Code) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < ADMISSION_TIME * 2 {
        // An error of the transport: the connection was closed, and there is no other.
        if matches!(request(channel.clone()).await, Code::Unknown | Code::Unavailable) {
            return false;
        }
        tokio::time::sleep(ADMISSION_TIME / 20).await;
    }
    true
}

#[tokio::test]
async fn requests_that_are_refused_do_not_keep_a_connection_open() {
    let world = world().await;
    let refused = async |channel, hello| match Stream::on(channel, hello).await {
        Ok(stream) => stream.end().await.code(),
        Err(status) => status.code(),
    };
    let unknown = async |channel| {
        let request = HealthCheckRequest { service: String::new() };
        HealthClient::new(channel).check(request).await.unwrap_err().code()
    };
    *world.platform.refuses.lock().unwrap() = Some(Code::PermissionDenied);
    let waiting = || Hello { instance_key: KEY.to_vec().into(), ..Hello::default() };
    let stayed = tokio::join!(
        stays(world.connection().await, async |channel| refused(channel, Hello::default()).await),
        stays(world.connection().await, async |channel| refused(channel, world.hello(KEY)).await),
        stays(world.connection().await, async |channel| refused(channel, waiting()).await),
        stays(world.connection().await, unknown),
    );
    assert_eq!(stayed, (false, false, false, false));
}

#[tokio::test]
async fn the_connection_of_an_accepted_agent_stays() {
    let world = world().await;
    let mut attached =
        Stream::on(world.connection().await, Hello { has_assignment: true, ..world.hello(KEY) })
            .await
            .unwrap();
    assert!(matches!(attached.next().await, Ok(Message::Attached(_))));
    let waiting = Hello { instance_key: OTHER_KEY.to_vec().into(), ..Hello::default() };
    let mut waiting = Stream::on(world.connection().await, waiting).await.unwrap();
    assert!(matches!(waiting.next().await, Ok(Message::Wait(_))));
    tokio::time::sleep(ADMISSION_TIME * 2).await;
    // Each gets an answer.
    attached.say(attach_request::Message::Commit(CommitRequest::default())).await;
    assert!(matches!(attached.next().await, Ok(Message::Grant(_) | Message::Refusal(_))));
    waiting.say(attach_request::Message::Commit(CommitRequest::default())).await;
    assert_eq!(waiting.end().await.code(), Code::InvalidArgument);
}
