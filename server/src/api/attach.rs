//! `sqlflow.agent.v1.Agent`: the stream of one attempt. The server that holds the stream appends what the agent
//! says under the attempt's number; it needs no lease, and a change of driver does not disturb it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlflow_proto::agent::{
    Assignment, AssignmentChunk, AttachRequest, AttachResponse, Attached, Cancel, CommitGrant, CommitRefusal,
    Hello, OutcomeAck, RecordBatch, agent_server::Agent, attach_request, attach_response,
    attach_response::Message,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

use super::compressed;
use super::executors::{Executors, Peer};
use super::status;
use crate::clock;
use crate::codegen::Assigner;
use crate::convert;
use crate::job::{AttemptId, Event, Failure, InstanceHash, Job, Outcome, Phase, Reason, Rejection, Role};
use crate::launch::Ender;
use crate::log::{Entry, ResultLog};
use crate::metrics::{AttachedAgent, Metrics};
use crate::refusals::{Refusal, Refusals};
use crate::store::{JobRecord, Store, UpdateError};
use crate::trace;

/// An executor has this long to say Hello.
const HELLO_TIME: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Messages read ahead while earlier ones are made durable; each is at most 1 MiB.
const READ_AHEAD: usize = 16;
/// Records made durable with one write.
const APPEND_BYTES: usize = 8 * 1024 * 1024;
const ASSIGNMENT_CHUNK_BYTES: usize = 1024 * 1024;
/// How often the store is asked about changes by other processes.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// The service.
#[derive(Clone)]
pub(super) struct AgentApi {
    pub(super) context: Arc<AttachContext>,
}

pub(super) struct AttachContext {
    pub(super) store: Arc<dyn Store>,
    pub(super) log: Arc<dyn ResultLog>,
    pub(super) executors: Arc<dyn Executors>,
    pub(super) refusals: Refusals,
    pub(super) assigner: Assigner,
    pub(super) grace: Duration,
    pub(super) metrics: Metrics,
    /// The newest stream of each attempt in this process; it ends older ones.
    pub(super) streams: Mutex<HashMap<AttemptId, CancellationToken>>,
    pub(super) shutdown: CancellationToken,
}

type Responses = mpsc::Sender<Result<AttachResponse, Status>>;

