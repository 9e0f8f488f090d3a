//! Assembles the parts of a server, and runs them until shutdown.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sqlflow_job_store::Membership;
use sqlflow_job_store::{SqliteStore, Store};
use sqlflow_launcher::kubernetes::{
    AgentCa, KubernetesLauncher, KubernetesOptions, MarkKey, TokenReviews, authority,
};
use sqlflow_launcher::{
    Launcher, Launchers, LocalLauncher, LocalOptions, Python, missing_data_process, pythons,
};
use sqlflow_os::clock;
use sqlflow_os::run_as::RunAs;
use sqlflow_result_log::{LogOptions, ResultLog, SegmentLog, TieredLog};
use sqlflow_telemetry::Propagation;
use sqlflow_tls::server::ServerTls;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::access::oidc::{Oidc, OidcTokens};
use crate::access::{Access, CertificateReloads, KubernetesTokens, TokenVerifier, Tokens};
use crate::admission::Admission;
use crate::agent_liveness::SILENCE;
use crate::agents_certificate;
use crate::api::{self, AgentListener, Api, ClientListener, ClientSocket, SubmitOptions};
use crate::attach_errors::AttachErrors;
use crate::codegen::{AssignOptions, Assigner};
use crate::config::files::{find_agent, read_yaml};
use crate::config::{LauncherOption, OnExitOption, Options};
use crate::idle::{self, LastUse};
use crate::memory_peaks::MemoryPeaks;
use crate::metrics::{MeasuredLog, MeasuredStore};
use crate::on_exit::CancelOnExit;
use crate::reconciler::{Context, Housekeeping, Limits, Reconciler};
use crate::state_folder;
use crate::telemetry::Telemetry;
use crate::trace::variables_of_agents;
use crate::web::{Checks, JobViews, Links, OidcSignIn, Sessions, Web};

/// Size of a segment of the result log.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// Default of `--attach-timeout` for local processes.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(30);
/// Default of `--attach-timeout` for Pods: sidecars and network policies may delay the first connections.
const POD_ATTACH_TIMEOUT: Duration = Duration::from_secs(120);
/// File of the state folder with the certificate of the agents' port, if the operator gives none.
const AGENTS_CERTIFICATE: &str = "agents.pem";
/// Timeout for closing the state at the end of a server.
const CLOSE_TIME: Duration = Duration::from_millis(500);

