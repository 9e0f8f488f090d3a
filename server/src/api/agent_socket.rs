//! Unix socket for agents on this machine. One of the servers of a state folder listens at a time. The others stand
//! by; meanwhile they serve clients and reconcile jobs.
//!
//! A standby server probes the listening one periodically, and takes over if there is no answer: that server has
//! ended, is stopped (SIGSTOP), or has no file descriptors left. There is no lock, since a stopped server would keep
//! it. Two servers may take over at the same moment: the later one wins, and the earlier one notices at its next
//! check. A server that lost the socket keeps its streams; any server can serve any agent.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::Stream;
use sqlflow_proto::agent::agent_server::AgentServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::UdsConnectInfo;
use tonic::transport::{self, Server};

use super::agents_server;
use super::attach::AgentApi;
use crate::connections::{self, AdmissionLimit, LimitedConnection, Places};

/// Period of checking for, or trying to get, the socket.
const POLL_PERIOD: Duration = Duration::from_millis(500);
/// Timeout for an answer to a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// First bytes of an HTTP/2 client: the preface, and an empty SETTINGS frame.
const PROBE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// Unix socket that agents attach to.
pub struct AgentSocket {
    path: PathBuf,
}

impl AgentSocket {
    /// The socket at this path.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) async fn serve(
        self,
        service: AgentServer<AgentApi>,
        shutdown: CancellationToken,
    ) -> Result<(), transport::Error> {
        agents_server(Server::builder())
            .layer(connections::admit_by_service::<UdsConnectInfo>())
            .add_service(service)
            .serve_with_incoming_shutdown(self.connections(), shutdown.cancelled_owned())
            .await
    }

    /// Connections of agents, while this server has the socket.
    fn connections(self) -> impl Stream<Item = io::Result<LimitedConnection<UnixStream>>> + Send {
        let standby = Standby { path: self.path, last_logged: String::new() };
        let begin = (AdmissionLimit::of("agents"), Places::of("agents"), standby, None);
        futures::stream::unfold(begin, |(slots, places, mut standby, mut held)| async move {
            loop {
                let listening = match held.take() {
                    Some(listening) => listening,
                    None => standby.take_over().await,
                };
                let accepted = async {
                    let place = places.take().await;
                    (connections::next(&listening.listener, "agents").await, place)
                };
                tokio::select! {
                    (stream, place) = accepted => {
                        let connection = LimitedConnection::of_agent(slots.hold(stream, place));
                        return Some((Ok(connection), (slots, places, standby, Some(listening))));
                    }
                    () = listening.lost(&standby.path) => {
                        tracing::warn!("another server took over the agents' socket; standing by");
                    }
                }
            }
        })
    }
}

/// A server without the socket.
struct Standby {
    path: PathBuf,
    /// Last logged message.
    last_logged: String,
}

/// Result of a probe.
#[derive(Debug, PartialEq, Eq)]
enum ProbeResult {
    /// A server answered.
    Answered,
    /// No server listens.
    NoListener,
    /// A server listens and does not answer.
    Silent,
}

impl Standby {
    /// Waits until no other server serves agents, and takes over the socket.
    async fn take_over(&mut self) -> Listening {
        loop {
            match self.try_take_over().await {
                Ok(Some(listening)) => return listening,
                Ok(None) => self.log("another server has the agents' socket; standing by"),
                Err(error) => self.log(&format!(
                    "cannot listen on the agents' socket {}: {error}; will try again",
                    self.path.display()
                )),
            }
            tokio::time::sleep(POLL_PERIOD).await;
        }
    }

    async fn try_take_over(&self) -> io::Result<Option<Listening>> {
        match probe(&self.path).await? {
            ProbeResult::Answered => return Ok(None),
            ProbeResult::NoListener => {}
            ProbeResult::Silent => tracing::warn!(
                "the server that has the agents' socket did not answer for {} s; taking over",
                PROBE_TIMEOUT.as_secs()
            ),
        }
        Listening::begin(&self.path).map(Some)
    }

