//! The Kubernetes launcher: attempts are Pods. The Pod's name is derived from the executor's, so that launching twice
//! makes one Pod. A finalizer keeps its termination message until a server has stored the outcome.
//!
//! `pod` builds a Pod, and `claim` its volume claim. `observe` reads a Pod, and `termination_message` what its agent
//! left in it. `changes` knows which Pods have changed, `terminating_pods` which are being deleted, `garbage_reports`
//! which were reported because they stay. `mark` tells a server's Pod from another program's of the same name, and `find`
//! uses it. `identity` verifies an agent's token. `rights` checks what the server may do. `owner` is a Pod with which all of
//! this goes. `calls` changes objects; `timeout_client` gives each call a timeout.

mod calls;
mod changes;
mod claim;
mod find;
mod garbage_reports;
mod identity;
mod mark;
mod observe;
mod options;
mod owner;
mod pod;
mod rights;
mod terminating_pods;
mod termination_message;
mod timeout_client;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use changes::Changes;
use futures::StreamExt as _;
use garbage_reports::GarbageReports;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use sha2::{Digest as _, Sha256};
use sqlflow_job::{LauncherId, LauncherKind, Milestones};
use terminating_pods::TerminatingPods;
use timeout_client::{CALL_TIME, bounded};

use super::{
    Cleanup, LaunchError, LaunchRequirements, Launched, Launcher, Observation, PendingReason, PendingStatus,
    Target, TerminatedBy,
};

use calls::{ignore_missing, refusal};
use find::Found;

pub use identity::{CLIENT_AUDIENCE, PodIdentity, TokenReviews, TokenUser};
pub use mark::MarkKey;
pub use options::{AgentCa, KubernetesOptions};
pub use owner::PodOwner;
pub use pod::AUDIENCE;
pub use timeout_client::in_words;

/// Identifies a cluster by its certificate authority. Within Pods the URL is the same in all clusters, and a state
/// folder may be restored beside another cluster. While an authority is replaced, both the old and the new one are in
/// the file. `None`: the cluster has a public authority, or none.
#[must_use]
pub fn authority(cluster: &kube::Config) -> Option<String> {
    let certificates = cluster.root_cert.as_ref().filter(|it| !it.is_empty())?;
    let names = certificates.iter().take(AUTHORITIES).map(|it| hex::encode(&Sha256::digest(it)[..8]));
    Some(names.collect::<Vec<_>>().join(LauncherId::OR))
}

/// Starts and watches Pods.
#[derive(Clone)]
pub struct KubernetesLauncher {
    options: Arc<KubernetesOptions>,
    client: Client,
    pods: Api<Pod>,
    claims: Api<PersistentVolumeClaim>,
    events: Api<Event>,
    /// The Pods as last reported by the watch.
    cache: Store<Pod>,
    changes: Changes,
    terminating: TerminatingPods,
    garbage_reports: GarbageReports,
    /// Whether the API server has said that nothing is missing of [`rights`].
    has_all_rights: Arc<AtomicBool>,
}

/// Timeout of a watch call; the API server ends watches earlier.
const WATCH_TIMEOUT_SECONDS: u32 = 240;

/// Maximum number of certificates of a cluster's authority that are used.
const AUTHORITIES: usize = 8;

/// Number of retries on conflicting changes of a Pod; after them it is left for later.
const CONFLICTS: usize = 5;

/// Number of looks for the party that terminated a Pod: a warning of the kubelet may arrive after the agent's outcome.
const TERMINATION_LOOKS: usize = 5;
/// Pause between them.
const TERMINATION_PAUSE: Duration = Duration::from_millis(200);

