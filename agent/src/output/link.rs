//! State that the attempt shares with its control plane: unacknowledged records ([`SharedOutbox`]), what the attempt
//! says and asks ([`AttemptState`]), and the state of the connection ([`ConnectionState`]).
//!
//! It is level-triggered: a new connection sends what the server does not have, so nothing depends on which stream
//! carried what.

mod attempt_state;
mod connection_state;
mod shared_outbox;

use std::sync::Arc;

use sqlflow_os::clock::now_micros;
use sqlflow_proto::agent::{AttachRequest, RecordBatch, attach_request::Message};
use sqlflow_proto::record::{Gap, Record, gap, record::Payload};
use tokio::sync::Notify;

use super::stream_progress::Sent;
pub use attempt_state::{AttemptState, Settled};
pub use connection_state::ConnectionState;
pub use shared_outbox::{Acked, Drained, SharedOutbox, Unacked};

/// Shared between the reader, the runner and the control plane. All of them run on one thread, so locks cost nothing.
#[derive(Debug)]
pub struct Link {
    /// Unacknowledged records.
    pub outbox: SharedOutbox,
    /// What the attempt says and asks.
    pub attempt: AttemptState,
    /// State of the connection.
    pub connection: ConnectionState,
    /// There may be something to send. One waiter: the connection.
    changed: Arc<Notify>,
}

impl Link {
    /// With an empty outbox that holds `limit` bytes.
    pub fn new(limit: usize) -> Self {
        let changed = Arc::new(Notify::new());
        Self {
            outbox: SharedOutbox::new(limit, changed.clone()),
            attempt: AttemptState::new(changed.clone()),
            connection: ConnectionState::default(),
            changed,
        }
    }

    /// Begins a stream to a server that holds everything up to `acked_seq`.
    pub fn resume(&self, acked_seq: u64) -> (Sent, Acked) {
        let sent = Sent::resume(acked_seq, self.outbox.acked_seq());
        (sent, self.outbox.ack(acked_seq))
    }

    /// Whether a control plane takes records now.
    pub fn set_attached(&self, attached: bool) {
        self.outbox.set_spills(!attached);
        if attached {
            self.connection.note_attached();
        }
    }

    /// Waits for the next message that this stream should carry. Safe to cancel.
    pub async fn next_message(&self, sent: &mut Sent) -> AttachRequest {
        loop {
            match self.take_message(sent) {
                Some(message) => return AttachRequest { message: Some(message) },
                None => self.changed.notified().await,
            }
        }
    }

    fn take_message(&self, sent: &mut Sent) -> Option<Message> {
        if std::mem::take(&mut sent.heartbeat_due) {
            return Some(Message::Heartbeat(self.attempt.heartbeat(self.outbox.unacked_bytes())));
        }
        if let Some(commit) = self.attempt.commit_after(&mut sent.commits) {
            return Some(Message::Commit(commit));
        }
        if let Some(seq) = sent.lost_until.take() {
            sent.next_seq = seq + 1;
            let gap = Gap { reason: gap::Reason::LogRestored.into(), bytes: None };
            let payload = Some(Payload::Gap(gap));
            let record = Record { seq, time_unix_micros: now_micros(), statement: None, payload };
            return Some(Message::Records(RecordBatch { records: vec![record] }));
        }
        if !sent.window.is_open() {
            return None;
        }
        let records = self.outbox.batch(sent.next_seq, sent.window.batch_bytes());
        if let Some(last) = records.last() {
            sent.next_seq = last.seq + 1;
            return Some(Message::Records(RecordBatch { records }));
        }
        // Directly after the records, so that the server can make both durable at once. It accepts it only with all of
        // them.
        if sent.outcome || sent.next_seq <= self.outbox.last_seq() {
            return None;
        }
        let outcome = self.attempt.outcome()?;
        sent.outcome = true;
        Some(Message::Outcome(outcome))
    }
}

#[cfg(test)]
mod tests;
