//! The Pod of an attempt: the server's requirements over the operator's template. Pure.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use sqlflow_job::{AttemptId, ExecutorRef};

use super::{AgentCa, KubernetesOptions, claim, mark};
use crate::{LaunchRequirements, PodResources, Target};

/// Label of the manager; its value is [`MANAGER`].
pub(super) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub(super) const MANAGER: &str = "sqlflow-server";
/// The attempt, in three labels, because selectors need them apart.
pub(super) const JOB: &str = "sqlflow.org/job";
pub(super) const STEP: &str = "sqlflow.org/step";
pub(super) const ATTEMPT: &str = "sqlflow.org/attempt";
/// Finalizer that keeps a Pod's termination message until a server has read it.
const FINALIZER: &str = "sqlflow.org/outcome";
/// Annotation with the certificate that the agent trusts, if no ConfigMap has it.
const CA_ANNOTATION: &str = "sqlflow.org/ca";
/// Audience of a Pod's token.
pub const AUDIENCE: &str = "sqlflow-server";
/// The container that runs the submitter.
pub(super) const CONTAINER: &str = "submitter";

const TOKEN_SECONDS: u64 = 3600;
const IDENTITY: &str = "/var/run/sqlflow/identity";
const WORK: &str = "/sqlflow";
/// The resource that device plugins of the common GPUs offer.
const GPU: &str = "nvidia.com/gpu";
/// Folder for the agent if the image has none.
const INJECTED: &str = "/sqlflow-agent-bin";
/// Time after the submitter's grace period in which the agent publishes and reports.
const AGENT_GRACE: Duration = Duration::from_secs(30);

const NAME_PREFIX: &str = "sqlflow-";

/// Name of the Pod: `sqlflow-<executor>`, so that launching twice makes one Pod.
pub(super) fn name(executor: &ExecutorRef) -> String {
    format!("{NAME_PREFIX}{executor}")
}

/// Labels of the Pod: its manager and its attempt.
pub(super) fn target_of(pod: &Pod) -> Option<Target> {
    let attempt = attempt_of_labels(&pod.metadata)?;
    let executor = pod.metadata.name.as_deref()?.strip_prefix(NAME_PREFIX)?.parse().ok()?;
    Some(Target { attempt, executor, instance: None, proof: None })
}

/// The attempt from a Pod's labels.
pub(super) fn attempt_of_labels(metadata: &ObjectMeta) -> Option<AttemptId> {
    let labels = metadata.labels.as_ref()?;
    if labels.get(MANAGED_BY)? != MANAGER {
        return None;
    }
    Some(AttemptId {
        job: labels.get(JOB)?.parse().ok()?,
        step: labels.get(STEP)?.parse().ok()?,
        number: labels.get(ATTEMPT)?.parse().ok()?,
    })
}

/// The finalizers without the launcher's; `None`: it is not among them.
pub(super) fn without_ours(finalizers: &[String]) -> Option<Vec<&String>> {
    let left: Vec<_> = finalizers.iter().filter(|it| *it != FINALIZER).collect();
    (left.len() < finalizers.len()).then_some(left)
}

/// Sizes of a Pod's folders, and of all that it writes to its node's disk: a program must not fill the disk that other Pods
/// share. A template may set others.
const WORK_SIZE: &str = "20Gi";
const TMP_SIZE: &str = "4Gi";
const AGENT_SIZE: &str = "256Mi";
const DISK_LIMIT: &str = "25Gi";
/// Without it the scheduler would look for a node with the limit free.
const DISK_REQUEST: &str = "64Mi";

