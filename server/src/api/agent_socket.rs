//! The Unix socket that agents on this machine attach to. Of the servers that share a state folder one listens at a
//! time; the others stand by, and serve clients and reconcile jobs meanwhile.
//!
//! A server on standby greets the listening one again and again, and takes its place when no answer comes: that server has
//! ended, is stopped (SIGSTOP), or has no descriptors left. No lock is involved, since a stopped server would keep it. Two
//! servers may take the place at the same moment: the later one has it, and the earlier one finds that out at its next
//! look. A server that has lost the place keeps the streams that it has; any server can serve any agent.

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
use crate::accept::{self, Prompt, Slots};

/// How often a server looks whether it has the place, or may take it.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// A server that does not answer a greeting within this time does not serve agents.
const ANSWER_TIME: Duration = Duration::from_secs(3);
/// What an HTTP/2 client says first: the preface, and an empty SETTINGS frame.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// Where agents attach.
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
            .layer(accept::admit_by_service::<UdsConnectInfo>())
            .add_service(service)
            .serve_with_incoming_shutdown(self.connections(), shutdown.cancelled_owned())
            .await
    }

    /// Agents that connect whenever this server has the place.
    fn connections(self) -> impl Stream<Item = io::Result<Prompt<UnixStream>>> + Send {
        let standby = Standby { path: self.path, told: String::new() };
        let begin = (Slots::of("agents"), standby, None);
        futures::stream::unfold(begin, |(slots, mut standby, mut held)| async move {
            loop {
                let listening = match held.take() {
                    Some(listening) => listening,
                    None => standby.take().await,
                };
                tokio::select! {
                    stream = accept::next(&listening.listener, "agents") => {
                        let connection = Prompt::of_agent(slots.hold(stream));
                        return Some((Ok(connection), (slots, standby, Some(listening))));
                    }
                    () = listening.lost(&standby.path) => {
                        tracing::warn!("another server has taken over the agents' socket; standing by");
                    }
                }
            }
        })
    }
}

/// A server without the place.
struct Standby {
    path: PathBuf,
    /// What was logged last.
    told: String,
}

/// What a greeting came to.
#[derive(Debug, PartialEq, Eq)]
enum Greeted {
    /// A server serves agents there.
    Answered,
    /// Nobody listens.
    Nobody,
    /// Somebody listens and does not answer.
    Silent,
}

impl Standby {
    /// Waits until no other server serves agents, and takes the place.
    async fn take(&mut self) -> Listening {
        loop {
            match self.try_take().await {
                Ok(Some(listening)) => return listening,
                Ok(None) => self.tell("another server has the agents' socket; standing by"),
                Err(error) => self.tell(&format!(
                    "cannot listen on the agents' socket {}: {error}; will try again",
                    self.path.display()
                )),
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    }

    async fn try_take(&self) -> io::Result<Option<Listening>> {
        match greet(&self.path).await? {
            Greeted::Answered => return Ok(None),
            Greeted::Nobody => {}
            Greeted::Silent => tracing::warn!(
                "the server that has the agents' socket did not answer for {} s; taking over",
                ANSWER_TIME.as_secs()
            ),
        }
        Listening::begin(&self.path).map(Some)
    }

    /// Logs this unless it was logged last.
    fn tell(&mut self, text: &str) {
        if self.told != text {
            text.clone_into(&mut self.told);
            tracing::info!("{text}");
        }
    }
}

/// Whether a server serves agents on this socket.
async fn greet(path: &Path) -> io::Result<Greeted> {
    let answer = async {
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(GREETING).await?;
        stream.read_u8().await
    };
    match tokio::time::timeout(ANSWER_TIME, answer).await {
        Ok(Ok(_)) => Ok(Greeted::Answered),
        Err(_) => Ok(Greeted::Silent),
        Ok(Err(error)) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(Greeted::Nobody),
            // Its queue of connections is full.
            io::ErrorKind::WouldBlock => Ok(Greeted::Silent),
            _ => Err(error),
        },
    }
}

/// A server that has the place, or had it a moment ago.
struct Listening {
    listener: UnixListener,
    /// Which file at the socket's path is this listener's.
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
    /// Puts a new socket at this path, whatever is there.
    fn begin(path: &Path) -> io::Result<Self> {
        // Bound under another name first: at its own name the socket appears with its permissions, at once.
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

    /// Returns when the socket at the path is not this one any more.
    async fn lost(&self, path: &Path) {
        loop {
            tokio::time::sleep(LOOK_PERIOD).await;
            match FileId::of(path) {
                Ok(file) if file == self.file => {}
                // It may be a disk that does not answer now.
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

    async fn until(path: &Path, state: Greeted) {
        while greet(path).await.ok().as_ref() != Some(&state) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_server_that_answers_keeps_the_place() {
        let (_dir, path) = socket();
        assert_eq!(greet(&path).await.unwrap(), Greeted::Nobody);
        let first = serve(&path);
        until(&path, Greeted::Answered).await;
        let file = FileId::of(&path).unwrap();
        let mut standby = Standby { path: path.clone(), told: String::new() };
        assert!(standby.try_take().await.unwrap().is_none());
        assert_eq!(FileId::of(&path).unwrap(), file);
        first.abort();
        until(&path, Greeted::Nobody).await;
        standby.take().await;
        assert_ne!(FileId::of(&path).unwrap(), file);
    }

    /// It listens, so connections are taken for it, and never answers.
    #[tokio::test]
    async fn the_place_of_a_server_that_does_not_answer_is_taken_and_it_stands_by() {
        let (_dir, path) = socket();
        let stopped = Listening::begin(&path).unwrap();
        let second = serve(&path);
        stopped.lost(&path).await;
        until(&path, Greeted::Answered).await;
        let mut first = pin!(AgentSocket::at(path.clone()).connections());
        let waited = tokio::time::timeout(LOOK_PERIOD * 3, first.next()).await;
        assert!(waited.is_err(), "it took the place of a server that answers");
        second.abort();
    }

    #[tokio::test]
    async fn a_socket_that_somebody_removed_comes_back() {
        let (dir, path) = socket();
        let served = serve(&path);
        until(&path, Greeted::Answered).await;
        fs::remove_file(&path).unwrap();
        until(&path, Greeted::Answered).await;
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no other name is left");
        served.abort();
    }
}
