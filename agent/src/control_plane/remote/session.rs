//! One stream, from Hello to its end.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use prost::Message as _;
use sqlflow_proto::agent::agent_client::AgentClient;
use sqlflow_proto::agent::executor_identity::Identity;
use sqlflow_proto::agent::{
    Assignment, AssignmentChunk, AttachRequest, AttachResponse, Attached, ExecutorIdentity, Hello,
    attach_request,
    attach_response::{Ack, Message},
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::backoff::Backoff;
use super::{CONNECT_TIMEOUT, HELLO_TIMEOUT, RemoteControlPlane};
use crate::control_plane::Incoming;
use crate::output::compress::Compressor;
use crate::output::link::{Acked, Link, Settled};
use crate::output::stream_progress::Sent;
use crate::supervisor::{AttachEvent, Event, GrantEvent, ReportEvent};

const PROTOCOL: u32 = 1;
/// Timeout for TCP and TLS together. Longer than that for TCP alone, whose error is more precise.
const HANDSHAKE_TIMEOUT: Duration = CONNECT_TIMEOUT.saturating_add(Duration::from_secs(2));
/// Maximum size of an assignment, all chunks together.
const MAX_ASSIGNMENT: usize = 128 << 20;
/// Maximum size of a message from a server.
const MAX_MESSAGE: usize = 16 << 20;
/// Default heartbeat period.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(5);

/// Heartbeats are aligned to multiples of this on the wall clock, so that a server wakes once for many agents.
const BEAT_GRID: Duration = Duration::from_millis(100);

/// Why a stream ended.
#[derive(Debug)]
pub(super) enum SessionEnd {
    /// Retryable.
    Cut(String),
    /// Not retryable.
    Refused(Status),
}

impl From<Status> for SessionEnd {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied | Code::NotFound | Code::FailedPrecondition => {
                Self::Refused(status)
            }
            // Aborted too: the newer stream that took over belongs to this agent, and may be gone.
            _ => Self::Cut(format!("{} ({})", status.message(), status.code())),
        }
    }
}

/// State of one stream.
struct Stream<'a> {
    link: &'a Link,
    incoming: &'a mpsc::UnboundedSender<Incoming>,
    /// Chunks of the assignment.
    pieces: BytesMut,
    sent: Sent,
    compressor: Compressor,
    backoff: &'a mut Backoff,
}

impl Stream<'_> {
    /// Resets the backoff. Attaching alone does not: a server that accepts the Hello and nothing else must not be
    /// retried without backoff.
    fn progress(&mut self, acked: Acked) {
        match acked {
            Acked::New => self.backoff.reset(),
            Acked::Known => {}
        }
    }
}

impl RemoteControlPlane {
    /// Runs one stream to its end.
    pub(super) async fn session(
        &mut self,
        link: &Link,
        incoming: &mpsc::UnboundedSender<Incoming>,
        backoff: &mut Backoff,
    ) -> SessionEnd {
        match self.try_session(link, incoming, backoff).await {
            Ok(()) => SessionEnd::Cut("the server closed the stream".to_owned()),
            Err(end) => end,
        }
    }

    async fn try_session(
        &mut self,
        link: &Link,
        incoming: &mpsc::UnboundedSender<Incoming>,
        backoff: &mut Backoff,
    ) -> Result<(), SessionEnd> {
        let cut = |error: io::Error| SessionEnd::Cut(error.to_string());
        let endpoint = self.credentials.secured(&self.endpoint).map_err(cut)?;
        let hello = self.hello(self.credentials.identity().map_err(cut)?);
        let channel = connect(&endpoint, HANDSHAKE_TIMEOUT).await?;
        let mut client = AgentClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let (requests, outbound) = mpsc::channel(1);
        requests.try_send(hello).expect("the queue is new and empty");

        let attach = client.attach(ReceiverStream::new(outbound));
        let first = async {
            let mut inbound = attach.await?.into_inner();
            let first = inbound.message().await?;
            Ok::<_, Status>((inbound, first))
        };
        let (mut inbound, first) = tokio::time::timeout(HELLO_TIMEOUT, first)
            .await
            .map_err(|_| SessionEnd::Cut("the server did not answer the Hello".to_owned()))??;
        let first = self.wait_for_attempt(first, &mut inbound, incoming).await?;
        let Some(AttachResponse { message: Some(Message::Attached(attached)) }) = first else {
            return Err(SessionEnd::Cut("the server's first message is not Attached".to_owned()));
        };
        tracing::info!(acked_seq = attached.acked_seq, "attached");
        link.set_attached(true);
        let (sent, acked) = link.resume(attached.acked_seq);
        let heartbeat = match attached.heartbeat_seconds {
            0 => DEFAULT_HEARTBEAT,
            seconds => Duration::from_secs(seconds.into()),
        };
        let compressor = Compressor::new(attached.takes_compressed);
        let mut stream = Stream { link, incoming, pieces: BytesMut::new(), sent, compressor, backoff };
        stream.progress(acked);
        self.exchange(&mut stream, &mut inbound, &requests, heartbeat).await
    }

