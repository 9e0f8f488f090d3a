//! `sqlflow.agent.v1.Agent`: the stream of one attempt. The server that holds the stream appends the agent's records.
//! It needs no lease, and a change of the reconciler has no effect on the stream.
//!
//! This file handles the begin of a stream: which agent may report for which attempt. `session` handles the stream
//! until its end, `absence` the time after it. `agent_status` decides whether the agent may still report (pure).

mod absence;
mod agent_status;
mod session;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlflow_job::{AttemptId, Event, InstanceHash, Job, Rejection};
use sqlflow_job_store::{KnownJob, ServerId, Store, StoreError, UpdateError};
use sqlflow_launcher::Target;
use sqlflow_os::clock;
use sqlflow_proto::agent::{
    AttachRequest, AttachResponse, Hello, Wait, agent_server::Agent, attach_request, attach_response,
};
use sqlflow_proto::record::{Notice, Record, notice, record::Payload};
use sqlflow_result_log::{Entry, Producer, ResultLog};
use sqlflow_sync::lock;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::Instrument as _;

use super::executor_auth::{ExecutorAuth, ExecutorId, Peer};
use super::status;
use crate::agent_liveness::AgentLiveness;
use crate::attach_errors::{AttachError, AttachErrors};
use crate::codegen::Assigner;
use crate::connections::Bounds;
use crate::memory_peaks::MemoryPeaks;
use crate::metrics::Metrics;
use absence::Absence;
use agent_status::AgentStatus;
use session::{Bound, Session};

/// Timeout for an executor's Hello.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// Timeout for the platform to identify an agent that has the instance key anyway. Shorter than the agent's timeout.
const PLATFORM_TIME: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 3 });
/// Maximum number of messages to an agent that are not sent yet; each is at most 1 MiB.
const WAITING_RESPONSES: usize = 16;
/// Maximum number of executors that wait for an attempt at this server; each costs a stream.
pub(super) const MAX_WAITING: usize = 1000;
/// Period of reloading a job without a signal. The store signals every change, so this only covers its faults.
const RELOAD_PERIOD: Duration = Duration::from_secs(300);

/// The service.
#[derive(Clone)]
pub(super) struct AgentApi {
    pub(super) context: Arc<AttachContext>,
}

pub(super) struct AttachContext {
    pub(super) store: Arc<dyn Store>,
    pub(super) log: Arc<dyn ResultLog>,
    pub(super) executors: Arc<dyn ExecutorAuth>,
    pub(super) attach_errors: AttachErrors,
    pub(super) assigner: Assigner,
    pub(super) grace: Duration,
    /// See [`crate::agent_liveness::SILENCE`].
    pub(super) silence: Duration,
    /// Id of this server.
    pub(super) server: ServerId,
    pub(super) memory_peaks: MemoryPeaks,
    pub(super) metrics: Metrics,
    /// The newest stream of each attempt in this process, or the watch for the next one. It ends older ones.
    pub(super) streams: Mutex<HashMap<AttemptId, CancellationToken>>,
    /// Permits for executors that wait for an attempt; see [`MAX_WAITING`].
    pub(super) waiting: Semaphore,
    pub(super) shutdown: CancellationToken,
}

type Responses = mpsc::Sender<Result<AttachResponse, Status>>;
/// Signals changes of a job.
type Changes = watch::Receiver<KnownJob>;