/// Runs a server until it is `asked` to end. Jobs continue without it, unless `--on-exit` says otherwise. `open_files` is the
/// soft limit of open files for the programs of local agents; `None`: this process's own.
///
/// # Errors
/// It could not start, or a listener failed.
pub async fn run(
    options: Options,
    open_files: Option<u64>,
    mut telemetry: Telemetry,
    asked: CancellationToken,
) -> anyhow::Result<()> {
    let shutdown = match options.on_exit {
        OnExitOption::Leave => asked.clone(),
        // It serves on until its jobs have ended.
        OnExitOption::Cancel => CancellationToken::new(),
    };
    let variable = |name: &str| std::env::var(name).ok();
    let propagation = Propagation::from_variables(&variable)?;
    sqlflow_telemetry::unsupported(&variable).iter().for_each(|it| tracing::warn!("{it}"));
    let run_as = options.run_as()?;
    let state_dir = state_folder::prepare(&options.state_dir, options.launcher, run_as)?;
    let models = options.models_uri(&state_dir)?;
    options.check_data_source()?;
    options.check_access()?;
    // A file system may be mounted later.
    if let Some(why) = options.missing_data_source() {
        tracing::warn!("{why}; jobs that name no data source of their own fail until then");
    }
    if let Some(doubt) = options.doubtful_data_source() {
        tracing::warn!("{doubt}");
    }
    let (confinement, unconfined) = options.confinement(&state_dir)?;
    if let Some(why) = unconfined {
        tracing::warn!("{why}");
    }
    let reach = options.reach(&state_dir)?;
    let clients = match options.listen {
        Some(address) => Some(listen(&options, "listen", address).await?),
        None => None,
    };
    let oidc = options.access.oidc.open()?;
    let access = access(&options, oidc.clone()).await?;
    let admission = Admission::new(options.access.limits());
    let socket = client_socket(&options)?;
    let clients_tls = options.access.tls("h2")?.map(Arc::new);
    let pages_tls = options.access.tls("http/1.1")?.map(Arc::new);
    let reload = |tls: &Option<Arc<ServerTls>>, who| {
        tls.clone().map(|tls| CertificateReloads::begin(tls, who, shutdown.clone()))
    };
    let _reloads = [reload(&clients_tls, "clients"), reload(&pages_tls, "browsers")];
    let pages = listen(&options, "http-listen", options.http_listen).await?;
    let metrics_listener = match options.access.metrics_listen {
        Some(address) => Some(listen(&options, "metrics-listen", address).await?),
        None => None,
    };
    let (tracer, metrics) = (telemetry.tracer().clone(), telemetry.metrics());

    let keys = options.secret_keys(&state_dir).await?;
    let sqlite = SqliteStore::open_with_keys(&state_dir.join("state.db"), keys).await;
    let sqlite = sqlite.context("cannot open the server's state")?;
    let state = sqlite.clone();
    let store: Arc<dyn Store> = Arc::new(MeasuredStore::new(Arc::new(sqlite), metrics.clone()));
    let segments = SegmentLog::open(LogOptions {
        dir: state_dir.join("log"),
        segment_bytes: SEGMENT_BYTES,
        retain_output_bytes_per_job: options.retain_output,
        max_bytes_per_job: options.max_log,
        opened_micros: clock::now_micros(),
        fsync: true,
    })?;
    let logs = TieredLog::new(Arc::new(state.clone()), segments, options.small_log.min(SEGMENT_BYTES));
    let log: Arc<dyn ResultLog> = Arc::new(MeasuredLog::new(Arc::new(logs), metrics.clone()));
    let scheme = if pages_tls.is_some() { "https" } else { "http" };
    let own_url = || pages.local_addr().map(|address| format!("{scheme}://{address}"));
    let public_url = options.public_url.clone().map_or_else(own_url, Ok)?;
    let links = Links::open(&state_dir.join("links.key"), &public_url, options.access.link_lifetime)
        .context("cannot open the key of the jobs' pages")?;
    let membership = Membership::join(&state_dir.join("servers")).context("cannot announce this server")?;
    let python = match options.launcher {
        LauncherOption::Local => {
            Python::first_of(pythons(options.python.as_deref()), options.passed_variables(), run_as)
        }
        LauncherOption::Kubernetes => Python::unchecked(options.python.as_deref().unwrap_or("python3")),
    };
    let Launching { launcher, executors, agents } = match options.launcher {
        LauncherOption::Local => local(&options, python.clone(), run_as, open_files, &state_dir)?,
        LauncherOption::Kubernetes => {
            kubernetes(&options, &state_dir, MarkKey(links.derive("pods", &[]))).await?
        }
    };
    let assign = AssignOptions {
        python: python.clone(),
        models,
        grace_seconds: u32::try_from(options.grace.as_secs()).unwrap_or(u32::MAX),
        trace_user_code: options.trace_user_code,
        confinement,
        collector: if tracer.is_on() { variables_of_agents() } else { HashMap::new() },
    };
    let data_sources = options.access.data_sources(options.datasource)?;
    let data_sources = match options.launcher {
        LauncherOption::Local => data_sources.on_this_machine(reach),
        LauncherOption::Kubernetes => data_sources.in_pods(reach),
    };
    let assigner = Assigner::new(Arc::clone(&store), assign, data_sources.clone());
    let last_use = LastUse::default();
    let attach_errors = AttachErrors::default();
    let memory_peaks = MemoryPeaks::default();
    let reconciler = Reconciler::new(
        Context {
            store: Arc::clone(&store),
            log: Arc::clone(&log),
            launchers: Launchers::only(Arc::clone(&launcher)),
            assigner: assigner.clone(),
            attach_errors: attach_errors.clone(),
            memory_peaks: memory_peaks.clone(),
            membership,
            limits: Limits {
                lease: options.lease,
                attach: options.attach_timeout.unwrap_or(ATTACH_TIMEOUT),
                grace: options.grace,
                retain_jobs: options.retain_jobs,
                silence: SILENCE,
            },
            tracer,
            metrics: metrics.clone(),
        },
        shutdown.clone(),
    );
    let cancelling = (options.on_exit == OnExitOption::Cancel).then(|| {
        let cancel = CancelOnExit {
            store: Arc::clone(&store),
            launchers: Launchers::only(Arc::clone(&launcher)),
            me: reconciler.server().clone(),
            grace: options.grace,
        };
        tokio::spawn(cancel.run(asked, shutdown.clone()))
    });
    let web = Web {
        store: Arc::clone(&store),
        log: Arc::clone(&log),
        launcher,
        metrics: metrics.clone(),
        sessions: Sessions::new(links.clone(), options.access.session_lifetime),
        links: links.clone(),
        trace_url: options.trace_url.unwrap_or_default(),
        shutdown: shutdown.clone(),
        views: JobViews::default(),
        checks: Checks::default(),
        access: access.clone(),
        admission: admission.clone(),
        last_use: last_use.clone(),
        oidc: oidc
            .clone()
            .zip(options.access.oidc.client()?)
            .map(|(oidc, client)| OidcSignIn::new(oidc, client)),
    };
    let idling = (!options.exit_when_idle.is_zero()).then(|| {
        let store = Arc::clone(&store);
        let ending =
            idle::shut_down_when_idle(options.exit_when_idle, last_use.clone(), store, shutdown.clone());
        tokio::spawn(ending)
    });
    let services = Api {
        assigner,
        store,
        log,
        metrics,
        links,
        reconciler: reconciler.clone(),
        executors,
        attach_errors,
        memory_peaks,
        submit: SubmitOptions {
            propagation,
            model_rights: options.access.model_rights()?,
            image_users: match options.launcher {
                LauncherOption::Local => None,
                LauncherOption::Kubernetes => options.kubernetes.image_users(),
            },
            data_sources,
            fetch_timeout_seconds: u32::try_from(options.fetch_timeout.as_secs()).unwrap_or(u32::MAX),
        },
        grace: options.grace,
        access,
        admission,
        last_use,
        shutdown: shutdown.clone(),
    };
    let address = clients.as_ref().map(TcpListener::local_addr).transpose()?.map(tracing::field::display);
    tracing::info!(listen = address, http = %pages.local_addr()?, state_dir = %state_dir.display(), "the server is ready");
    let clients = ClientListener { tcp: clients, tls: clients_tls, socket };
    // Not awaited: the provider may be away. A failure is logged.
    let fetching = oidc.map(|oidc| tokio::spawn(async move { oidc.keep_fresh().await }));
    // Only launches depend on it.
    let looking = tokio::spawn(python.keep_looking(shutdown.clone()));
    let housekeeping = tokio::spawn(Housekeeping::new(reconciler).run());
    // A failed listener ends the web pages too.
    let served = tokio::try_join!(services.serve(clients, agents), async {
        web.serve(pages, pages_tls, metrics_listener).await;
        Ok(())
    });
    for task in [fetching, idling, cancelling].into_iter().flatten() {
        task.abort();
    }
    looking.abort();
    housekeeping.abort();
    let _ = housekeeping.await;
    telemetry.finish().await;
    // The last server leaves one file: it writes the write-ahead log back.
    let _ = tokio::time::timeout(CLOSE_TIME, state.close()).await;
    served.map(|_| ())
}

