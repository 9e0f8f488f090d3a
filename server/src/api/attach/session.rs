//! One stream, from the agent's Hello to its end.

mod outcome;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use sqlflow_job::{AttemptId, Change, Event, Failure, InstanceHash, Job, StatementEnds};
use sqlflow_job_store::{StoreError, UpdateError, known_job};
use sqlflow_os::clock;
use sqlflow_proto::agent::{
    Assignment, AssignmentChunk, AttachRequest, AttachResponse, Attached, Cancel, CommitGrant, CommitRefusal,
    RecordBatch, attach_request, attach_response, attach_response::Message,
};
use sqlflow_proto::decoded_size;
use sqlflow_result_log::{Entry, Producer, note_ends};
use tonic::{Status, Streaming};
use tracing::Span;

use super::agent_status::AgentStatus;
use super::{AttachContext, Changes, RELOAD_PERIOD, Responses};
use crate::agent_liveness::{AgentLiveness, Backlog, HEARTBEAT, LivenessChange};
use crate::agent_records::{self, ModelRight};
use crate::api::{compressed, status};
use crate::metrics::AttachedAgent;
use crate::model_rights::{self, Publication};
use crate::trace;

/// Maximum number of records in one write.
const APPEND_BYTES: usize = 8 * 1024 * 1024;
/// Memory of decoded records from which on no more are added: those of one message take at most 64 MiB.
const APPEND_MEMORY: usize = 32 * 1024 * 1024;
/// A smaller batch waits for more records, so that one sync serves them all: a short program sends its few records
/// within milliseconds.
const FEW_BYTES: usize = 64 * 1024;
/// Maximum time that a batch waits, and that readers see it later. The first batch waits for the end of a short
/// program.
const GATHER_TIME: Duration = Duration::from_millis(5);
const FIRST_GATHER_TIME: Duration = Duration::from_millis(50);
const ASSIGNMENT_CHUNK_BYTES: usize = 1024 * 1024;

/// The job of an admitted agent.
pub(super) struct Bound {
    /// The job at its admission.
    pub(super) job: Arc<Job>,
    /// Signals changes since then, and possibly earlier ones.
    pub(super) changes: Changes,
    /// The agent's last durable sequence number, if known.
    pub(super) last_seq: Option<u64>,
}

