//! Settings of the launcher.

use std::time::Duration;

use super::{MarkKey, PodOwner};

/// Settings of the Kubernetes launcher.
#[derive(Debug, Clone)]
pub struct KubernetesOptions {
    /// URL of the API server.
    pub cluster: String,
    /// Distinguishes the cluster from others with the same URL; see [`super::authority`].
    pub authority: Option<String>,
    /// Namespace of the Pods.
    pub namespace: String,
    /// Address that agents attach to: `https://host:port`.
    pub server: String,
    /// Image of the submitter.
    pub image: String,
    /// Image of the agent, for submitter images without one.
    pub agent_image: Option<String>,
    /// Image for steps of plain SQL; see [`Self::sql_image`].
    pub sql_image: Option<String>,
    /// Template that is merged into the Pod, as JSON.
    pub template: serde_json::Value,
    /// Where Pods have the certificate from that signed the server's.
    pub ca: AgentCa,
    /// The Pod that owns the Pods and claims of jobs; `None`: they have no owner.
    pub owner: Option<PodOwner>,
    /// Whether Pods are kept until their outcome is stored.
    pub finalizer: bool,
    /// Spec of the volume claim for steps with output to publish; `None`: the workspace is lost with its Pod.
    pub workspace_claim: Option<serde_json::Value>,
    /// Names of the `pod.<name>` attributes that statements may set.
    pub pod_resources: Vec<String>,
    /// Deadline of Pods; `None`: none.
    pub deadline: Option<Duration>,
    /// Grace period of a submitter, between TERM and KILL.
    pub grace: Duration,
    /// Time for which an agent with an outcome waits for a server.
    pub linger: Duration,
    /// Timeout for attaching, while the agent runs.
    pub attach: Duration,
    /// Key of the marks on Pods.
    pub mark_key: MarkKey,
}

/// Where agents have the certificate from that they trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentCa {
    /// From the key `ca.crt` of this ConfigMap in the Pods' namespace.
    ConfigMap(String),
    /// It is this one (PEM), which each Pod has in an annotation. So the server needs no right on ConfigMaps.
    Certificate(String),
}

impl KubernetesOptions {
    /// Image for steps of plain SQL, which has the agent and the data process: the one that is set, otherwise the image of
    /// the agent, or the image of submitters, which then has both.
    #[must_use]
    pub fn sql_image(&self) -> &str {
        self.sql_image.as_ref().or(self.agent_image.as_ref()).unwrap_or(&self.image)
    }
}