/// How attempts are launched, and how their agents attach.
struct Launching {
    launcher: Arc<dyn Launcher>,
    executors: Arc<dyn api::ExecutorAuth>,
    agents: AgentListener,
}

fn local(
    options: &Options,
    python: Python,
    run_as: Option<RunAs>,
    open_files: Option<u64>,
    state_dir: &Path,
) -> anyhow::Result<Launching> {
    let socket = state_dir.join("agent.sock");
    let agent = find_agent(options.agent.clone())?;
    if let Some(why) = missing_data_process(&agent) {
        tracing::warn!("{why}");
    }
    let launcher = LocalLauncher::new(LocalOptions {
        agent,
        python,
        state_dir: state_dir.to_owned(),
        run_dir: state_dir.join("run"),
        cache: state_dir.join("cache"),
        socket: socket.clone(),
        linger: options.linger,
        attach: options.attach_timeout.unwrap_or(ATTACH_TIMEOUT),
        open_files,
        passed_variables: options.passed_variables(),
        run_as,
        max_running: NonZeroUsize::new(options.max_running.unwrap_or_else(cores)),
    });
    let agents = AgentListener::Socket(api::AgentSocket::at(socket));
    Ok(Launching { launcher: Arc::new(launcher.clone()), executors: Arc::new(launcher), agents })
}

/// Listens on the address of this option.
async fn listen(options: &Options, option: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address} (from {})", options.origin(option)))
}

/// Who may do what.
async fn access(options: &Options, oidc: Option<Arc<Oidc>>) -> anyhow::Result<Access> {
    let given = &options.access;
    if given.insecure {
        tracing::warn!("everybody who can connect runs programs with the rights of this server (--insecure)");
    }
    let mut verifiers: Vec<Box<dyn TokenVerifier>> = Vec::new();
    if let Some(file) = given.tokens()? {
        verifiers.push(Box::new(Tokens(file)));
    }
    if let Some(oidc) = oidc {
        let audiences = given.oidc.oidc_audience.clone();
        verifiers.push(Box::new(OidcTokens::new(oidc, audiences, given.kubernetes_tokens)));
    }
    if given.kubernetes_tokens {
        let found = kube::Config::infer()
            .await
            .context("cannot find a Kubernetes cluster for --kubernetes-tokens")?;
        let client = kube::Client::try_from(found).context("cannot use the configuration of the cluster")?;
        verifiers.push(Box::new(KubernetesTokens::new(TokenReviews::new(client))));
    }
    let runs_jobs = options.launcher == LauncherOption::Local;
    Ok(Access::new(given.policy(runs_jobs), verifiers))
}

