//! Options of the kubernetes launcher.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sqlflow_cli::address;
use sqlflow_identity::Pattern;
use sqlflow_units::duration;

/// The heading of options that no other launcher reads.
pub(super) const KUBERNETES_ONLY: &str = "With --launcher kubernetes";

/// Options of the kubernetes launcher.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = KUBERNETES_ONLY)]
pub struct KubernetesArgs {
    /// Address that agents in Pods attach to, always with TLS
    #[arg(long, env = "SQLFLOW_AGENT_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:7443", value_parser = address::agent_listen)]
    pub agent_listen: SocketAddr,

    /// Certificate chain of that address (PEM), reloaded when it is renewed; it must be valid for the host of --agent-url
    #[arg(long, env = "SQLFLOW_AGENT_CERT", value_name = "FILE")]
    pub agent_cert: Option<PathBuf>,

    /// Its key (PEM)
    #[arg(long, env = "SQLFLOW_AGENT_KEY", value_name = "FILE")]
    pub agent_key: Option<PathBuf>,

    /// Where Pods reach that address, such as https://sqlflow-server.sqlflow.svc:7443
    #[arg(long, env = "SQLFLOW_AGENT_URL", value_name = "URL")]
    pub agent_url: Option<String>,

    /// ConfigMap in the Pods' namespace whose key ca.crt holds what the certificate is signed by
    #[arg(long, env = "SQLFLOW_AGENT_CA", value_name = "NAME", default_value = "sqlflow-ca")]
    pub agent_ca: String,

    /// Namespace of the Pods [default: the server's own]
    #[arg(long, env = "SQLFLOW_POD_NAMESPACE", value_name = "NAME")]
    pub pod_namespace: Option<String>,

    /// Image of submitters
    #[arg(long, env = "SQLFLOW_POD_IMAGE", value_name = "IMAGE")]
    pub pod_image: Option<String>,

    /// Image that brings the agent to an image of submitters that has none
    #[arg(long, env = "SQLFLOW_POD_AGENT_IMAGE", value_name = "IMAGE")]
    pub pod_agent_image: Option<String>,

    /// Image for steps of plain SQL, with the agent and the data process [default: --pod-agent-image, or --pod-image]
    #[arg(long, env = "SQLFLOW_POD_SQL_IMAGE", value_name = "IMAGE", alias = "sql-image")]
    pub pod_sql_image: Option<String>,

    /// YAML file that is laid over every Pod: resources, node selector, volumes, labels. Its container is `submitter`
    #[arg(long, env = "SQLFLOW_POD_TEMPLATE", value_name = "FILE")]
    pub pod_template: Option<PathBuf>,

    /// YAML file with the spec of a PersistentVolumeClaim. Steps that train work on a volume of their own by it: a model
    /// that cannot be published outlives its Pod, and is published by another [default: work goes with the Pod]
    #[arg(long, env = "SQLFLOW_WORKSPACE_CLAIM", value_name = "FILE")]
    pub workspace_claim: Option<PathBuf>,

    /// What statements may set for their Pods by attributes pod.cpu, pod.memory, pod.gpu and pod.image
    #[arg(
        long,
        env = "SQLFLOW_POD_ATTRIBUTES",
        value_name = "NAMES",
        default_value = "cpu,memory,gpu",
        value_delimiter = ','
    )]
    pub pod_attributes: Vec<String>,

    /// Who may set pod.image if --pod-attributes has image, in the form of --allow [default: administrators]. An image
    /// runs with what its Pod has: the service account, volumes, network, and the credentials of the model storage
    #[arg(long, env = "SQLFLOW_POD_IMAGE_USERS", value_name = "PRINCIPALS", value_delimiter = ',')]
    pub pod_image_users: Vec<Pattern>,

    /// A Pod that runs longer is ended; 0: none is
    #[arg(long, env = "SQLFLOW_POD_DEADLINE", value_name = "TIME", default_value = "0", value_parser = duration)]
    pub pod_deadline: Duration,

    /// Pods stay until their outcome is stored, even if they are deleted
    #[arg(long, env = "SQLFLOW_POD_FINALIZER", value_name = "BOOL", default_value = "true", action = clap::ArgAction::Set)]
    pub pod_finalizer: bool,
}

impl KubernetesArgs {
    /// Who may choose the image of their Pods; `None`: no statement can.
    #[must_use]
    pub fn image_users(&self) -> Option<Vec<Pattern>> {
        self.pod_attributes.iter().any(|it| it == "image").then(|| self.pod_image_users.clone())
    }

    /// The options that this launcher cannot do without and that are not set.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let needed = [
            ("--agent-cert: agents are not served without TLS", self.agent_cert.is_none()),
            ("--agent-key", self.agent_key.is_none()),
            ("--agent-url", self.agent_url.is_none()),
            ("--pod-image", self.pod_image.is_none()),
        ];
        needed.into_iter().filter(|(_, is_missing)| *is_missing).map(|(name, _)| name).collect()
    }
}