    /// Skips Wait messages, while the server has no attempt. Returns the message after them.
    async fn wait_for_attempt(
        &mut self,
        mut message: Option<AttachResponse>,
        inbound: &mut Streaming<AttachResponse>,
        incoming: &mpsc::UnboundedSender<Incoming>,
    ) -> Result<Option<AttachResponse>, Status> {
        while matches!(message, Some(AttachResponse { message: Some(Message::Wait(_)) })) {
            tracing::info!("the server has no attempt for this agent yet");
            self.is_waiting_for_attempt = true;
            let _ = incoming.send(Incoming::Event(Event::Attach(AttachEvent::WaitingForAttempt)));
            message = inbound.message().await?;
        }
        Ok(message)
    }

    async fn exchange(
        &mut self,
        stream: &mut Stream<'_>,
        inbound: &mut Streaming<AttachResponse>,
        requests: &mpsc::Sender<AttachRequest>,
        heartbeat: Duration,
    ) -> Result<(), SessionEnd> {
        let link = stream.link;
        // The first heartbeat of a stream is due now.
        let mut beat = tokio::time::interval_at(first_beat(heartbeat), heartbeat);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            // The permit comes first, so that a batch is cut as late as possible.
            let Stream { sent, compressor, .. } = &mut *stream;
            let send_next = async {
                let permit = requests.reserve().await.ok()?;
                let mut request = link.next_message(sent).await;
                // No await from here on: a batch that was taken must be sent.
                request.message = request.message.map(|it| compressor.compress(it, link.outbox.speed()));
                request.message.iter().for_each(|it| sent.sends(it));
                permit.send(request);
                Some(())
            };
            tokio::select! {
                message = inbound.message() => match message? {
                    Some(AttachResponse { message: Some(message) }) => self.receive(message, stream)?,
                    // A message of a later protocol version.
                    Some(AttachResponse { message: None }) => {}
                    None => return Ok(()),
                },
                // `None`: the stream broke, and `inbound` has the error.
                Some(()) = send_next => self.outcome_sent |= stream.sent.outcome(),
                _ = beat.tick() => stream.sent.heartbeat_due = true,
            }
        }
    }

    fn receive(&mut self, message: Message, stream: &mut Stream<'_>) -> Result<(), SessionEnd> {
        let event = match message {
            Message::Attached(Attached { acked_seq: seq, .. }) | Message::Ack(Ack { seq }) => {
                stream.sent.acked(seq);
                stream.progress(stream.link.outbox.ack(seq));
                return Ok(());
            }
            Message::Assignment(chunk) => return self.assign(chunk, stream),
            Message::Wait(_) => return Ok(()),
            Message::Grant(_) => Event::Grant(GrantEvent::Granted),
            Message::Refusal(refusal) => Event::Grant(GrantEvent::CommitRefused(refusal.reason)),
            Message::Cancel(cancel) => Event::Cancel {
                reason: cancel.reason,
                grace: (cancel.grace_seconds > 0).then(|| Duration::from_secs(cancel.grace_seconds.into())),
            },
            Message::OutcomeAck(_) => Event::Report(ReportEvent::OutcomeAcked),
        };
        // A grant counts only for a pending request: two streams may have carried the same one.
        if matches!(event, Event::Grant(_)) && stream.link.attempt.settle_commit() == Settled::NotAsked {
            return Ok(());
        }
        let _ = stream.incoming.send(Incoming::Event(event));
        Ok(())
    }

    fn assign(&mut self, chunk: AssignmentChunk, stream: &mut Stream<'_>) -> Result<(), SessionEnd> {
        let pieces = &mut stream.pieces;
        if self.has_assignment {
            return Ok(());
        }
        if pieces.len() + chunk.data.len() > MAX_ASSIGNMENT {
            return Err(SessionEnd::Cut(format!("the assignment is longer than {MAX_ASSIGNMENT} bytes")));
        }
        pieces.extend_from_slice(&chunk.data);
        if chunk.last {
            let mut assignment = Assignment::decode(std::mem::take(pieces).freeze())
                .map_err(|error| SessionEnd::Cut(format!("cannot decode the assignment: {error}")))?;
            self.take_attempt(&mut assignment)?;
            self.has_assignment = true;
            self.is_waiting_for_attempt = false;
            stream.backoff.reset();
            let _ = stream.incoming.send(Incoming::Assigned(Box::new(assignment)));
        }
        Ok(())
    }

    /// Takes the attempt of the assignment. An agent that was started for one attempt runs no other.
    fn take_attempt(&mut self, assignment: &mut Assignment) -> Result<(), SessionEnd> {
        let refused = |why: &str| Err(SessionEnd::Refused(Status::failed_precondition(why)));
        match (&self.attempt, &assignment.attempt) {
            (Some(own), Some(assigned)) if own != assigned => {
                refused("the assignment is for another attempt than this agent")
            }
            (None, None) => refused("the assignment does not name its attempt"),
            (Some(own), None) => {
                assignment.attempt = Some(own.clone());
                Ok(())
            }
            (_, Some(assigned)) => {
                self.attempt = Some(assigned.clone());
                Ok(())
            }
        }
    }

    fn hello(&self, identity: Identity) -> AttachRequest {
        let hello = Hello {
            protocol: PROTOCOL,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            identity: Some(ExecutorIdentity { identity: Some(identity) }),
            instance_key: self.instance_key.to_vec().into(),
            attempt: self.attempt.clone(),
            has_assignment: self.has_assignment,
            rank: 0,
            supports_companions: true,
            seals_files: true,
        };
        AttachRequest { message: Some(attach_request::Message::Hello(hello)) }
    }
}

