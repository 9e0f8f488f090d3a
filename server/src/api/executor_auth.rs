//! Who an executor is, and for which attempt it may speak.

use async_trait::async_trait;
use nix::unistd::Uid;
use sqlflow_proto::agent::{Hello, executor_identity::Identity};
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

use sqlflow_launcher::kubernetes::{KubernetesLauncher, PodIdentity, in_words};
use sqlflow_launcher::{Holder, LocalLauncher, Target, TerminatedBy};

/// What the connection itself shows about who is at its other end.
pub struct Peer {
    credentials: Option<tokio::net::unix::UCred>,
}

impl Peer {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        Self { credentials: request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred) }
    }
}

/// Who an executor has proved to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecutorId {
    /// A process of this machine.
    Process(i32),
    /// A Pod.
    Pod(PodIdentity),
}

/// Tells who an executor is, and whether it is the one that an attempt was given to. An executor need not have an
/// attempt: it may wait for one.
#[async_trait]
pub trait ExecutorAuth: Send + Sync + 'static {
    /// Identifies the sender of a Hello, by its proof and by the connection.
    ///
    /// # Errors
    /// UNAUTHENTICATED: it has no valid proof of identity. PERMISSION_DENIED: it is not an executor of this server.
    /// UNAVAILABLE: the platform could not be reached.
    async fn identify(&self, hello: &Hello, peer: &Peer) -> Result<ExecutorId, Status>;

    /// Checks that the executor may report for the target's attempt.
    ///
    /// # Errors
    /// PERMISSION_DENIED: another one runs it. UNAVAILABLE: the platform could not be reached.
    async fn authorize(&self, executor: &ExecutorId, target: &Target) -> Result<(), Status>;

    /// Who terminated the executor of an attempt, if the platform knows it better than the executor.
    async fn terminated_by(&self, _target: &Target) -> Option<TerminatedBy> {
        None
    }
}

/// Tests put a faulty link between agents and the server, so that the peer is the test. Never set in a released
/// program.
fn is_proxied() -> bool {
    cfg!(debug_assertions) && std::env::var_os("SQLFLOW_TEST_PROXIED_AGENTS").is_some()
}

/// ExecutorAuth that are processes of this machine: the kernel identifies the peer of the socket, and the process that
/// holds the lock of a run folder.
#[async_trait]
impl ExecutorAuth for LocalLauncher {
    async fn identify(&self, hello: &Hello, peer: &Peer) -> Result<ExecutorId, Status> {
        let identity = hello.identity.as_ref().and_then(|it| it.identity.as_ref());
        let (Some(Identity::Local(_)), Some(credentials)) = (identity, &peer.credentials) else {
            return Err(Status::unauthenticated(
                "an executor on this machine attaches through the server's socket",
            ));
        };
        if credentials.uid() != Uid::effective().as_raw() {
            return Err(Status::permission_denied("the executor runs as another user"));
        }
        // The kernel reports 0 for a process that has no id here.
        let pid = credentials.pid().filter(|pid| *pid > 0);
        pid.map(ExecutorId::Process).ok_or_else(unseen)
    }

    async fn authorize(&self, executor: &ExecutorId, target: &Target) -> Result<(), Status> {
        let holder = self
            .holder(&target.executor)
            .map_err(|error| Status::unavailable(format!("cannot read the attempt's lock: {error}")))?;
        match holder {
            Holder::Process(pid) if *executor == ExecutorId::Process(pid) || is_proxied() => Ok(()),
            Holder::Process(_) | Holder::Nobody => {
                Err(Status::permission_denied("this process does not hold the attempt's lock"))
            }
            Holder::Unseen => Err(unseen()),
        }
    }
}

/// ExecutorAuth that are Pods: the apiserver verifies the token.
#[async_trait]
impl ExecutorAuth for KubernetesLauncher {
    async fn identify(&self, hello: &Hello, _: &Peer) -> Result<ExecutorId, Status> {
        let Some(Identity::Kubernetes(pod)) = hello.identity.as_ref().and_then(|it| it.identity.as_ref())
        else {
            return Err(Status::unauthenticated("an executor in a Pod shows its service-account token"));
        };
        let reviewed = self.review(&pod.token).await;
        let Some(identity) = reviewed.map_err(|error| unavailable("whose token it shows", &error))? else {
            return Err(Status::unauthenticated("the token is not valid for this server"));
        };
        Ok(ExecutorId::Pod(identity))
    }

    async fn authorize(&self, executor: &ExecutorId, target: &Target) -> Result<(), Status> {
        let is_its_pod = match executor {
            ExecutorId::Pod(identity) => self.is_pod_of(identity, target).await,
            ExecutorId::Process(_) => Ok(false),
        };
        if !is_its_pod.map_err(|error| unavailable("which Pod it is in", &error))? {
            return Err(Status::permission_denied("this is not the attempt's Pod"));
        }
        Ok(())
    }

    async fn terminated_by(&self, target: &Target) -> Option<TerminatedBy> {
        Self::terminated_by(self, target).await
    }
}

/// Nothing can be verified about such a process, which does not count against it.
fn unseen() -> Status {
    Status::unauthenticated("the executor has no process id here: it runs in another PID namespace")
}

fn unavailable(what: &str, error: &kube::Error) -> Status {
    Status::unavailable(format!("the Kubernetes API does not tell {what}: {}", in_words(error)))
}