/// The Unix socket for clients. A server without it serves its port.
///
/// # Errors
/// It cannot listen there, and has no port.
fn client_socket(options: &Options) -> anyhow::Result<Option<ClientSocket>> {
    let Some(path) = options.access.socket() else { return Ok(None) };
    let has_port = options.listen.is_some();
    let failed = || format!("cannot listen on {} (from {})", path.display(), options.origin("socket"));
    match ClientSocket::bind(&path) {
        Ok(Some(socket)) => {
            tracing::info!(socket = %path.display(), "listening for clients of this user");
            return Ok(Some(socket));
        }
        Ok(None) if has_port => {
            tracing::info!(socket = %path.display(), "another server listens on the socket for clients");
        }
        Ok(None) => anyhow::bail!("{}: another server listens there", failed()),
        Err(error) if has_port => {
            tracing::warn!(socket = %path.display(), %error, "cannot listen on the socket for clients");
        }
        Err(error) => return Err(error).with_context(failed),
    }
    Ok(None)
}

/// Default of `--max-running`.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

async fn kubernetes(options: &Options, state_dir: &Path, mark_key: MarkKey) -> anyhow::Result<Launching> {
    let given = &options.kubernetes;
    let missing = |flag: &str| format!("--launcher kubernetes needs {flag}");
    let address = given.agent_address()?;
    let listener = listen(options, "agent-listen", given.agent_listen).await?;
    sqlflow_tls::install_provider();
    let (agents, ca) = match given.agent_cert.as_ref().zip(given.agent_key.as_ref()) {
        Some((certificate, key)) => {
            let agents = api::AgentTls::new(listener, certificate, key)?;
            (agents, AgentCa::ConfigMap(given.agent_ca.clone()))
        }
        None => {
            let file = state_dir.join(AGENTS_CERTIFICATE);
            let certificate = agents_certificate::open(&file, &address.host)
                .with_context(|| format!("cannot use {}", file.display()))?;
            (api::AgentTls::new(listener, &file, &file)?, AgentCa::Certificate(certificate))
        }
    };

    let found = kube::Config::infer().await.context("cannot find a Kubernetes cluster")?;
    let cluster = found.cluster_url.to_string().trim_end_matches('/').to_owned();
    let authority = authority(&found);
    let client = kube::Client::try_from(found).context("cannot use the configuration of the cluster")?;
    let namespace = given.pod_namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    anyhow::ensure!(
        given.pod_owner.is_none() || namespace == client.default_namespace(),
        "cannot run Pods in namespace {namespace} with --pod-owner: the owner must be in the same namespace, and the \
         server's is {}; leave out --pod-owner, or --pod-namespace",
        client.default_namespace()
    );
    let launcher = KubernetesLauncher::new(
        client,
        KubernetesOptions {
            cluster,
            authority,
            namespace,
            server: address.url,
            image: given.pod_image.clone().with_context(|| missing("--pod-image"))?,
            agent_image: given.pod_agent_image.clone(),
            sql_image: given.pod_sql_image.clone(),
            template: given.pod_template.as_deref().map_or_else(|| Ok(serde_json::json!({})), read_yaml)?,
            ca,
            owner: given.pod_owner.clone(),
            // Without the owner no server comes that would remove it.
            finalizer: given.pod_finalizer && given.pod_owner.is_none(),
            workspace_claim: given.workspace_claim.as_deref().map(read_yaml).transpose()?,
            pod_resources: given.pod_attributes.clone(),
            deadline: Some(given.pod_deadline).filter(|it| !it.is_zero()),
            grace: options.grace,
            linger: options.linger,
            attach: options.attach_timeout.unwrap_or(POD_ATTACH_TIMEOUT),
            mark_key,
        },
    );
    let checked = launcher.clone();
    // Not awaited: what the store and the log have can be fetched without a cluster.
    tokio::spawn(async move {
        if let Err(error) = checked.check().await {
            tracing::warn!("{error:#}; no job runs until this is fixed");
        }
    });
    let agents = AgentListener::Tls(Box::new(agents));
    Ok(Launching { launcher: Arc::new(launcher.clone()), executors: Arc::new(launcher), agents })
}