impl KubernetesLauncher {
    /// Starts to watch the Pods of the namespace. Must be called in a runtime.
    pub fn new(client: Client, options: KubernetesOptions) -> Self {
        let client = bounded(client, CALL_TIME);
        let pods: Api<Pod> = Api::namespaced(client.clone(), &options.namespace);
        let claims = Api::namespaced(client.clone(), &options.namespace);
        let events = Api::namespaced(client.clone(), &options.namespace);
        let (cache, writer) = reflector::store();
        let changes = Changes::default();
        let config = watcher::Config::default().labels(&ours()).timeout(WATCH_TIMEOUT_SECONDS);
        let stream = reflector::reflector(writer, watcher(pods.clone(), config)).default_backoff();
        let terminating = TerminatingPods::default();
        let (noted, deleted, pods_now) = (changes.clone(), terminating.clone(), cache.clone());
        tokio::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                match event {
                    Ok(watcher::Event::Apply(pod)) => {
                        deleted.is_overdue(&pod, Instant::now());
                        noted.note(&pod.name_any());
                    }
                    Ok(watcher::Event::Delete(pod)) => {
                        deleted.forget(&pod.name_any());
                        noted.note(&pod.name_any());
                    }
                    Ok(watcher::Event::InitDone) => {
                        deleted.note_all(&pods_now.state(), Instant::now());
                        noted.note_all();
                    }
                    Ok(_) => {}
                    // The watcher retries with backoff, and lists again after a 410.
                    Err(error) => tracing::warn!(%error, "the watch of Pods failed, will retry"),
                }
            }
        });
        Self {
            options: Arc::new(options),
            client,
            pods,
            claims,
            events,
            cache,
            changes,
            terminating,
            garbage_reports: GarbageReports::default(),
            has_all_rights: Arc::default(),
        }
    }

    /// Checks whether the API server responds and the launcher has the permissions that it needs; for the start of a
    /// server.
    ///
    /// # Errors
    /// One sentence.
    pub async fn check(&self) -> anyhow::Result<()> {
        let namespace = &self.options.namespace;
        let checked = async {
            let missing = self.missing_rights().await?;
            if missing.is_empty() {
                self.pods.list(&ListParams::default().limit(1)).await?;
            }
            Ok::<_, kube::Error>(missing)
        };
        let missing = checked.await.map_err(|error| {
            anyhow::anyhow!("the Pods of namespace {namespace} cannot be listed: {}", in_words(&error))
        })?;
        anyhow::ensure!(missing.is_empty(), "{}", rights::in_words(&missing, namespace));
        Ok(())
    }

    /// The party that terminated the attempt's Pod, if it did not end by itself.
    pub async fn terminated_by(&self, target: &Target) -> Option<TerminatedBy> {
        for look in 0..TERMINATION_LOOKS {
            if look > 0 {
                tokio::time::sleep(TERMINATION_PAUSE).await;
            }
            // Not from the cache: the agent may be faster than the watch.
            let Found::Own(pod) = self.find_now(target).await.ok()? else { return None };
            let by = match observe::terminated_by(&pod, jiff::Timestamp::now()) {
                None => self.evicted_by(&pod).await,
                by => by,
            };
            if by.is_some() {
                return by;
            }
        }
        None
    }

    /// The cause of the Pod's eviction by the kubelet, if there is a warning of one.
    async fn evicted_by(&self, pod: &Pod) -> Option<TerminatedBy> {
        let uid = pod.uid()?;
        let fields = format!("involvedObject.uid={uid},reason={}", observe::EVICTED);
        let warnings = self.events.list(&ListParams::default().fields(&fields).limit(1)).await.ok()?;
        warnings.items.first().map(observe::evicted_by)
    }

    /// The Pod's warnings, newest last.
    async fn warnings(&self, pod: &Pod) -> Vec<String> {
        let uid = pod.uid().unwrap_or_default();
        let fields = format!("involvedObject.uid={uid},type=Warning");
        let Ok(events) = self.events.list(&ListParams::default().fields(&fields).limit(50)).await else {
            return Vec::new();
        };
        let mut events = events.items;
        events.sort_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0));
        let text = |event: Event| {
            Some(format!(
                "{}: {}",
                event.reason.unwrap_or_default(),
                event.message.filter(|it| !it.is_empty())?
            ))
        };
        events.into_iter().filter_map(text).collect()
    }
}

/// What is recorded of a Pod that was created.
fn launched(pod: &Pod) -> Launched {
    Launched { executor_uid: pod.uid(), ..Launched::default() }
}