#[tonic::async_trait]
impl Agent for AgentApi {
    type AttachStream = ReceiverStream<Result<AttachResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let peer = Peer::of(&request);
        let context = Arc::clone(&self.context);
        let (responses, stream) = mpsc::channel(READ_AHEAD);
        // The headers go back at once: a client's bidirectional call waits for them.
        tokio::spawn(async move {
            if let Err(status) = context.serve(request.into_inner(), peer, &responses).await {
                // The agent may be gone already.
                let _ = responses.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// What a stream speaks for.
struct Session<'a> {
    context: &'a AttachContext,
    attempt: AttemptId,
    instance: InstanceHash,
    responses: &'a Responses,
    cancel_sent: bool,
    is_named: bool,
    agent: AttachedAgent,
}

impl AttachContext {
    async fn serve(
        &self,
        mut requests: Streaming<AttachRequest>,
        peer: Peer,
        responses: &Responses,
    ) -> Result<(), Status> {
        let first = tokio::time::timeout(HELLO_TIME, requests.message());
        let first = first.await.map_err(|_| Status::deadline_exceeded("no Hello came"))??;
        let Some(attach_request::Message::Hello(hello)) = first.and_then(|it| it.message) else {
            return Err(Status::invalid_argument("the first message must be a Hello"));
        };
        let attempt = attempt_of(&hello)?;
        let instance = InstanceHash::of(&hello.instance_key);
        let is_over = self.admit(&hello, &peer, &attempt, &instance).await.inspect_err(|status| {
            let refusal =
                Refusal { why: status.message().to_owned(), may_pass: !status::is_final(status.code()) };
            self.refusals.note(&attempt, refusal);
        })?;

        let replaced = self.shutdown.child_token();
        if let Some(older) = lock(&self.streams).insert(attempt.clone(), replaced.clone()) {
            older.cancel();
        }
        tracing::debug!(%attempt, resumed = hello.has_assignment, "an agent attached");
        let span = tracing::info_span!("attempt", %attempt, trace_id = tracing::field::Empty);
        let mut session = Session {
            context: self,
            attempt,
            instance,
            responses,
            cancel_sent: false,
            is_named: false,
            agent: self.metrics.agent(),
        };
        let served = tokio::select! {
            served = session.run(requests, hello.has_assignment || is_over).instrument(span) => served,
            () = replaced.cancelled() => {
                Err(Status::aborted("a newer stream of this agent took over, or the server is shutting down"))
            }
        };
        let mut streams = lock(&self.streams);
        if !replaced.is_cancelled() {
            streams.remove(&session.attempt);
        }
        served
    }

    /// Takes the agent if it is the attempt's. True: see [`Self::bind`].
    async fn admit(
        &self,
        hello: &Hello,
        peer: &Peer,
        attempt: &AttemptId,
        instance: &InstanceHash,
    ) -> Result<bool, Status> {
        self.executors.verify(hello, peer, attempt).await?;
        self.bind(attempt, instance).await
    }

    /// Binds the agent to the attempt. True: the attempt is over, by this agent's own report, and the agent only
    /// has not heard it yet.
    async fn bind(&self, attempt: &AttemptId, instance: &InstanceHash) -> Result<bool, Status> {
        let event = Event::AgentAttached { attempt: attempt.clone(), instance: instance.clone() };
        let error = match self.store.update(&attempt.job, None, event, clock::now_ms()).await {
            Ok(_) => return Ok(false),
            Err(error) => error,
        };
        if let UpdateError::Rejected(Rejection::AttemptOver | Rejection::JobOver) = &error {
            let record = self.store.load(&attempt.job).await.map_err(status::of_store)?;
            let phase = record.as_ref().and_then(|record| record.job.attempt(attempt)).map(|it| &it.phase);
            if matches!(phase, Some(Phase::Ended { instance: Some(bound), .. }) if bound == instance) {
                return Ok(true);
            }
        }
        Err(status::of_update(error))
    }
}

impl Session<'_> {
    async fn run(&mut self, requests: Streaming<AttachRequest>, has_assignment: bool) -> Result<(), Status> {
        let acked_seq = self.context.log.last_seq(&self.attempt).await.map_err(status::of_log)?;
        let heartbeat_seconds = u32::try_from(HEARTBEAT.as_secs()).unwrap_or(u32::MAX);
        self.send(Message::Attached(Attached { acked_seq, heartbeat_seconds, takes_compressed: true }))
            .await?;
        let mut changes = self.context.store.watch(&self.attempt.job);
        self.pass_cancel_on().await?;
        if !has_assignment && !self.cancel_sent {
            let assignment = self.context.assigner.assignment(&self.attempt).await?;
            self.send_assignment(&assignment).await?;
        }

        let mut requests = read_ahead(requests);
        let mut look = tokio::time::interval(LOOK_PERIOD);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut pending = None;
        loop {
            let request = match pending.take() {
                Some(request) => Some(request),
                None => tokio::select! {
                    request = requests.recv() => request,
                    _ = changes.changed(), if !self.cancel_sent => {
                        self.pass_cancel_on().await?;
                        continue;
                    }
                    _ = look.tick(), if !self.cancel_sent => {
                        self.pass_cancel_on().await?;
                        continue;
                    }
                },
            };
            match request.transpose()?.map(|it| it.message) {
                None => return Ok(()),
                Some(Some(attach_request::Message::Records(batch))) => {
                    let (entries, next) = self.gather(batch, &mut requests);
                    pending = next;
                    self.append(entries).await?;
                }
                Some(Some(attach_request::Message::Commit(_))) => self.commit().await?,
                Some(Some(attach_request::Message::Outcome(outcome))) => self.outcome(&outcome).await?,
                Some(Some(attach_request::Message::Heartbeat(beat))) => self.agent.spool(beat.spool_bytes),
                // Compressed ones were opened as they were read.
                Some(
                    Some(attach_request::Message::Hello(_) | attach_request::Message::Compressed(_)) | None,
                ) => {
                    return Err(Status::invalid_argument("this message does not belong here"));
                }
            }
        }
    }

    /// Adds what has arrived meanwhile to the batch, so that one sync serves it all.
    fn gather(&self, batch: RecordBatch, requests: &mut Requests) -> (Vec<Entry>, Option<Incoming>) {
        let mut bytes = prost::Message::encoded_len(&batch);
        let mut entries = self.entries(batch);
        while bytes < APPEND_BYTES {
            match requests.try_recv() {
                Ok(Ok(AttachRequest { message: Some(attach_request::Message::Records(batch)) })) => {
                    bytes += prost::Message::encoded_len(&batch);
                    entries.extend(self.entries(batch));
                }
                Ok(other) => return (entries, Some(other)),
                Err(_) => break,
            }
        }
        (entries, None)
    }

    fn entries(&self, batch: RecordBatch) -> Vec<Entry> {
        let entry = |record| Entry { step: self.attempt.step, attempt: self.attempt.number, record };
        // Number 0 is for records that servers make.
        batch.records.into_iter().filter(|record| record.seq > 0).map(entry).collect()
    }

    async fn append(&self, entries: Vec<Entry>) -> Result<(), Status> {
        let appended = self.context.log.append(&self.attempt.job, entries).await.map_err(status::of_log)?;
        if appended.is_full {
            // Before it is acknowledged: who takes over must not miss it.
            self.update(Event::CancelRequested(Failure::over_limit())).await.map_err(status::of_update)?;
        }
        match appended.last_seqs.get(&(self.attempt.step, self.attempt.number)) {
            Some(&seq) => self.send(Message::Ack(attach_response::Ack { seq })).await,
            // Nothing in the batch was a record.
            None => Ok(()),
        }
    }

    async fn commit(&self) -> Result<(), Status> {
        let event = Event::CommitRequested { attempt: self.attempt.clone(), instance: self.instance.clone() };
        match self.update(event).await {
            Ok(_) => self.send(Message::Grant(CommitGrant {})).await,
            Err(UpdateError::Rejected(rejection)) => {
                self.send(Message::Refusal(CommitRefusal { reason: rejection.to_string() })).await
            }
            Err(error) => Err(status::of_update(error)),
        }
    }

    async fn outcome(&self, outcome: &sqlflow_proto::agent::Outcome) -> Result<(), Status> {
        let durable = self.context.log.last_seq(&self.attempt).await.map_err(status::of_log)?;
        if durable < outcome.last_seq {
            return Err(Status::invalid_argument(format!(
                "the outcome speaks of record {}, but only {durable} have arrived",
                outcome.last_seq
            )));
        }
        let mut converted = convert::outcome(outcome);
        if converted.reason == Reason::Terminated {
            match self.context.executors.who_ended(&self.attempt).await {
                Some(Ender::Cluster(who)) => converted.message = format!("{}: {who}", converted.message),
                Some(Ender::Deadline) => {
                    converted = Outcome::by_server(Reason::Deadline, "it ran longer than its Pod may", false);
                }
                None => {}
            }
        }
        let event = Event::OutcomeReported {
            attempt: self.attempt.clone(),
            instance: self.instance.clone(),
            outcome: converted,
        };
        self.update(event).await.map_err(status::of_update)?;
        self.context.metrics.note_phases(&outcome.phases);
        tracing::info!(reason = ?outcome.reason(), message = outcome.message, "the attempt has ended");
        self.send(Message::OutcomeAck(OutcomeAck {})).await
    }

    async fn pass_cancel_on(&mut self) -> Result<(), Status> {
        let record = self.context.store.load(&self.attempt.job).await.map_err(status::of_store)?;
        let Some(JobRecord { job, .. }) = record else { return Ok(()) };
        if !self.is_named {
            self.is_named = true;
            trace::name_log_lines(&job, self.context.assigner.is_traced());
        }
        // A cancelled job still removes what its attempts left in the user's database.
        if job.attempt(&self.attempt).is_some_and(|it| it.role == Role::CleanUp) {
            return Ok(());
        }
        let Some(failure) = job.cancel else { return Ok(()) };
        self.cancel_sent = true;
        let grace_seconds = u32::try_from(self.context.grace.as_secs()).unwrap_or(u32::MAX);
        self.send(Message::Cancel(Cancel { reason: failure.message, grace_seconds })).await
    }

    async fn send_assignment(&self, assignment: &Assignment) -> Result<(), Status> {
        let mut rest = bytes::Bytes::from(prost::Message::encode_to_vec(assignment));
        loop {
            let data = rest.split_to(rest.len().min(ASSIGNMENT_CHUNK_BYTES));
            let last = rest.is_empty();
            self.send(Message::Assignment(AssignmentChunk { data, last })).await?;
            if last {
                return Ok(());
            }
        }
    }

    async fn update(&self, event: Event) -> Result<Job, UpdateError> {
        let (job, _) = self.context.store.update(&self.attempt.job, None, event, clock::now_ms()).await?;
        Ok(job)
    }

    async fn send(&self, message: Message) -> Result<(), Status> {
        let response = AttachResponse { message: Some(message) };
        self.responses.send(Ok(response)).await.map_err(|_| Status::cancelled("the agent is gone"))
    }
}

type Incoming = Result<AttachRequest, Status>;
type Requests = mpsc::Receiver<Incoming>;

/// Reads from the stream while earlier messages are worked on, within bounds.
fn read_ahead(mut stream: Streaming<AttachRequest>) -> Requests {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    tokio::spawn(async move {
        while let Some(request) = stream.message().await.transpose() {
            let request = request.and_then(compressed::open);
            let failed = request.is_err();
            if sender.send(request).await.is_err() || failed {
                return;
            }
        }
    });
    receiver
}

fn attempt_of(hello: &Hello) -> Result<AttemptId, Status> {
    if hello.instance_key.len() != 16 {
        return Err(Status::invalid_argument("the instance key must have 16 bytes"));
    }
    let Some(attempt) = &hello.attempt else {
        return Err(Status::unimplemented("executors without an attempt are not supported yet"));
    };
    let job = attempt.job_id.parse().map_err(status::of_token)?;
    Ok(AttemptId { job, step: attempt.step, number: attempt.attempt })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