/// Builds the Pod. It contains no part of the program and no secret: these are in the assignment.
///
/// # Errors
/// The template makes it something that is no Pod.
pub(super) fn pod(
    options: &KubernetesOptions,
    target: &Target,
    requirements: &LaunchRequirements,
) -> Result<Pod, serde_json::Error> {
    let Target { attempt, executor, .. } = target;
    let sql_image = requirements.plain_sql.then(|| options.sql_image());
    let injected = options.agent_image.as_ref().filter(|_| sql_image.is_none());
    let agent =
        if injected.is_some() { format!("{INJECTED}/sqlflow-agent") } else { "/sqlflow-agent".to_owned() };
    let grace = options.grace + AGENT_GRACE;
    let claimed = options.workspace_claim.is_some() && requirements.publishes;
    let work = if claimed {
        json!({ "name": "sqlflow-work", "persistentVolumeClaim": { "claimName": claim::name(attempt) } })
    } else {
        json!({ "name": "sqlflow-work", "emptyDir": { "sizeLimit": WORK_SIZE } })
    };
    let mut args = vec![
        "attach".to_owned(),
        format!("--server={}", options.server),
        format!("--ca={IDENTITY}/ca.crt"),
        format!("--token={IDENTITY}/token"),
        format!("--job={}", attempt.job),
        format!("--step={}", attempt.step),
        format!("--attempt={}", attempt.number),
        // Attempts that have the volume one after the other have a folder each.
        format!("--dir={WORK}/{}-{}", attempt.step, attempt.number),
        format!("--linger={}", options.linger.as_secs()),
        // Less than the kubelet gives, so that it is never killed in the middle of its last words.
        format!("--termination-grace={}", grace.as_secs() - 2),
        "--outcome=/dev/termination-log".to_owned(),
    ];
    if claimed {
        args.push("--keep-output".to_owned());
    }
    let mounts = json!([
        { "name": "sqlflow-identity", "mountPath": IDENTITY, "readOnly": true },
        { "name": "sqlflow-work", "mountPath": WORK },
        { "name": "sqlflow-tmp", "mountPath": "/tmp" },
    ]);
    let security = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
    });
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": CONTAINER,
                "image": options.image,
                "command": [agent],
                "args": args,
                "securityContext": security,
                "volumeMounts": mounts,
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "env": environment(),
                "resources": disk(DISK_LIMIT),
            }],
            "volumes": [
                { "name": "sqlflow-identity", "projected": { "sources": [
                    { "serviceAccountToken": { "audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
                    ca_source(&options.ca),
                ] } },
                work,
                { "name": "sqlflow-tmp", "emptyDir": { "sizeLimit": TMP_SIZE } },
            ],
        },
    });
    if let Some(image) = injected {
        inject(&mut pod, image, &security);
    }
    merge(&mut pod, &options.template);
    grant(&mut pod, &requirements.pod_resources);
    if let (Some(image), Some(container)) = (sql_image, submitter(&mut pod)) {
        // The template's image is for Python.
        container["image"] = json!(image);
    }
    // What no template may change.
    pod["spec"]["terminationGracePeriodSeconds"] = json!(grace.as_secs());
    pod["metadata"]["name"] = json!(name(executor));
    let labels = &mut pod["metadata"]["labels"];
    labels[MANAGED_BY] = json!(MANAGER);
    labels[JOB] = json!(attempt.job.as_str());
    labels[STEP] = json!(attempt.step.to_string());
    labels[ATTEMPT] = json!(attempt.number.to_string());
    pod["metadata"]["annotations"][mark::ANNOTATION] =
        json!(options.mark_key.mark(&options.namespace, target));
    if let Some(deadline) = options.deadline {
        pod["spec"]["activeDeadlineSeconds"] = json!(deadline.as_secs());
    }
    if let AgentCa::Certificate(certificate) = &options.ca {
        pod["metadata"]["annotations"][CA_ANNOTATION] = json!(certificate);
    }
    if let Some(owner) = &options.owner {
        pod["metadata"]["ownerReferences"] = owner.references();
    }
    if options.finalizer {
        pod["metadata"]["finalizers"] = json!([FINALIZER]);
    }
    serde_json::from_value(pod)
}

/// The file `ca.crt` of the agent's identity.
fn ca_source(ca: &AgentCa) -> Value {
    match ca {
        AgentCa::ConfigMap(name) => {
            json!({ "configMap": { "name": name, "items": [{ "key": "ca.crt", "path": "ca.crt" }] } })
        }
        AgentCa::Certificate(_) => {
            let field = json!({ "fieldPath": format!("metadata.annotations['{CA_ANNOTATION}']") });
            json!({ "downwardAPI": { "items": [{ "path": "ca.crt", "fieldRef": field }] } })
        }
    }
}