/// Deletes this Pod, and no later one of its name.
fn only(pod: &Pod) -> DeleteParams {
    let uid = Preconditions { uid: pod.uid(), resource_version: None };
    DeleteParams { preconditions: Some(uid), ..DeleteParams::default() }
}

/// Label selector for objects that servers like this one made.
fn ours() -> String {
    format!("{}={}", pod::MANAGED_BY, pod::MANAGER)
}

#[async_trait]
impl Launcher for KubernetesLauncher {
    fn kind(&self) -> LauncherKind {
        LauncherKind::Kubernetes
    }

    fn scope(&self) -> Option<String> {
        let KubernetesOptions { cluster, namespace, authority, .. } = &*self.options;
        let authority =
            authority.as_ref().map(|it| format!("{}{it}", LauncherId::AUTHORITY)).unwrap_or_default();
        Some(format!("{cluster}, namespace {namespace}{authority}"))
    }

    async fn launch(
        &self,
        target: &Target,
        requirements: &LaunchRequirements,
    ) -> Result<Launched, LaunchError> {
        if let Some(name) = requirements
            .pod_resources
            .names()
            .find(|name| !self.options.pod_resources.iter().any(|it| it == name))
        {
            let message =
                format!("this server does not let statements set pod.{name} (see --pod-attributes)");
            return Err(LaunchError::Refused { message, retryable: false });
        }
        let missing = self.missing_rights().await;
        let missing = missing.map_err(|error| refusal("the question for the server's rights", error))?;
        if !missing.is_empty() {
            let message = rights::in_words(&missing, &self.options.namespace);
            return Err(LaunchError::Refused { message, retryable: false });
        }
        if requirements.publishes {
            self.create_claim(&target.attempt).await?;
        }
        let pod = pod::pod(&self.options, target, requirements).map_err(|error| LaunchError::Refused {
            message: format!("the Pod template does not make a Pod: {error}"),
            retryable: false,
        })?;
        let error = match self.pods.create(&PostParams::default(), &pod).await {
            Ok(made) => return Ok(launched(&made)),
            Err(error) => error,
        };
        if !matches!(&error, kube::Error::Api(status) if status.code == 409) {
            return Err(refusal("the Pod", error));
        }
        // It exists: from an earlier call, a server that died, or another program.
        let name = pod::name(&target.executor);
        match self.find_now(target).await {
            Ok(Found::Own(found)) => Ok(launched(&found)),
            Ok(Found::Foreign) => Err(LaunchError::Refused {
                message: format!(
                    "cannot create the Pod {name}: another program made a Pod of this name; delete it, and run the job again"
                ),
                retryable: false,
            }),
            Ok(Found::None) => Err(LaunchError::Later(format!("the existing Pod {name} was just removed"))),
            Err(error) => {
                Err(LaunchError::Later(format!("cannot read the existing Pod {name}: {}", in_words(&error))))
            }
        }
    }

    async fn ready(&self) -> Result<(), String> {
        self.check().await.map_err(|error| format!("{error:#}"))
    }

    async fn observe(&self, target: &Target) -> Observation {
        self.changes.begin_look(&pod::name(&target.executor));
        let pod = match self.find(target).await {
            Ok(Found::Own(pod)) => pod,
            Ok(Found::Foreign) => return observe::replaced(&pod::name(&target.executor)),
            Ok(Found::None) => return Observation::Gone(Box::default()),
            Err(error) => {
                let why = in_words(&error);
                return Observation::Unknown(format!("cannot query the Kubernetes API: {why}"));
            }
        };
        let is_overdue = self.terminating.is_overdue(&pod, Instant::now());
        match observe::observe(&pod, &[], is_overdue) {
            Observation::Pending(_) => observe::observe(&pod, &self.warnings(&pod).await, is_overdue),
            other => other,
        }
    }

    fn attach_pending(&self) -> PendingStatus {
        let server = &self.options.server;
        PendingStatus {
            reason: PendingReason::Attach,
            message: format!("the Pod runs, but its agent has not reached the server at {server}"),
            timeout: self.options.attach,
        }
    }

