//! The connection to a server: one stream at a time, and a new one after every cut, for as long as the agent lives.
//!
//! `backoff` says how long to wait between tries, `session` is one stream from Hello to its end.

mod backoff;
mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlflow_proto::agent::AttemptRef;
use tokio::sync::mpsc;
use tonic::transport::Endpoint;

use crate::run::Incoming;
use crate::ship::link::Link;
use crate::supervise::Event;
use backoff::Backoff;
use session::SessionEnd;

/// A server that says nothing for this long, though asked, is gone.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// For the connection, and again for the server's first message.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Who attaches, and to what.
#[derive(Debug)]
pub struct Attach {
    /// The server.
    pub endpoint: Endpoint,
    /// Where a server would find what the agent leaves. Without it none can ever adopt the attempt.
    pub run_dir: PathBuf,
    /// The attempt.
    pub attempt: AttemptRef,
    /// Proves that a later stream comes from the same agent. In memory only.
    instance_key: [u8; 16],
    /// The assignment has arrived.
    has_assignment: bool,
    /// The outcome went out on some stream.
    outcome_sent: bool,
}

impl Attach {
    /// With a new instance key.
    pub fn new(endpoint: Endpoint, run_dir: PathBuf, attempt: AttemptRef) -> Self {
        Self {
            endpoint: endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(KEEPALIVE)
                .keep_alive_timeout(KEEPALIVE)
                .keep_alive_while_idle(true),
            run_dir,
            attempt,
            instance_key: rand::random(),
            has_assignment: false,
            outcome_sent: false,
        }
    }

    /// Attaches again and again; ends only when the server refuses for good, or the run folder is gone.
    ///
    /// `link` is shared with reader and supervisor; the server's messages go to `incoming`.
    pub(crate) async fn run(mut self, link: Arc<Link>, incoming: mpsc::UnboundedSender<Incoming>) {
        let mut backoff = Backoff::default();
        loop {
            let end = self.session(&link, &incoming, &mut backoff).await;
            link.set_attached(false);
            match end {
                SessionEnd::Cut(_) if !self.run_dir.exists() => {
                    let why = "the run folder is gone, so no server can find this attempt any more";
                    self.give_up(&incoming, why.to_owned());
                    return;
                }
                SessionEnd::Cut(why) => {
                    let wait = backoff.next(rand::random_range(0.0..1.0));
                    tracing::info!(%why, wait_ms = wait.as_millis(), "not attached; trying again");
                    tokio::time::sleep(wait).await;
                }
                SessionEnd::Refused(status) => {
                    let why =
                        format!("the server refused this agent: {} ({})", status.message(), status.code());
                    self.give_up(&incoming, why);
                    return;
                }
            }
        }
    }

    fn give_up(&self, incoming: &mpsc::UnboundedSender<Incoming>, reason: String) {
        tracing::error!(reason, outcome_sent = self.outcome_sent, "not attached");
        let _ = incoming.send(Incoming::Event(Event::AttachRefused(reason)));
    }
}
