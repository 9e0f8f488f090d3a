//! Connection to a server: one stream at a time, and a new one after every failure, until the agent ends.
//!
//! `session` is one stream from Hello to its end, `backoff` the pauses between streams, `run_folder` checks whether a
//! server can still find the attempt.

mod backoff;
mod run_folder;
mod session;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlflow_agent_files::Seal;
use sqlflow_proto::agent::executor_identity::Identity;
use sqlflow_proto::agent::{AttemptRef, KubernetesPod, LocalProcess};
use tokio::sync::mpsc;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::control_plane::Incoming;
use crate::output::link::Link;
use crate::supervisor::{AttachEvent, Event};
use backoff::Backoff;
use run_folder::RunFolder;
use session::SessionEnd;

/// Time without a message of the server after which a PING is sent. A server answers every second heartbeat, which
/// costs it less than a PING, so this is rare.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Timeout for the response to a PING. Together with the above it is less than the lease of a server: an agent attaches
/// to another server before its silence is reported.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for the response to the Hello. The server may ask its platform twice, with 10 s each, and closes a
/// connection without an accepted Hello after 30 s.
const HELLO_TIMEOUT: Duration = Duration::from_secs(25);

/// Credentials for the connection. The files are read for every connection, since both are renewed.
#[derive(Debug, Default)]
pub struct Credentials {
    /// A Pod's token. Without it, the peer credentials of the Unix socket identify the agent.
    pub token: Option<PathBuf>,
    /// Certificates (PEM) of the authorities for the server's certificate.
    pub ca: Option<PathBuf>,
}

impl Credentials {
    fn identity(&self) -> io::Result<Identity> {
        let Some(file) = &self.token else { return Ok(Identity::Local(LocalProcess {})) };
        let token = read(file)?.trim().to_owned();
        Ok(Identity::Kubernetes(KubernetesPod { token }))
    }

    /// Adds TLS for an https address.
    fn secured(&self, endpoint: &Endpoint) -> io::Result<Endpoint> {
        if endpoint.uri().scheme_str() != Some("https") {
            return Ok(endpoint.clone());
        }
        let ca = self.ca.as_ref().ok_or_else(|| io::Error::other("a server over https:// needs --ca"))?;
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
        endpoint.clone().tls_config(tls).map_err(io::Error::other)
    }
}

fn read(file: &Path) -> io::Result<String> {
    std::fs::read_to_string(file)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {}: {error}", file.display())))
}

/// Control plane with a server.
#[derive(Debug)]
pub struct RemoteControlPlane {
    /// The server.
    pub endpoint: Endpoint,
    credentials: Credentials,
    /// Run folder, in which a server finds the agent's artifacts. Without it no server can adopt the attempt.
    run_dir: RunFolder,
    /// The attempt; `None`: not assigned yet.
    pub attempt: Option<AttemptRef>,
    /// Instance key. In memory only.
    instance_key: [u8; 16],
    /// The assignment has arrived.
    has_assignment: bool,
    /// The server of this stream has no attempt for this agent yet.
    is_waiting_for_attempt: bool,
    /// The outcome was sent on a stream.
    outcome_sent: bool,
}

impl RemoteControlPlane {
    /// With a new instance key.
    pub fn new(
        endpoint: Endpoint,
        credentials: Credentials,
        run_dir: PathBuf,
        attempt: Option<AttemptRef>,
    ) -> Self {
        Self {
            endpoint: endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(KEEPALIVE)
                .keep_alive_timeout(KEEPALIVE_TIMEOUT)
                .keep_alive_while_idle(true),
            credentials,
            run_dir: RunFolder::new(run_dir),
            attempt,
            instance_key: rand::random(),
            has_assignment: false,
            is_waiting_for_attempt: false,
            outcome_sent: false,
        }
    }

    /// The seal of this agent's files.
    #[must_use]
    pub fn seal(&self) -> Seal {
        Seal::of_instance(&self.instance_key)
    }

    /// Attaches with retries. Ends only if the server refuses for good, or the run folder is gone.
    ///
    /// `link` is shared with reader and supervisor; the server's messages go to `incoming`.
    pub(crate) async fn run(mut self, link: Arc<Link>, incoming: mpsc::UnboundedSender<Incoming>) {
        let mut backoff = Backoff::default();
        loop {
            let end = self.session(&link, &incoming, &mut backoff).await;
            link.set_attached(false);
            if std::mem::take(&mut self.is_waiting_for_attempt) {
                let _ = incoming.send(Incoming::Event(Event::Attach(AttachEvent::WaitInterrupted)));
            }
            match end {
                SessionEnd::Cut(_) if self.run_dir.is_gone().await => {
                    let why = "the run folder is gone, so no server can find this attempt any more";
                    self.give_up(&incoming, why.to_owned());
                    return;
                }
                SessionEnd::Cut(why) => {
                    let pause = backoff.pause();
                    tracing::info!(%why, pause_ms = pause.as_millis(), "not attached; retrying");
                    tokio::time::sleep(pause).await;
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
