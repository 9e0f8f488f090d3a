//! The Unix socket that agents on this machine attach to. Of the servers that share a state folder one listens at a
//! time; the others wait for its place, and serve clients and drive jobs meanwhile.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use nix::fcntl::{Flock, FlockArg};
use sqlflow_proto::agent::agent_server::AgentServer;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::UdsConnectInfo;
use tonic::transport::{self, Server};

use super::attach::AgentApi;
use crate::accept::{self, Prompt};

/// How often a waiting server tries to take the socket.
const RETRY: Duration = Duration::from_millis(250);

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
        let Some((listener, _lock)) = self.take(&shutdown).await else { return Ok(()) };
        let connections = accept::connections(Arc::new(listener), "agents");
        Server::builder()
            .layer(accept::note_requests::<UdsConnectInfo>())
            .add_service(service)
            .serve_with_incoming_shutdown(
                connections.map(|stream| Ok::<_, io::Error>(Prompt::new(stream))),
                shutdown.cancelled_owned(),
            )
            .await
    }

    /// Waits until no other server has the socket. `None`: the server is to stop.
    async fn take(&self, shutdown: &CancellationToken) -> Option<(UnixListener, Flock<fs::File>)> {
        let mut told = false;
        loop {
            match bind(&self.path) {
                Ok(Some(taken)) => return Some(taken),
                Ok(None) if !told => {
                    told = true;
                    tracing::info!("another server has the agents' socket; waiting for its place");
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(path = %self.path.display(), %error, "cannot make the agents' socket, will try again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = shutdown.cancelled() => return None,
            }
        }
    }
}

/// Takes the lock beside the socket, which the kernel gives back however its server ends, then the socket itself.
fn bind(path: &Path) -> io::Result<Option<(UnixListener, Flock<fs::File>)>> {
    let lock_file = fs::OpenOptions::new().create(true).append(true).open(path.with_extension("lock"))?;
    let lock = match Flock::lock(lock_file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, nix::Error::EWOULDBLOCK)) => return Ok(None),
        Err((_, error)) => return Err(error.into()),
    };
    // Bound under another name first: at its own name the socket appears with its permissions, at once.
    let unready = path.with_extension("new");
    match fs::remove_file(&unready) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&unready)?;
    fs::set_permissions(&unready, fs::Permissions::from_mode(0o600))?;
    fs::rename(&unready, path)?;
    Ok(Some((listener, lock)))
}