    /// Logs this message unless it was the last one.
    fn log(&mut self, text: &str) {
        if self.last_logged != text {
            text.clone_into(&mut self.last_logged);
            tracing::info!("{text}");
        }
    }
}

/// Probes for a server on this socket.
async fn probe(path: &Path) -> io::Result<ProbeResult> {
    let answer = async {
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(PROBE).await?;
        stream.read_u8().await
    };
    match tokio::time::timeout(PROBE_TIMEOUT, answer).await {
        Ok(Ok(_)) => Ok(ProbeResult::Answered),
        Err(_) => Ok(ProbeResult::Silent),
        Ok(Err(error)) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(ProbeResult::NoListener),
            // Its backlog of connections is full.
            io::ErrorKind::WouldBlock => Ok(ProbeResult::Silent),
            _ => Err(error),
        },
    }
}

/// A server that has the socket, or had it a moment ago.
struct Listening {
    listener: UnixListener,
    /// Identity of the socket file at the path.
    file: FileId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Listening {
    /// Replaces the file at this path by a new socket.
    fn begin(path: &Path) -> io::Result<Self> {
        // Bound under another name first, so that the socket appears at its path with its permissions.
        let unready = path.with_extension(format!("{:08x}", rand::random::<u32>()));
        let listener = UnixListener::bind(&unready)?;
        let place = || {
            fs::set_permissions(&unready, fs::Permissions::from_mode(0o600))?;
            let file = FileId::of(&unready)?;
            fs::rename(&unready, path)?;
            Ok(file)
        };
        match place() {
            Ok(file) => Ok(Self { listener, file }),
            Err(error) => {
                let _ = fs::remove_file(&unready);
                Err(error)
            }
        }
    }

    /// Returns when another file is at the path.
    async fn lost(&self, path: &Path) {
        loop {
            tokio::time::sleep(POLL_PERIOD).await;
            match FileId::of(path) {
                Ok(file) if file == self.file => {}
                // The disk may be unavailable.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::StreamExt as _;

    use super::*;

    fn socket() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        (dir, path)
    }

    /// A server that answers every connection, until it is aborted.
    fn serve(path: &Path) -> tokio::task::JoinHandle<()> {
        let connections = AgentSocket::at(path.to_owned()).connections();
        let (_, health) = tonic_health::server::health_reporter();
        tokio::spawn(async move {
            Server::builder().add_service(health).serve_with_incoming(connections).await.unwrap();
        })
    }

    async fn until(path: &Path, state: ProbeResult) {
        while probe(path).await.ok().as_ref() != Some(&state) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn answering_server_keeps_the_socket() {
        let (_dir, path) = socket();
        assert_eq!(probe(&path).await.unwrap(), ProbeResult::NoListener);
        let first = serve(&path);
        until(&path, ProbeResult::Answered).await;
        let file = FileId::of(&path).unwrap();
        let mut standby = Standby { path: path.clone(), last_logged: String::new() };
        assert!(standby.try_take_over().await.unwrap().is_none());
        assert_eq!(FileId::of(&path).unwrap(), file);
        first.abort();
        until(&path, ProbeResult::NoListener).await;
        standby.take_over().await;
        assert_ne!(FileId::of(&path).unwrap(), file);
    }

    /// It listens, so the kernel accepts connections for it, and it never answers.
    #[tokio::test]
    async fn socket_of_a_stopped_server_is_taken_over() {
        let (_dir, path) = socket();
        let stopped = Listening::begin(&path).unwrap();
        let second = serve(&path);
        stopped.lost(&path).await;
        until(&path, ProbeResult::Answered).await;
        let mut first = pin!(AgentSocket::at(path.clone()).connections());
        let waited = tokio::time::timeout(POLL_PERIOD * 3, first.next()).await;
        assert!(waited.is_err(), "it took over from a server that answers");
        second.abort();
    }

    #[tokio::test]
    async fn removed_socket_is_recreated() {
        let (dir, path) = socket();
        let served = serve(&path);
        until(&path, ProbeResult::Answered).await;
        fs::remove_file(&path).unwrap();
        until(&path, ProbeResult::Answered).await;
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no other name is left");
        served.abort();
    }
}
