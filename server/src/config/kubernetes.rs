//! Options of the kubernetes launcher.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sqlflow_cli::address;
use sqlflow_identity::Pattern;
use sqlflow_launcher::kubernetes::PodOwner;
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
    /// [default: one that the server makes, keeps in the state folder and gives to its Pods]
    #[arg(long, env = "SQLFLOW_AGENT_CERT", value_name = "FILE", requires = "agent_key")]
    pub agent_cert: Option<PathBuf>,

    /// Its key (PEM)
    #[arg(long, env = "SQLFLOW_AGENT_KEY", value_name = "FILE", requires = "agent_cert")]
    pub agent_key: Option<PathBuf>,

    /// Where Pods reach that address, such as https://sqlflow-server.sqlflow.svc:7443. An IPv6 address needs no brackets here
    #[arg(long, env = "SQLFLOW_AGENT_URL", value_name = "URL")]
    pub agent_url: Option<String>,

    /// ConfigMap in the Pods' namespace whose key ca.crt holds what the certificate of --agent-cert is signed by
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

    /// Pod of the server, as NAME/UID, that owns the Pods of jobs: they are removed with it. For a state folder that goes with
    /// it. Implies --pod-finalizer false
    #[arg(long, env = "SQLFLOW_POD_OWNER", value_name = "NAME/UID")]
    pub pod_owner: Option<PodOwner>,

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

    /// Where Pods reach the server.
    ///
    /// # Errors
    /// The URL is not given, or has another form.
    pub(crate) fn agent_address(&self) -> anyhow::Result<AgentAddress> {
        let given = self.agent_url.as_deref().context("--launcher kubernetes needs --agent-url")?;
        let place = given.strip_prefix("https://");
        let place = place.with_context(|| format!("--agent-url {given} must begin with https://"))?;
        // The downward API gives an IPv6 address without brackets.
        let bare = place.rsplit_once(':').filter(|(host, _)| host.parse::<Ipv6Addr>().is_ok());
        let url = match bare {
            Some((host, port)) => format!("https://[{host}]:{port}"),
            None => given.to_owned(),
        };
        let parsed = url.parse::<http::Uri>().with_context(|| format!("cannot use --agent-url {given}"))?;
        let host = parsed.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let is_of_host = |it: char| it.is_ascii_alphanumeric() || "-._:".contains(it);
        ensure!(
            !host.is_empty() && host.chars().all(is_of_host),
            "cannot use --agent-url {given}: it names no host"
        );
        Ok(AgentAddress { url, host })
    }

    /// The options that this launcher cannot do without and that are not set.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let needed = [("--agent-url", self.agent_url.is_none()), ("--pod-image", self.pod_image.is_none())];
        needed.into_iter().filter(|(_, is_missing)| *is_missing).map(|(name, _)| name).collect()
    }
}

/// Where Pods reach the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AgentAddress {
    /// `https://host:port`.
    pub(crate) url: String,
    /// Its host, a name or an address without brackets.
    pub(crate) host: String,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::Options;

    #[test]
    fn address_of_a_pod_is_one_for_agents() {
        let address = |url: &str| {
            let options = Options::try_parse_from(["sqlflow-server", &format!("--agent-url={url}")]).unwrap();
            let found = options.kubernetes.agent_address().map_err(|error| format!("{error:#}"))?;
            Ok::<_, String>((found.url, found.host))
        };
        for (given, url, host) in [
            ("https://a.ana.svc:7443", "https://a.ana.svc:7443", "a.ana.svc"),
            ("https://10.244.0.7:7443", "https://10.244.0.7:7443", "10.244.0.7"),
            ("https://[fd00::7]:7443", "https://[fd00::7]:7443", "fd00::7"),
            ("https://fd00::7:7443", "https://[fd00::7]:7443", "fd00::7"),
        ] {
            assert_eq!(address(given), Ok((url.to_owned(), host.to_owned())), "{given}");
        }
        assert!(address("http://a:7443").unwrap_err().contains("must begin with https://"));
        // Kubernetes leaves a variable that does not exist as it is.
        for wrong in ["https://$(POD_IP):7443", "https://:7443"] {
            let error = address(wrong).unwrap_err();
            assert!(error.contains(&format!("cannot use --agent-url {wrong}")), "{error}");
        }
    }

    #[test]
    fn owner_needs_name_and_uid() {
        let read = |owner: &str| Options::try_parse_from(["sqlflow-server", &format!("--pod-owner={owner}")]);
        assert!(read("notebook/1").unwrap().kubernetes.pod_owner.is_some());
        let error = read("notebook").unwrap_err().to_string();
        assert!(error.contains("expected NAME/UID of a Pod"), "{error}");
    }
}