/// What a container may write to its node's disk.
fn disk(limit: &str) -> Value {
    json!({
        "requests": { "ephemeral-storage": DISK_REQUEST },
        "limits": { "ephemeral-storage": limit },
    })
}

/// The agent's spans name the Pod by these.
fn environment() -> Value {
    let field =
        |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    json!([
        { "name": "HOME", "value": "/tmp" },
        field("K8S_NAMESPACE_NAME", "metadata.namespace"),
        field("K8S_POD_NAME", "metadata.name"),
        field("K8S_POD_UID", "metadata.uid"),
        field("K8S_NODE_NAME", "spec.nodeName"),
    ])
}

/// The container of the agent.
fn submitter(pod: &mut Value) -> Option<&mut Value> {
    pod["spec"]["containers"].as_array_mut()?.iter_mut().find(|it| it["name"] == CONTAINER)
}

/// The resources of a step override the template.
fn grant(pod: &mut Value, resources: &PodResources) {
    let Some(container) = submitter(pod) else { return };
    let PodResources { cpu, memory, gpu, image } = resources;
    let cpu = cpu.as_ref().map(|value| json!({ "requests": { "cpu": value } }));
    let memory = memory
        .as_ref()
        .map(|value| json!({ "requests": { "memory": value }, "limits": { "memory": value } }));
    let gpu = gpu.as_ref().map(|value| json!({ "limits": { GPU: value } }));
    for wanted in [cpu, memory, gpu].into_iter().flatten() {
        merge(&mut container["resources"], &wanted);
    }
    if let Some(image) = image {
        container["image"] = json!(image);
    }
}

/// Lets an init container bring the agent into an image that has none.
fn inject(pod: &mut Value, image: &str, security: &Value) {
    let volume = "sqlflow-agent";
    let mount = |read_only| json!({ "name": volume, "mountPath": INJECTED, "readOnly": read_only });
    let spec = &mut pod["spec"];
    spec["initContainers"] = json!([{
        "name": "agent",
        "image": image,
        "command": ["/sqlflow-agent", "install", INJECTED],
        "securityContext": security,
        "volumeMounts": [mount(false)],
        // The largest limit of the containers is that of the Pod, so it is less than a template may set.
        "resources": disk(AGENT_SIZE),
    }]);
    push(&mut spec["volumes"], json!({ "name": volume, "emptyDir": { "sizeLimit": AGENT_SIZE } }));
    push(&mut spec["containers"][0]["volumeMounts"], mount(true));
}

fn push(list: &mut Value, item: Value) {
    if let Value::Array(list) = list {
        list.push(item);
    }
}

/// Lays `over` over `base`: objects by key, lists whose items have names by name (others are appended to), the rest is
/// replaced.
pub(super) fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (base @ Value::Null, over @ Value::Object(_)) => {
            *base = json!({});
            merge(base, over);
        }
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(base), Value::Array(over)) => {
            for item in over {
                let same =
                    |other: &&mut Value| item.get("name").is_some() && other.get("name") == item.get("name");
                match base.iter_mut().find(same) {
                    Some(found) => merge(found, item),
                    None => base.push(item.clone()),
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

#[cfg(test)]
pub(super) mod fixture {
    use super::super::mark::MarkKey;
    use super::*;

    /// Options with this template.
    pub(in super::super) fn options(template: Value) -> KubernetesOptions {
        KubernetesOptions {
            cluster: "https://cluster".to_owned(),
            authority: None,
            namespace: "ns".into(),
            server: "https://sqlflow-server:7443".into(),
            image: "submitter:1".into(),
            agent_image: None,
            sql_image: None,
            template,
            ca: AgentCa::ConfigMap("sqlflow-ca".into()),
            owner: None,
            finalizer: true,
            workspace_claim: None,
            pod_resources: Vec::new(),
            deadline: None,
            grace: Duration::from_secs(10),
            linger: Duration::from_secs(600),
            attach: Duration::from_secs(120),
            mark_key: MarkKey([7; 32]),
        }
    }
}

#[cfg(test)]
mod tests;