    async fn milestones(&self, target: &Target) -> Milestones {
        // Milestones that the watch has not reported are not worth a call.
        self.cached(target).map(|pod| observe::milestones(&pod)).unwrap_or_default()
    }

    async fn stop(&self, target: &Target, forced: bool) {
        let Target { attempt, executor, .. } = target;
        let deleted = async {
            let Found::Own(pod) = self.find(target).await? else { return Ok(()) };
            let mut delete = only(&pod);
            if forced {
                delete = delete.grace_period(0);
            }
            ignore_missing(self.pods.delete(&pod::name(executor), &delete).await.map(drop))
        };
        if let Err(error) = deleted.await {
            tracing::warn!(%attempt, %error, "the Pod cannot be deleted now");
        }
    }

    async fn cleanup(&self, target: &Target, step_goes_on: bool) -> anyhow::Result<Cleanup> {
        let Target { attempt, executor, .. } = target;
        let name = pod::name(executor);
        self.changes.forget(&name);
        let found = self.find(target).await.with_context(|| format!("cannot look at the Pod {name}"))?;
        let own = match found {
            Found::Own(pod) => Some(pod),
            // It is not the server's to remove.
            Found::Foreign => {
                if self.garbage_reports.is_new(executor) {
                    tracing::warn!(%attempt, pod = name, "another program made this Pod with the name of an attempt's; it stays until somebody deletes it");
                }
                None
            }
            Found::None => None,
        };
        let runs = |pod: &Pod| {
            let is_overdue = self.terminating.is_overdue(pod, Instant::now());
            matches!(observe::observe(pod, &[], is_overdue), Observation::Running)
        };
        if own.as_deref().is_some_and(runs) {
            return Ok(Cleanup::StillRuns);
        }
        // Before the Pod: if this fails, the Pod stays and housekeeping retries.
        if !step_goes_on {
            self.delete_claim(attempt).await.context("cannot remove the claim for the workspace")?;
        }
        let Some(pod) = own else { return Ok(Cleanup::Done) };
        let cleaned = async {
            ignore_missing(self.pods.delete(&name, &only(&pod)).await.map(drop))?;
            self.remove_finalizer(&name).await
        };
        cleaned.await.with_context(|| format!("cannot remove the Pod {name}"))?;
        Ok(Cleanup::Done)
    }

    async fn collect_garbage(&self, target: &Target) -> anyhow::Result<()> {
        let Target { attempt, executor, .. } = target;
        if self.garbage_reports.is_new(executor) {
            let pod = pod::name(executor);
            tracing::warn!(%attempt, pod, "the store knows nothing of this Pod's job; if no other server does, delete it");
        }
        Ok(())
    }

    async fn attempts(&self) -> Vec<Target> {
        let mut found: Vec<_> = self.cache.state().iter().filter_map(|pod| pod::target_of(pod)).collect();
        if self.options.workspace_claim.is_some() {
            // Objects that cannot be listed now are found the next time.
            let claims = self.claims.list(&ListParams::default().labels(&ours())).await;
            let Ok(claims) = claims else { return found };
            found.extend(claims.iter().filter_map(claim::target_of));
        }
        self.garbage_reports.retain(&found);
        found
    }

    async fn changed(&self, target: &Target) {
        self.changes.changed(&pod::name(&target.executor)).await;
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn forbidden(why: &str) -> LaunchError {
        let message = format!("pods \"sqlflow-1\" is forbidden: {why}");
        refusal("the Pod", kube::Error::Api(Box::new(Status::failure(&message, "Forbidden").with_code(403))))
    }

    #[test]
    fn exceeded_quota_is_retryable_and_missing_permission_is_not() {
        for why in ["exceeded quota: q, requested: pods=1", "status unknown for quota: q, resources: pods"] {
            let refusal = forbidden(why);
            assert!(matches!(&refusal, LaunchError::Later(it) if it.contains(why)), "{refusal:?}");
        }
        let refusal = forbidden("User \"u\" cannot create resource \"pods\"");
        assert!(matches!(refusal, LaunchError::Refused { retryable: false, .. }), "{refusal:?}");
    }
}