/// State of a stream.
pub(super) struct Session<'a> {
    context: &'a AttachContext,
    attempt: AttemptId,
    instance: InstanceHash,
    producer: Producer,
    responses: &'a Responses,
    /// The job as it was read last.
    job: Arc<Job>,
    changes: Changes,
    cancel_sent: bool,
    /// No statement of the step waits until its start is durable.
    is_repeatable: bool,
    is_named: bool,
    agent: AttachedAgent,
    /// The agent's last durable record, once known.
    acked_seq: u64,
    is_acked_known: bool,
    /// The statements whose ends are in the log.
    ends: StatementEnds,
    /// Whether its records of models are believed. A grant stands, so a right is never lost.
    model_right: ModelRight,
    /// Time of the last message to the agent.
    told: Instant,
    silence: AgentLiveness,
    backlog: Backlog,
    /// The agent is not attached here according to the store: it is attached to another server, or the job's
    /// reconciler reported that no server hears it. A message on this stream changes that: another server may have
    /// read older messages of the agent.
    is_elsewhere: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        context: &'a AttachContext,
        attempt: AttemptId,
        instance: InstanceHash,
        rank: u32,
        responses: &'a Responses,
        Bound { job, changes, last_seq }: Bound,
    ) -> Self {
        Self {
            context,
            producer: Producer::agent(&attempt, rank),
            attempt,
            instance,
            responses,
            job,
            changes,
            cancel_sent: false,
            is_repeatable: false,
            is_named: false,
            agent: context.metrics.agent(),
            acked_seq: last_seq.unwrap_or(0),
            is_acked_known: last_seq.is_some(),
            ends: StatementEnds::default(),
            model_right: ModelRight::None,
            told: Instant::now(),
            silence: AgentLiveness::begin(context.silence, Instant::now()),
            backlog: Backlog::begin(AgentLiveness::period_of(context.silence), Instant::now()),
            is_elsewhere: false,
        }
    }

    /// Time without a message, after the end of the stream.
    pub(super) fn into_silence(self) -> AgentLiveness {
        self.silence
    }

    pub(super) async fn run(
        &mut self,
        requests: Streaming<AttachRequest>,
        has_assignment: bool,
        supports_companions: bool,
    ) -> Result<(), Status> {
        if !self.is_acked_known {
            let rank = self.producer.rank;
            self.acked_seq = self.context.log.last_seq(&self.attempt, rank).await.map_err(status::of_log)?;
        }
        if self.acked_seq > 0 {
            self.ends = self.context.log.statement_ends(&self.attempt).await.map_err(status::of_log)?;
        }
        let heartbeat_seconds = u32::try_from(HEARTBEAT.as_secs()).unwrap_or(u32::MAX);
        let attached = Attached { acked_seq: self.acked_seq, heartbeat_seconds, takes_compressed: true };
        self.send(Message::Attached(attached)).await?;
        // It was bound a moment ago.
        let mut agent_status = self.look().await?;
        if !has_assignment && !self.cancel_sent {
            let assignment = self.context.assigner.assignment(&self.job, &self.attempt).await?;
            if !assignment.companions.is_empty() && !supports_companions {
                return Err(Status::failed_precondition(
                    "cannot run the attempt: its agent is of an earlier version, without companions; update the image that \
                     has the agent",
                ));
            }
            self.send_assignment(&assignment).await?;
        }

        let mut requests = Requests(requests);
        let mut quiet = clock::every(self.silence.period());
        let mut safety = clock::every(RELOAD_PERIOD);
        let mut pending = None;
        loop {
            let request = match pending.take() {
                Some(request) => request,
                None => tokio::select! {
                    request = requests.next() => request,
                    _ = self.changes.changed() => {
                        let (store, id) = (self.context.store.as_ref(), &self.attempt.job);
                        let job = known_job::current(store, id, &mut self.changes).await;
                        agent_status = self.read(job).await?;
                        continue;
                    }
                    // Covers faults of the change signal.
                    _ = safety.tick() => {
                        let job = self.context.load(&self.attempt).await;
                        agent_status = self.read(job).await?;
                        continue;
                    }
                    _ = quiet.tick() => match requests.arrived() {
                        // It was sent while this server was busy.
                        Some(request) => request,
                        None => {
                            self.backlog.is_read(Instant::now());
                            self.notice_silence(&agent_status).await;
                            continue;
                        }
                    },
                },
            };
            quiet.reset();
            // The end of the stream is not a message of the agent.
            let Some(request) = request.transpose()? else { return Ok(()) };
            self.heard().await?;
            match request.message {
                Some(attach_request::Message::Records(batch)) => {
                    let entries;
                    (entries, pending) = self.gather(batch, &mut requests).await;
                    if let Some(outcome) = outcome::take(&mut pending) {
                        self.append_and_end(entries, &outcome).await?;
                    } else {
                        self.append(entries).await?;
                    }
                }
                Some(attach_request::Message::Commit(_)) => self.commit().await?,
                Some(attach_request::Message::Outcome(outcome)) => self.outcome(&outcome).await?,
                Some(attach_request::Message::Heartbeat(beat)) => {
                    self.agent.spool(beat.spool_bytes);
                    self.context.memory_peaks.note(&self.attempt, beat.memory_peak_bytes);
                    if self.told.elapsed() >= self.silence.answer_after() {
                        self.send(Message::Ack(attach_response::Ack { seq: self.acked_seq })).await?;
                    }
                }
                // Compressed ones were decompressed when they were read.
                Some(attach_request::Message::Hello(_) | attach_request::Message::Compressed(_)) | None => {
                    return Err(Status::invalid_argument("this message does not belong here"));
                }
            }
        }
    }

    /// The agent sent a message. Messages from the time when this server was stopped do not prove that it is alive
    /// now.
    async fn heard(&mut self) -> Result<(), Status> {
        let now = Instant::now();
        let speaks_now = self.backlog.is_read(now);
        if (speaks_now || !self.silence.is_reported())
            && self.silence.heard(now) == Some(LivenessChange::HeardAgain)
        {
            self.context.append_notice(&self.attempt, "the agent is heard again".to_owned()).await;
        }
        if self.is_elsewhere && speaks_now {
            self.context.bind(&self.attempt, &self.instance, false).await?;
            self.is_elsewhere = false;
        }
        Ok(())
    }

    /// Adds records that have arrived meanwhile to the batch, so that one sync serves them all.
    async fn gather(&self, batch: RecordBatch, requests: &mut Requests) -> (Vec<Entry>, Option<Incoming>) {
        let mut bytes = prost::Message::encoded_len(&batch);
        let mut overhead = decoded_size::overhead(&batch);
        let mut entries = self.entries(batch);
        let time = if self.acked_seq == 0 { FIRST_GATHER_TIME } else { GATHER_TIME };
        let until = tokio::time::Instant::now() + time;
        while bytes < APPEND_BYTES && bytes + overhead < APPEND_MEMORY {
            let mut next = requests.arrived();
            if next.is_none() && self.is_repeatable && bytes < FEW_BYTES {
                // A submitter that must not repeat its statement waits for the acknowledgement of its start.
                next = tokio::time::timeout_at(until, requests.next()).await.ok();
            }
            match next {
                Some(Some(Ok(AttachRequest { message: Some(attach_request::Message::Records(batch)) }))) => {
                    bytes += prost::Message::encoded_len(&batch);
                    overhead += decoded_size::overhead(&batch);
                    entries.extend(self.entries(batch));
                }
                other => return (entries, other),
            }
        }
        (entries, None)
    }

    fn entries(&self, batch: RecordBatch) -> Vec<Entry> {
        let right = self.model_right;
        let entry =
            |record| Entry { producer: self.producer, record: agent_records::admitted(record, right) };
        // Sequence number 0 is reserved for servers' records.
        batch.records.into_iter().filter(|record| record.seq > 0).map(entry).collect()
    }

    /// The statements whose ends are in the log once these entries are. Those that are acknowledged are not appended again.
    fn ends_with(&self, entries: &[Entry]) -> StatementEnds {
        let mut ends = self.ends;
        for record in entries.iter().map(|it| &it.record).filter(|it| it.seq > self.acked_seq) {
            note_ends(&mut ends, record);
        }
        ends
    }

    async fn append(&mut self, entries: Vec<Entry>) -> Result<(), Status> {
        let ends = self.ends_with(&entries);
        let appended = self.context.log.append(&self.attempt.job, entries).await.map_err(status::of_log)?;
        self.ends = ends;
        if appended.is_full {
            // Before the acknowledgement: a server that takes over must not miss it.
            self.update(Event::CancelRequested(Failure::over_limit())).await.map_err(status::of_update)?;
        }
        match appended.last_seqs.get(&self.producer) {
            Some(&seq) => {
                self.acked_seq = seq;
                self.send(Message::Ack(attach_response::Ack { seq })).await
            }
            // The batch contained no record.
            None => Ok(()),
        }
    }

    async fn commit(&mut self) -> Result<(), Status> {
        let (store, attempt) = (&self.context.store, &self.attempt);
        let spec = self.context.assigner.step_spec(attempt).await?;
        let mut principal = None;
        if let Some(spec) = &spec {
            let publication = model_rights::publication(&**store, &attempt.job, spec).await;
            match publication.map_err(status::of_store)? {
                Publication::Granted(of) => principal = of,
                Publication::Refused(reason) => {
                    return self.send(Message::Refusal(CommitRefusal { reason })).await;
                }
            }
        }
        let event = Event::CommitRequested { attempt: self.attempt.clone(), instance: self.instance.clone() };
        match self.update(event).await {
            Ok((job, change)) => {
                self.model_right = ModelRight::of(&job, &self.attempt);
                // An agent that asks again has one line.
                if change == Change::Changed
                    && let Some(spec) = &spec
                {
                    model_rights::audit(principal.as_deref(), &self.attempt.job, spec);
                }
                self.send(Message::Grant(CommitGrant {})).await
            }
            Err(UpdateError::Rejected(rejection)) => {
                self.send(Message::Refusal(CommitRefusal { reason: rejection.to_string() })).await
            }
            Err(error) => Err(status::of_update(error)),
        }
    }

    /// Checks the job that was read.
    async fn read(&mut self, read: Result<Option<Arc<Job>>, StoreError>) -> Result<AgentStatus, Status> {
        let job = read.map_err(status::of_store)?;
        self.job = job.ok_or_else(|| Status::not_found("there is no such job any more"))?;
        self.look().await
    }

    /// Checks whether the agent may still report, and forwards a cancel. The agent of an attempt that a server ended
    /// is refused permanently, so that it ends its command.
    async fn look(&mut self) -> Result<AgentStatus, Status> {
        let job = Arc::clone(&self.job);
        if !self.is_named {
            self.is_named = true;
            trace::name_log_lines(&Span::current(), &job, self.context.assigner.is_traced());
        }
        self.is_repeatable = job.steps.get(self.attempt.step as usize).is_some_and(|step| step.repeatable);
        if self.model_right == ModelRight::None {
            self.model_right = ModelRight::of(&job, &self.attempt);
        }
        let attached_to = job.attached_to(&self.attempt);
        self.is_elsewhere = attached_to != Some(&self.context.server.0);
        if attached_to.is_none() {
            // The job's reconciler has reported that no server hears the agent, and will report its return.
            self.silence = AgentLiveness::begin(self.context.silence, Instant::now());
        }
        let agent_status = AgentStatus::of(&job, &self.attempt, &self.instance);
        match &agent_status {
            AgentStatus::Fenced(why) => return Err(Status::failed_precondition(why.clone())),
            AgentStatus::Cancelled(failure) if !self.cancel_sent => self.cancel(failure).await?,
            AgentStatus::Live | AgentStatus::Cancelled(_) | AgentStatus::Reported => {}
        }
        Ok(agent_status)
    }

    async fn cancel(&mut self, failure: &Failure) -> Result<(), Status> {
        self.cancel_sent = true;
        let grace_seconds = u32::try_from(self.context.grace.as_secs()).unwrap_or(u32::MAX);
        self.send(Message::Cancel(Cancel { reason: failure.message.clone(), grace_seconds })).await
    }

    /// Nothing was received since the last check.
    async fn notice_silence(&mut self, agent_status: &AgentStatus) {
        let is_awaited = match agent_status {
            AgentStatus::Live | AgentStatus::Cancelled(_) => true,
            AgentStatus::Reported | AgentStatus::Fenced(_) => false,
        };
        // An agent attached elsewhere is heard there, even if this connection has not ended yet.
        if is_awaited
            && !self.is_elsewhere
            && self.silence.check(Instant::now()) == Some(LivenessChange::Silent)
        {
            let allowed = self.silence.allowed().as_secs();
            let memory = self.context.memory_peaks.in_words(&self.attempt);
            self.context
                .append_notice(&self.attempt, format!("no word from the agent for {allowed} s{memory}"))
                .await;
        }
    }

    async fn send_assignment(&mut self, assignment: &Assignment) -> Result<(), Status> {
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

    async fn update(&self, event: Event) -> Result<(Job, Change), UpdateError> {
        self.context.store.update(&self.attempt.job, None, event, clock::now_ms()).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Status> {
        self.told = Instant::now();
        let response = AttachResponse { message: Some(message) };
        self.responses.send(Ok(response)).await.map_err(|_| Status::cancelled("the agent is gone"))
    }
}

/// A message, or `None` at the end of the stream.
type Incoming = Option<Result<AttachRequest, Status>>;

/// Messages of the agent. Those that arrive meanwhile wait in the stream's window.
struct Requests(Streaming<AttachRequest>);

impl Requests {
    /// Waits for the next message. Cancel safe.
    async fn next(&mut self) -> Incoming {
        let request = self.0.message().await.transpose()?;
        Some(request.and_then(compressed::open))
    }

    /// The next message, if it has arrived.
    fn arrived(&mut self) -> Option<Incoming> {
        self.next().now_or_never()
    }
}
