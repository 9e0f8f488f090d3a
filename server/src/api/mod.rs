//! gRPC services: `v1` and `published` for clients on a TCP port, `attach` for agents on a Unix socket or with TLS, health and
//! reflection.

mod agent_socket;
mod agent_tls;
mod answer_budget;
mod attach;
mod client_admission;
mod client_listener;
mod compressed;
mod delivery;
mod drain;
mod executor_auth;
mod fetch;
mod published;
mod render;
mod request_budget;
mod request_id;
mod status;
mod submit;
mod v1;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use sqlflow_job::LauncherKind;
use sqlflow_job_store::Store;
use sqlflow_proto::agent::agent_server::AgentServer;
use sqlflow_proto::published::sql_flow_server::SqlFlowServer as PublishedServer;
use sqlflow_proto::v1::sql_flow_server::SqlFlowServer;
use sqlflow_result_log::ResultLog;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tower::util::{MapRequestLayer, MapResponseLayer};

use crate::access::{Access, AccessLayer, PROBES};
use crate::admission::Admission;
use crate::agent_liveness::SILENCE;
use crate::attach_errors::AttachErrors;
use crate::codegen::Assigner;
use crate::connections;
use crate::idle::LastUse;
use crate::memory_peaks::MemoryPeaks;
use crate::metrics::Metrics;
use crate::reconciler::Reconciler;
use crate::web::Links;

pub use agent_socket::AgentSocket;
pub use agent_tls::AgentTls;
pub(crate) use client_listener::peer_of;
pub use client_listener::{ClientListener, ClientSocket};
pub use executor_auth::ExecutorAuth;
pub use submit::SubmitOptions;

/// Dependencies of the services.
pub struct Api {
    /// State of jobs.
    pub store: Arc<dyn Store>,
    /// Output of jobs.
    pub log: Arc<dyn ResultLog>,
    /// Reconciles the jobs that this server accepts.
    pub reconciler: Reconciler,
    /// Verifies the executors of agents.
    pub executors: Arc<dyn ExecutorAuth>,
    /// Why agents could not attach.
    pub attach_errors: AttachErrors,
    /// Peak memory use of attempts, from heartbeats.
    pub memory_peaks: MemoryPeaks,
    /// Makes assignments.
    pub assigner: Assigner,
    /// Metrics of this server.
    pub metrics: Metrics,
    /// Links to jobs' web pages.
    pub links: Links,
    /// How Run treats sessions.
    pub submit: SubmitOptions,
    /// Who may do what.
    pub access: Access,
    /// What one principal may use.
    pub admission: Admission,
    /// When somebody used the server.
    pub last_use: LastUse,
    /// Grace period between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Ends the services.
    pub shutdown: CancellationToken,
}

/// Listener for agents.
pub enum AgentListener {
    /// A Unix socket, for agents on this machine.
    Socket(AgentSocket),
    /// TLS over TCP, for all others.
    Tls(Box<AgentTls>),
}

/// Settings of the agents' service on any listener.
fn agents_server(server: Server) -> Server {
    server
        .max_concurrent_streams(AGENT_STREAMS)
        .max_frame_size(AGENT_FRAME)
        .initial_stream_window_size(AGENT_WINDOW)
        .initial_connection_window_size(AGENT_WINDOW)
}

impl AgentListener {
    async fn serve(
        self,
        service: AgentServer<attach::AgentApi>,
        shutdown: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        match self {
            Self::Socket(socket) => socket.serve(service, shutdown).await,
            Self::Tls(tls) => tls.serve(Routes::new(service), shutdown).await,
        }
    }
}

/// Maximum size of a request: a program and little else.
const MAX_REQUEST_BYTES: usize = sqlflow_sql::MAX_PROGRAM_BYTES + 1024 * 1024;
/// Maximum size of a message from an agent: a frame of the submitter has at most 16 MiB, and a batch may hold one.
const MAX_AGENT_MESSAGE_BYTES: usize = 17 * 1024 * 1024;
/// Bytes from an agent that are buffered while earlier ones are synced, so that one sync serves several batches of 1
/// MiB.
const AGENT_WINDOW: u32 = 4 << 20;
/// Maximum size of an HTTP/2 frame from an agent. By default each one of 16 KiB is a piece of work of its own.
const AGENT_FRAME: u32 = 256 << 10;
/// Maximum number of streams of an agent's connection. It uses one, and another connection for the next one.
const AGENT_STREAMS: u32 = 4;
/// Maximum number of streams of a client's connection: a Fetch for each job that a principal may have by default, and
/// some more calls. Most libraries of gRPC use one connection for all calls of a process, and further calls wait.
const CLIENT_STREAMS: u32 = 1_024;
/// Bytes of a client's requests that wait to be read.
const CLIENT_WINDOW: u32 = 256 * 1024;
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Timeout for open calls at shutdown. A Fetch waits a second at most.
const DRAIN_TIME: Duration = Duration::from_millis(2500);
/// Time for the errors of calls that are open even then.
const FLUSH_TIME: Duration = Duration::from_millis(500);

