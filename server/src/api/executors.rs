//! Who may speak for an attempt.

use async_trait::async_trait;
use nix::unistd::Uid;
use sqlflow_proto::agent::{Hello, executor_identity::Identity};
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

use crate::job::AttemptId;
use crate::launch::kubernetes::{KubernetesLauncher, in_words};
use crate::launch::{Ender, LocalLauncher};

/// What the connection itself shows about who is at its other end.
pub struct Peer {
    credentials: Option<tokio::net::unix::UCred>,
}

impl Peer {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        Self { credentials: request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred) }
    }
}

/// Checks an executor's identity against the attempt that it wants to speak for.
#[async_trait]
pub trait Executors: Send + Sync + 'static {
    /// # Errors
    /// UNAUTHENTICATED: it did not prove who it is. PERMISSION_DENIED: it is not the attempt's executor.
    async fn verify(&self, hello: &Hello, peer: &Peer, attempt: &AttemptId) -> Result<(), Status>;

    /// Who ended the executor of an attempt that was told to end, if the platform knows better than the executor.
    async fn who_ended(&self, _attempt: &AttemptId) -> Option<Ender> {
        None
    }
}

/// Tests put a link that misbehaves between agents and the server, so that the peer is the test. Never in a program that
/// ships.
fn is_proxied() -> bool {
    cfg!(debug_assertions) && std::env::var_os("SQLFLOW_TEST_PROXIED_AGENTS").is_some()
}

/// Executors that are processes of this machine: the kernel says who is at the other end of the socket, and which
/// process holds the attempt's lock.
#[async_trait]
impl Executors for LocalLauncher {
    async fn verify(&self, hello: &Hello, peer: &Peer, attempt: &AttemptId) -> Result<(), Status> {
        let identity = hello.identity.as_ref().and_then(|it| it.identity.as_ref());
        let (Some(Identity::Local(_)), Some(credentials)) = (identity, &peer.credentials) else {
            return Err(Status::unauthenticated(
                "an executor on this machine attaches through the server's socket",
            ));
        };
        if credentials.uid() != Uid::effective().as_raw() {
            return Err(Status::permission_denied("the executor runs as another user"));
        }
        let holder = self
            .agent_pid(attempt)
            .map_err(|error| Status::unavailable(format!("the attempt's lock could not be read: {error}")))?;
        if holder.is_none() || (holder != credentials.pid() && !is_proxied()) {
            return Err(Status::permission_denied("this process does not hold the attempt's lock"));
        }
        Ok(())
    }
}

/// Executors that are Pods: the apiserver says whose token it is.
#[async_trait]
impl Executors for KubernetesLauncher {
    async fn verify(&self, hello: &Hello, _: &Peer, attempt: &AttemptId) -> Result<(), Status> {
        let Some(Identity::Kubernetes(pod)) = hello.identity.as_ref().and_then(|it| it.identity.as_ref())
        else {
            return Err(Status::unauthenticated("an executor in a Pod shows its service-account token"));
        };
        let unavailable = |what: &str, error: &kube::Error| {
            Status::unavailable(format!("the Kubernetes API does not tell {what}: {}", in_words(error)))
        };
        let reviewed = self.review(&pod.token).await;
        let Some(identity) = reviewed.map_err(|error| unavailable("whose token it shows", &error))? else {
            return Err(Status::unauthenticated("the token is not valid for this server"));
        };
        let is_its_pod = self.is_pod_of(&identity, attempt).await;
        if !is_its_pod.map_err(|error| unavailable("which Pod it is in", &error))? {
            return Err(Status::permission_denied("this is not the attempt's Pod"));
        }
        Ok(())
    }

    async fn who_ended(&self, attempt: &AttemptId) -> Option<Ender> {
        Self::who_ended(self, attempt).await
    }
}