#[tonic::async_trait]
impl Agent for AgentApi {
    type AttachStream = ReceiverStream<Result<AttachResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let peer = Peer::of(&request);
        let bounds = request.extensions().get::<Bounds>().cloned().unwrap_or_default();
        let context = Arc::clone(&self.context);
        let (responses, stream) = mpsc::channel(WAITING_RESPONSES);
        // The headers are sent at once: a client's bidirectional call waits for them.
        tokio::spawn(async move {
            let (served, absence) = context.serve(request.into_inner(), peer, &bounds, &responses).await;
            if let Err(status) = served {
                // The agent may have disconnected already.
                let _ = responses.send(Err(status)).await;
            }
            drop(responses);
            if let Some(absence) = absence {
                absence.watch().await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Result of an agent's Hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    /// It may report for the attempt.
    Bound,
    /// Its outcome is recorded already; only the acknowledgement was lost.
    Reported,
}

/// An admitted agent.
struct Admitted {
    admission: Admission,
    /// The job, read after the admission.
    job: Arc<Job>,
    /// The agent's last durable sequence number, if the log was asked for it.
    last_seq: Option<u64>,
}

impl AttachContext {
    /// Serves one stream. An accepted Hello lifts the bounds on its connection. The returned absence is to be watched
    /// afterwards: the attempt continues, and its agent is not connected here.
    async fn serve(
        self: &Arc<Self>,
        mut requests: Streaming<AttachRequest>,
        peer: Peer,
        bounds: &Bounds,
        responses: &Responses,
    ) -> (Result<(), Status>, Option<Absence>) {
        let (hello, attempt) = match first_message(&mut requests).await {
            Ok(said) => said,
            Err(status) => return (Err(status), None),
        };
        let Some(attempt) = attempt else {
            return (self.keep_waiting(&hello, &peer, bounds, requests, responses).await, None);
        };
        let hash = InstanceHash::of(&hello.instance_key);
        let instance = if hello.seals_files { hash.sealing() } else { hash };
        // From before the job is read, so that the stream misses no change.
        let changes = self.store.watch(&attempt.job);
        let Admitted { admission, job, last_seq } = match self.admit(&hello, &peer, &attempt, &instance).await
        {
            Ok(admitted) => admitted,
            Err(status) => {
                let refusal = AttachError {
                    why: status.message().to_owned(),
                    retryable: !status::is_final(status.code()),
                };
                self.attach_errors.note(&attempt, refusal);
                return (Err(status), None);
            }
        };
        bounds.lift();
        let has_assignment = hello.has_assignment || admission == Admission::Reported;

        let replaced = self.shutdown.child_token();
        let absence = |silence| Absence {
            context: Arc::clone(self),
            attempt: attempt.clone(),
            instance: instance.clone(),
            rank: hello.rank,
            changes: changes.clone(),
            silence,
            replaced: replaced.clone(),
        };
        {
            let mut streams = lock(&self.streams);
            if responses.is_closed() {
                // The agent disconnected before its admission. A newer stream of it continues. Without one its return
                // is awaited here: it counts as attached to this server, so no other server awaits it.
                let gone = Err(Status::cancelled("the agent is gone"));
                if streams.contains_key(&attempt) {
                    return (gone, None);
                }
                streams.insert(attempt.clone(), replaced.clone());
                return (gone, Some(absence(AgentLiveness::begin(self.silence, Instant::now()))));
            }
            if let Some(older) = streams.insert(attempt.clone(), replaced.clone()) {
                older.cancel();
            }
        }
        tracing::debug!(%attempt, resumed = hello.has_assignment, "agent attached");
        let span = tracing::info_span!(
            "attempt",
            %attempt,
            trace_id = tracing::field::Empty,
            span_id = tracing::field::Empty,
            trace_flags = tracing::field::Empty
        );
        let bound = Bound { job, changes: changes.clone(), last_seq };
        let mut session = Session::new(self, attempt.clone(), instance.clone(), hello.rank, responses, bound);
        let served = tokio::select! {
            served = session.run(requests, has_assignment, hello.supports_companions).instrument(span) => served,
            () = replaced.cancelled() => {
                Err(Status::aborted("a newer stream of this agent took over, or the server is shutting down"))
            }
        };
        let silence = session.into_silence();
        (served, Some(absence(silence)))
    }

    /// Admits the attempt's agent. The job is read once before that: an attempt keeps its executor and its instance
    /// key. The store decides whether it may be bound now.
    async fn admit(
        &self,
        hello: &Hello,
        peer: &Peer,
        attempt: &AttemptId,
        instance: &InstanceHash,
    ) -> Result<Admitted, Status> {
        let job = self.load(attempt).await.map_err(status::of_store)?;
        let job = job.as_deref();
        let is_bound = job.is_some_and(|job| agent_status::is_bound(job, attempt, instance));
        let verify = self.verify(hello, peer, attempt, job);
        let verified = if is_bound {
            let late = |_| Err(Status::unavailable("the platform does not answer who it is"));
            tokio::time::timeout(PLATFORM_TIME, verify).await.unwrap_or_else(late)
        } else {
            verify.await
        };
        let is_local = matches!(verified, Ok(ExecutorId::Process(_)));
        if let Err(status) = verified {
            // A token that is invalid, or cannot be verified now, proves nothing against an agent with the instance
            // key, which is the stronger proof. A platform that renewed its keys, was restored, is down or hangs must
            // not end a training. PERMISSION_DENIED means that the platform knows the executor, and it is another
            // one: then the key was stolen.
            let is_open = matches!(status.code(), Code::Unauthenticated | Code::Unavailable);
            if !is_open || !is_bound {
                return Err(status);
            }
            tracing::warn!(%attempt, why = status.message(), "cannot verify an agent's token; it is identified by its instance key");
        }
        // An agent without an assignment has sent nothing since.
        let last_seq = if hello.has_assignment {
            None
        } else {
            Some(self.must_continue_nothing(hello.rank, attempt).await?)
        };
        let admitted = self.bind(attempt, instance, is_local).await?;
        Ok(Admitted { last_seq, ..admitted })
    }

    /// Refuses an agent that starts an attempt with records in the log: it would take an earlier agent's records for
    /// its own acknowledged ones. The state does not know that agent, because it was restored from a backup. Returns
    /// the attempt's last sequence number.
    async fn must_continue_nothing(&self, rank: u32, attempt: &AttemptId) -> Result<u64, Status> {
        let last_seq = self.log.last_seq(attempt, rank).await.map_err(status::of_log)?;
        if last_seq == 0 {
            return Ok(0);
        }
        // After the log: an agent that attached meanwhile may have written these records.
        let job = self.load(attempt).await.map_err(status::of_store)?;
        if !job.is_some_and(|job| agent_status::awaits_agent(&job, attempt)) {
            // Binding it reports its error, if it has one.
            return Ok(last_seq);
        }
        Err(Status::failed_precondition(format!(
            "cannot begin the attempt: the log has {last_seq} records of it from an earlier agent; the server's state is \
             older than its logs, as after a backup was restored"
        )))
    }

    /// Checks that this executor runs the attempt.
    async fn verify(
        &self,
        hello: &Hello,
        peer: &Peer,
        attempt: &AttemptId,
        job: Option<&Job>,
    ) -> Result<ExecutorId, Status> {
        let executor = self.executors.identify(hello, peer).await?;
        let job = job.ok_or_else(|| Status::not_found("there is no such job"))?;
        self.executors.authorize(&executor, &Target::of(job, attempt)).await?;
        Ok(executor)
    }

    /// Keeps an executor that has no attempt, until it disconnects or this server ends. Such executors get no
    /// assignments yet.
    async fn keep_waiting(
        &self,
        hello: &Hello,
        peer: &Peer,
        bounds: &Bounds,
        mut requests: Streaming<AttachRequest>,
        responses: &Responses,
    ) -> Result<(), Status> {
        let executor = self.executors.identify(hello, peer).await?;
        let _place = self.waiting.try_acquire().map_err(|_| {
            Status::resource_exhausted(format!(
                "{MAX_WAITING} executors wait for an attempt already; try again later"
            ))
        })?;
        bounds.lift();
        tracing::debug!(?executor, "executor waits for an attempt");
        let wait = AttachResponse { message: Some(attach_response::Message::Wait(Wait {})) };
        responses.send(Ok(wait)).await.map_err(|_| Status::cancelled("the executor is gone"))?;
        loop {
            let request = tokio::select! {
                request = requests.message() => request?,
                () = self.shutdown.cancelled() => return Err(Status::aborted("the server is shutting down")),
            };
            match request.map(|it| it.message) {
                None => return Ok(()),
                Some(Some(attach_request::Message::Heartbeat(_))) => {}
                Some(_) => {
                    return Err(Status::invalid_argument(
                        "an executor without an attempt has nothing to say",
                    ));
                }
            }
        }
    }

    /// Loads the attempt's job from the store.
    async fn load(&self, attempt: &AttemptId) -> Result<Option<Arc<Job>>, StoreError> {
        Ok(self.store.load(&attempt.job).await?.map(|record| Arc::new(record.job)))
    }

    /// Binds the agent to the attempt.
    async fn bind(
        &self,
        attempt: &AttemptId,
        instance: &InstanceHash,
        is_local: bool,
    ) -> Result<Admitted, Status> {
        let event = Event::AgentAttached {
            attempt: attempt.clone(),
            instance: instance.clone(),
            server: self.server.0.clone(),
            is_local,
        };
        let error = match self.store.update(&attempt.job, None, event, clock::now_ms()).await {
            Ok((job, _)) => {
                return Ok(Admitted { admission: Admission::Bound, job: Arc::new(job), last_seq: None });
            }
            Err(error) => error,
        };
        if let UpdateError::Rejected(Rejection::AttemptOver | Rejection::JobOver) = &error
            && let Some(job) = self.load(attempt).await.map_err(status::of_store)?
        {
            match AgentStatus::of(&job, attempt, instance) {
                AgentStatus::Reported => {
                    return Ok(Admitted { admission: Admission::Reported, job, last_seq: None });
                }
                AgentStatus::Fenced(why) => return Err(Status::failed_precondition(why)),
                AgentStatus::Live | AgentStatus::Cancelled(_) => {}
            }
        }
        Err(status::of_update(error))
    }

    /// Writes a notice about an attempt's agent to the job's log.
    async fn append_notice(&self, attempt: &AttemptId, text: String) {
        tracing::warn!(%attempt, "{text}");
        let notice = Notice { kind: notice::Kind::Status.into(), text };
        let record = Record {
            time_unix_micros: clock::now_micros(),
            payload: Some(Payload::Notice(notice)),
            ..Record::default()
        };
        let entry = Entry { producer: Producer::server(attempt.step), record };
        if let Err(error) = self.log.append(&attempt.job, vec![entry]).await {
            tracing::warn!(%attempt, %error, "cannot write a notice about the agent to the job's log");
        }
    }
}

/// The Hello, and the attempt that it names.
async fn first_message(
    requests: &mut Streaming<AttachRequest>,
) -> Result<(Hello, Option<AttemptId>), Status> {
    let first = tokio::time::timeout(HELLO_TIME, requests.message());
    let first = first.await.map_err(|_| Status::deadline_exceeded("no Hello came"))??;
    let Some(attach_request::Message::Hello(hello)) = first.and_then(|it| it.message) else {
        return Err(Status::invalid_argument("the first message must be a Hello"));
    };
    let attempt = attempt_of(&hello)?;
    Ok((hello, attempt))
}

fn attempt_of(hello: &Hello) -> Result<Option<AttemptId>, Status> {
    if hello.instance_key.len() != 16 {
        return Err(Status::invalid_argument("the instance key must have 16 bytes"));
    }
    if hello.rank != 0 {
        return Err(Status::unimplemented(
            "attempts of several agents are not supported yet; the rank must be 0",
        ));
    }
    let Some(attempt) = &hello.attempt else { return Ok(None) };
    let job = attempt.job_id.parse().map_err(status::of_token)?;
    Ok(Some(AttemptId { job, step: attempt.step, number: attempt.attempt }))
}