impl Api {
    /// Serves until the shutdown token is cancelled, then drains open calls for a bounded time.
    ///
    /// # Errors
    /// A listener failed.
    pub async fn serve(self, clients: ClientListener, agents: AgentListener) -> anyhow::Result<()> {
        let shutdown = self.shutdown.clone();
        let agent_api = attach::AgentApi {
            context: Arc::new(attach::AttachContext {
                store: Arc::clone(&self.store),
                log: Arc::clone(&self.log),
                executors: self.executors,
                attach_errors: self.attach_errors,
                assigner: self.assigner,
                grace: self.grace,
                silence: SILENCE,
                server: self.reconciler.server().clone(),
                memory_peaks: self.memory_peaks,
                metrics: self.metrics.clone(),
                streams: Mutex::new(HashMap::new()),
                waiting: Semaphore::new(attach::MAX_WAITING),
                shutdown: shutdown.clone(),
            }),
        };
        let agent_service = AgentServer::new(agent_api)
            .max_decoding_message_size(MAX_AGENT_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_AGENT_MESSAGE_BYTES);
        let agents = agents.serve(agent_service, shutdown.clone());

        let is_local = self.reconciler.first_launcher_id().kind == LauncherKind::Local;
        let answers = answer_budget::AnswerBudget::default();
        let token_api = Arc::new(v1::TokenApi {
            fetcher: fetch::Fetcher::new(Arc::clone(&self.store), Arc::clone(&self.log), answers.clone()),
            answers,
            submitter: submit::Submitter::new(
                Arc::clone(&self.store),
                Arc::clone(&self.log),
                self.reconciler,
                self.links.clone(),
                self.submit,
                self.admission.clone(),
            ),
            store: self.store,
            log: self.log,
            metrics: self.metrics,
            links: self.links,
            access: self.access.clone(),
        });
        let published_api = published::PublishedApi {
            api: Arc::clone(&token_api),
            admission: self.admission.clone(),
            is_local,
            shutdown: shutdown.clone(),
        };
        let token_service = SqlFlowServer::from_arc(token_api)
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(usize::MAX);
        let published_service = PublishedServer::new(published_api)
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(usize::MAX);
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<SqlFlowServer<v1::TokenApi>>().await;
        health.set_serving::<PublishedServer<published::PublishedApi>>().await;
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(sqlflow_proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let connections = clients.connections(Arc::clone(&self.access.local_users));
        let peer =
            |extensions: &http::Extensions| Some(extensions.get::<Arc<delivery::Connection>>()?.peer());
        let last_use = self.last_use;
        let note_use = move |request: http::Request<Body>| {
            if !request.uri().path().starts_with(PROBES) {
                last_use.note();
            }
            request
        };
        let drained = CancellationToken::new();
        let clients = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .max_concurrent_streams(CLIENT_STREAMS)
            .initial_stream_window_size(CLIENT_WINDOW)
            .initial_connection_window_size(CLIENT_WINDOW)
            .layer(drain::DrainLayer(drained.clone()))
            .layer(MapResponseLayer::new(status::of_wrong_requests))
            .layer(request_budget::layer())
            .layer(MapResponseLayer::new(answer_budget::held))
            .layer(MapResponseLayer::new(delivery::watched))
            .layer(connections::admit_by_service::<Arc<delivery::Connection>>())
            .layer(AccessLayer::new(self.access.clone(), peer))
            .layer(MapRequestLayer::new(note_use))
            .layer(client_admission::ClientAdmissionLayer(self.admission))
            .add_service(token_service)
            .add_service(published_service)
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            // Python's reflection client knows only this version.
            .add_service(reflection().build_v1alpha()?)
            .serve_with_incoming_shutdown(connections, shutdown.clone().cancelled_owned());

        let serving = async { tokio::try_join!(clients, agents) };
        let overdue = async {
            shutdown.cancelled().await;
            health.set_service_status("", ServingStatus::NotServing).await;
            health.set_not_serving::<SqlFlowServer<v1::TokenApi>>().await;
            health.set_not_serving::<PublishedServer<published::PublishedApi>>().await;
            tokio::time::sleep(DRAIN_TIME).await;
            drained.cancel();
            tokio::time::sleep(FLUSH_TIME).await;
        };
        tokio::select! {
            served = serving => served.map(|_| ()).context("a listener failed"),
            () = overdue => {
                tracing::info!("shutdown timeout: some calls were still open");
                Ok(())
            }
        }
    }
}
