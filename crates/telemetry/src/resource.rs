//! The resource: attributes of the process that sends telemetry, by OpenTelemetry's semantic conventions.

use std::path::Path;
use std::sync::LazyLock;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

use crate::Identity;

/// File with the namespace of a Pod, from the volume of its service account.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Attributes of this process: the same for all signals.
static PROCESS: LazyLock<Vec<KeyValue>> = LazyLock::new(process);

/// Resource of a service. `process`: attributes of its process, if it is not this one. Attributes from variables override
/// detected ones.
pub(crate) fn of_service(service: &'static str, process: Vec<KeyValue>, identity: &Identity) -> Resource {
    let name = identity.service.clone().unwrap_or_else(|| service.to_owned());
    Resource::builder_empty()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attributes(PROCESS.iter().cloned())
        .with_attributes(process)
        .with_attributes(identity.resource.iter().cloned())
        .with_service_name(name)
        .build()
}

/// SQLFlow's Pods have their name, uid, namespace and node in environment variables `K8S_*`.
fn process() -> Vec<KeyValue> {
    let get = |name: &str| std::env::var(name).ok();
    let mut all = vec![
        KeyValue::new("service.instance.id", format!("{:016x}", rand::random::<u64>())),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ];
    let mut add = |key: &'static str, value: Option<String>| {
        all.extend(value.filter(|it| !it.is_empty()).map(|it| KeyValue::new(key, it)));
    };
    add("host.name", read("/proc/sys/kernel/hostname"));
    add("container.id", read("/proc/self/mountinfo").and_then(|it| container_id(&it)));
    if get("KUBERNETES_SERVICE_HOST").is_some() {
        add("k8s.namespace.name", get("K8S_NAMESPACE_NAME").or_else(|| read(NAMESPACE_FILE)));
        add("k8s.pod.name", get("K8S_POD_NAME").or_else(|| get("HOSTNAME")));
        add("k8s.pod.uid", get("K8S_POD_UID"));
        add("k8s.node.name", get("K8S_NODE_NAME"));
    }
    all
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Id of the container. The container runtime mounts files such as `…/containers/<id>/hostname` into it.
fn container_id(mounts: &str) -> Option<String> {
    let is_id = |it: &&str| it.len() == 64 && it.bytes().all(|it| it.is_ascii_hexdigit());
    let of_line = |line: &str| {
        let mut fields = line.split(' ').skip(3);
        let (source, target) = (fields.next()?, fields.next()?);
        let is_own = matches!(target, "/etc/hostname" | "/etc/hosts" | "/etc/resolv.conf" | "/");
        let parts: Vec<&str> = source.split('/').collect();
        parts.into_iter().rev().find(is_id).filter(|_| is_own).map(str::to_owned)
    };
    mounts.lines().find_map(of_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_id_is_found_in_mount_sources() {
        let id = "0123456789abcdef".repeat(4);
        let mounts = format!(
            "600 599 0:50 / / rw - overlay overlay rw\n\
             610 600 8:1 /var/lib/docker/volumes/{other}/_data /data rw - ext4 /dev/sda1 rw\n\
             611 600 8:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n",
            other = "f".repeat(64)
        );
        assert_eq!(container_id(&mounts), Some(id));
        assert_eq!(container_id("600 599 0:50 / / rw - overlay overlay rw\n"), None);
    }
}
