//! What was sent on one stream to a server.

use std::time::Instant;

use prost::Message as _;
use sqlflow_proto::agent::attach_request::Message;

use super::window::Window;

/// What was sent on one stream so far.
#[derive(Debug)]
pub struct Sent {
    pub(super) next_seq: u64,
    /// The server's log has lost records up to this one, which the agent has dropped. A gap record stands for them.
    pub(super) lost_until: Option<u64>,
    pub(super) commits: u64,
    pub(super) outcome: bool,
    pub(super) window: Window,
    /// A heartbeat is due.
    pub heartbeat_due: bool,
}

impl Sent {
    /// A new stream to a server that holds everything up to `acked_seq`. Records up to `dropped` were acknowledged
    /// before, and the agent does not have them any more.
    pub fn resume(acked_seq: u64, dropped: u64) -> Self {
        let lost_until = (acked_seq < dropped).then_some(dropped);
        let next_seq = acked_seq + 1;
        Self { next_seq, lost_until, commits: 0, outcome: false, window: Window::new(), heartbeat_due: true }
    }

    /// Whether the outcome was sent on this stream.
    pub fn outcome(&self) -> bool {
        self.outcome
    }

    /// Notes that the last message is sent in this form.
    pub fn sends(&mut self, message: &Message) {
        let bytes = match message {
            Message::Records(batch) => batch.encoded_len(),
            Message::Compressed(batch) => batch.encoded_len(),
            Message::Hello(_) | Message::Heartbeat(_) | Message::Commit(_) | Message::Outcome(_) => return,
        };
        self.window.sent(Instant::now(), self.next_seq - 1, bytes as u64);
    }

    /// The server acknowledged everything up to `seq` on this stream.
    pub fn acked(&mut self, seq: u64) {
        self.window.acked(Instant::now(), seq);
    }
}