/// Time of the second heartbeat of a stream.
fn first_beat(period: Duration) -> Instant {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant::now() + period.saturating_sub(beyond_grid(since_epoch))
}

/// Time since the last multiple of the grid.
fn beyond_grid(since_epoch: Duration) -> Duration {
    let nanos = since_epoch.as_nanos() % BEAT_GRID.as_nanos();
    Duration::from_nanos(u64::try_from(nanos).expect("less than the grid's width"))
}

/// Connects within `timeout`. The endpoint's own timeout covers TCP only, not the TLS handshake.
async fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<Channel, SessionEnd> {
    match tokio::time::timeout(timeout, endpoint.connect()).await {
        Ok(connected) => connected.map_err(|error| SessionEnd::Cut(chain(&error))),
        Err(_) => Err(SessionEnd::Cut(format!("no connection within {} s", timeout.as_secs()))),
    }
}

/// An error with its causes: the message of tonic is only `transport error`.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tonic::transport::ClientTlsConfig;

    use super::*;

    #[tokio::test]
    async fn tls_handshake_has_a_timeout() {
        // The kernel accepts the connection, and no byte is ever sent on it.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("https://{}", silent.local_addr().unwrap());
        let endpoint = Endpoint::from_shared(address).unwrap().tls_config(ClientTlsConfig::new()).unwrap();
        let connecting = connect(&endpoint, Duration::from_millis(50));
        let connected = tokio::time::timeout(Duration::from_secs(30), connecting).await;
        assert!(matches!(connected, Ok(Err(SessionEnd::Cut(_)))), "{connected:?}");
    }

    /// A server that accepts the Hello and nothing else gets longer and longer pauses.
    #[test]
    fn attaching_alone_does_not_reset_the_backoff() {
        let (link, (incoming, _messages)) = (Link::new(1 << 20), mpsc::unbounded_channel());
        let mut backoff = Backoff::default();
        let mut pause_after = |acked| {
            let mut stream = Stream {
                link: &link,
                incoming: &incoming,
                pieces: BytesMut::new(),
                sent: Sent::resume(0, 0),
                compressor: Compressor::new(false),
                backoff: &mut backoff,
            };
            stream.progress(acked);
            backoff.pause().as_millis()
        };
        let pauses = [Acked::Known, Acked::Known, Acked::Known, Acked::New].map(&mut pause_after);
        let ranges = [10..=20, 20..=40, 40..=80, 10..=20];
        assert!(ranges.iter().zip(pauses).all(|(range, pause)| range.contains(&pause)), "{pauses:?}");
    }

    #[test]
    fn heartbeats_are_aligned_to_the_wall_clock() {
        for now in [Duration::ZERO, Duration::from_nanos(1_764_400_000_123_456_789), BEAT_GRID * 7] {
            let first = now + DEFAULT_HEARTBEAT - beyond_grid(now);
            assert_eq!(beyond_grid(first), Duration::ZERO, "{now:?}");
            assert!(first > now + DEFAULT_HEARTBEAT - BEAT_GRID && first <= now + DEFAULT_HEARTBEAT);
        }
    }

    #[test]
    fn only_documented_status_codes_are_final() {
        for code in (0..=16).map(Code::from) {
            let end = SessionEnd::from(Status::new(code, ""));
            let is_final = matches!(
                code,
                Code::Unauthenticated | Code::PermissionDenied | Code::NotFound | Code::FailedPrecondition
            );
            assert_eq!(matches!(end, SessionEnd::Refused(_)), is_final, "{code:?}");
        }
    }
}
